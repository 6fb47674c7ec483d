//! Settings from a file, the environment and flags, and the keys of a server.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

mod world;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::world::{Ran, Serving, World, diptych, text};

fn with(world: &World, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command: Command = diptych(&world.path("data"));
    command.envs(variables.iter().copied()).args(arguments);
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn file(world: &World, text: &str) -> String {
    let path = world.path("diptych.toml");
    fs_err::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_holds_is_shown_with_where_it_comes_from() {
    let world = World::new();
    let file = file(
        &world,
        "hosts = ['a.example']\n[limits]\nk = 7\nitems = 8\n",
    );
    let variables = [
        ("DIPTYCH_CONFIG", file.as_str()),
        ("DIPTYCH_LIMITS__K", "9"),
    ];
    let shown = with(&world, &variables, &["config", "show"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for line in [
        "k = 9  # DIPTYCH_LIMITS__K".to_owned(),
        format!("items = 8  # {file}"),
        format!("hosts = [\"a.example\"]  # {file}"),
        "labels = 1000  # default".to_owned(),
    ] {
        assert!(
            shown.stdout.lines().any(|l| l == line),
            "{line}: {}",
            shown.stdout
        );
    }
}

#[test]
fn a_check_says_what_is_wrong_and_what_was_meant() {
    let world = World::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../diptych.example.toml");
    let fine = world.run(&["config", "check", example]);
    assert_eq!(fine.code, Some(0), "{}", fine.stderr);
    for (wrong, said) in [
        ("[limits]\nbody_byte = 3", "did you mean limits.body_bytes?"),
        ("[limits]\nk = 'many'", "limits.k"),
        ("[limits]\nk = 0", "limits.k is 0"),
        ("[index]\ntarget_recall = 3.0", "target_recall"),
        ("precision = 'f64'", "precision"),
        ("bind = '0.0.0.0:7700'", "diptych key add"),
        ("bind = 'here'", "as \"127.0.0.1:7700\""),
        ("[tls]\ncert = 'c.pem'", "did you mean tls.certificate?"),
        ("model = '/not/here'", "/not/here"),
        ("[telemetry]\nsample = 2", "telemetry.sample is 2"),
        ("[index]\nseal_share = 7", "[index]: seal_share is 7"),
        ("cors = ['app.example.com']", "app.example.com"),
        ("[tls]\nkey = 'k.pem'", "tls.certificate"),
        ("[tls]\nkey = 'k.pem'\ncertificate = 'no.pem'", "no.pem"),
        ("[urls]\nallow = ['https://a.example']", "https://a.example"),
        ("bind = = 3", "not valid TOML"),
        (
            "hosts = ['http://a']",
            "\"http://a\" in `hosts` is no host name",
        ),
        ("hosts = ['a.example:80']", "\"a.example:80\" in `hosts`"),
        (
            "workers = 10000000",
            "workers is 10000000, expected at most 1024",
        ),
        ("shutdown_s = 1000000000000", "expected at most 86400"),
        (
            "[urls]\nallow_private = ['10.1.0.0/16', '10.1.0.0/99']",
            "urls.allow_private[1] is \"10.1.0.0/99\": ",
        ),
    ] {
        let file = file(&world, wrong);
        let ran = world.run(&["config", "check", &file]);
        assert_eq!(ran.code, Some(1), "{wrong}: {}", ran.stdout);
        assert!(ran.stderr.contains(said), "{wrong}: {}", ran.stderr);
    }
    let typo = with(
        &world,
        &[("DIPTYCH_LIMITS__BODY_BYTE", "3")],
        &["config", "check"],
    );
    assert!(
        typo.stderr.contains("DIPTYCH_LIMITS__BODY_BYTES"),
        "{}",
        typo.stderr
    );
    if !cfg!(feature = "cuda") {
        let cuda = world.run(&["config", "check", &file(&world, "device = 'cuda'")]);
        assert_eq!(cuda.code, Some(1), "{}", cuda.stdout);
        assert!(cuda.stderr.contains("--features cuda"), "{}", cuda.stderr);
    }
    let endpoint = "[telemetry]\notlp_endpoint = 'http://127.0.0.1:4318'";
    let traced = world.run(&["config", "check", &file(&world, endpoint)]);
    if cfg!(feature = "otel") {
        assert_eq!(traced.code, Some(0), "{}", traced.stderr);
    } else {
        assert_eq!(traced.code, Some(1), "{}", traced.stdout);
        assert!(
            traced.stderr.contains("--features otel"),
            "{}",
            traced.stderr
        );
    }
    let kubernetes = [
        ("DIPTYCH_SERVICE_HOST", "10.0.0.1"),
        ("DIPTYCH_PORT", "tcp://10.0.0.1:7700"),
    ];
    let other = with(&world, &kubernetes, &["config", "check"]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert!(
        other.stderr.contains("DIPTYCH_PORT is no setting"),
        "{}",
        other.stderr
    );
}

#[test]
fn a_check_tells_all_mistakes_at_once() {
    let world = World::new();
    let text = "precision = 'f64'\ndevice = 'gpu'\nhosts = ['http://a']\nworkers = 0\n\
                [limits]\nk = 0\nhead_ms = 3\n[index]\nseal_share = 7\n";
    let ran = world.run(&["config", "check", &file(&world, text)]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    for said in [
        "7 mistakes",
        "precision: ",
        "device: ",
        "`hosts`",
        "workers is 0",
        "limits.k is 0",
        "limits.head_ms is 3",
        "seal_share is 7",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
}

#[test]
fn the_port_is_a_part_of_the_address() {
    let world = World::new();
    let port = with(&world, &[("DIPTYCH_PORT", "7701")], &["config", "check"]);
    assert_eq!(port.code, Some(1), "{}", port.stdout);
    assert!(port.stderr.contains("DIPTYCH_BIND"), "{}", port.stderr);
    let flags = ["serve", "--bind", "127.0.0.9:0"];
    let serving = Serving::start(&world.path("data"), &flags);
    let url = &serving.url;
    assert!(url.starts_with("http://127.0.0.9:"), "{url}");
    assert!(!url.ends_with(":7700"), "{url}");
    drop(serving);
    let flags = ["serve", "--bind", "127.0.0.9:1", "--port", "0"];
    let serving = Serving::start(&world.path("data"), &flags);
    assert!(!serving.url.ends_with(":1"), "{}", serving.url);
}

#[test]
fn a_file_reaches_the_server_and_a_flag_goes_before_it() {
    let world = World::new();
    let file = file(&world, "bind = '127.0.0.9:1'\n[limits]\nk = 7\n");
    let flags = ["serve", "--config", &file, "--port", "0"];
    let serving = Serving::start(&world.path("data"), &flags);
    assert!(
        serving.url.starts_with("http://127.0.0.9:"),
        "{}",
        serving.url
    );
    assert!(!serving.url.ends_with(":1"), "{}", serving.url);
    // One process uses a data folder at a time, wherever its name comes from.
    let data = text(&world.path("data")).to_owned();
    let named = file_of(&world, &data);
    let ran = world.run(&["search", "a", "--config", &named]);
    assert!(
        ran.stderr.contains("another diptych process"),
        "{}",
        ran.stderr
    );
}

fn file_of(world: &World, data: &str) -> String {
    file(world, &format!("data = {data:?}\n"))
}

#[test]
fn keys_are_made_listed_and_removed_and_each_is_shown_once() {
    let world = World::new();
    let made = world.run(&[
        "key",
        "add",
        "web",
        "--role",
        "read",
        "--collection",
        "photos",
    ]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let secret = made.stdout.trim();
    assert!(
        secret.starts_with("diptych_") && secret.len() > 40,
        "{secret}"
    );
    let listed = world.json(&["key", "list"]);
    assert_eq!(listed["keys"][0]["name"], "web");
    assert_eq!(listed["keys"][0]["collections"][0], "photos");
    assert!(!listed.to_string().contains("hash"), "{listed}");
    let again = world.run(&["key", "add", "web", "--role", "read"]);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    assert_eq!(world.run(&["key", "remove", "web"]).code, Some(0));
    assert_eq!(world.run(&["key", "remove", "web"]).code, Some(1));
    let log = fs_err::read_to_string(world.path("data").join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let actions: Vec<_> = lines
        .iter()
        .map(|l| l["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["key add", "key remove"]);
    assert!(!log.contains(secret));
}

#[test]
fn lines_of_json_about_a_request_say_which_it_was() {
    let world = World::new();
    let log = world.path("log");
    let mut child = diptych(&world.path("data"))
        .args(["serve", "--port", "0", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(fs_err::File::create(&log).unwrap().into_parts().0)
        .spawn()
        .unwrap();
    let mut said = [0; 256];
    let n = child.stdout.as_mut().unwrap().read(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..n]).into_owned();
    let address = said.trim().rsplit("http://").next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "GET /v1/model HTTP/1.1\r\nhost: localhost\r\nx-request-id: which.one-1\r\n\
                connection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("x-request-id: which.one-1"), "{answer}");
    let until = Instant::now() + Duration::from_secs(10);
    let line = loop {
        let text = fs_err::read_to_string(&log).unwrap();
        if let Some(line) = text.lines().find(|line| line.contains("/v1/model")) {
            break line.to_owned();
        }
        assert!(Instant::now() < until, "{text}");
        thread::sleep(Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["request_id"], "which.one-1", "{line}");
    assert_eq!(
        (&line["status"], &line["method"]),
        (&200.into(), &"GET".into()),
        "{line}"
    );
}

#[test]
fn shells_and_manuals_know_every_command() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]);
        assert_eq!(script.code, Some(0), "{}", script.stderr);
        assert!(script.stdout.contains("target-recall"), "{shell}");
    }
    let page = world.run(&["man"]).stdout;
    assert!(
        page.starts_with(".ie") || page.contains(".TH diptych 1"),
        "{page}"
    );
    let dir = world.path("man");
    assert_eq!(world.run(&["man", "--dir", text(&dir)]).code, Some(0));
    for name in ["diptych", "diptych-serve", "diptych-key-add"] {
        let page = fs_err::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        let title = format!(
            ".TH {name} 1 \" \" \"diptych {}\"",
            env!("CARGO_PKG_VERSION")
        );
        assert!(page.contains(&title), "{page}");
    }
}
