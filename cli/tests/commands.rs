//! The other commands, from outside: what they answer, and what they say when they cannot.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::world::{Serving, World, text};

mod world;

fn row(embedding: &Value) -> Vec<f64> {
    let numbers = embedding.as_array().expect("a list");
    numbers
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

#[test]
fn a_batch_of_pictures_gets_the_embeddings_of_single_ones() {
    let world = World::new();
    let paths: Vec<_> = (0..10)
        .map(|i| world.picture(&format!("{i}.png"), i))
        .collect();
    let mut arguments = vec!["embed", "--image"];
    arguments.extend(paths.iter().map(|path| text(path)));
    let together = world.json(&arguments);
    for (i, path) in paths.iter().enumerate() {
        let alone = world.json(&["embed", "--image", text(path)]);
        assert_eq!(alone["fingerprint"], together["fingerprint"]);
        let (alone, batched) = (&alone["items"][0], &together["items"][i]);
        assert_eq!(batched["input"], text(path));
        // Whitening magnifies what its directions lack in variation, and rounding with it.
        for (aspect, rounding) in [("shared", 1e-6), ("specific", 1e-5)] {
            if alone[aspect].is_null() {
                assert_eq!(batched[aspect], Value::Null);
                continue;
            }
            let (a, b) = (row(&alone[aspect]), row(&batched[aspect]));
            assert!(
                (a.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5,
                "unit length"
            );
            let far = a
                .iter()
                .zip(&b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(
                a.len() == b.len() && far <= rounding,
                "picture {i}, {aspect}: {far}"
            );
        }
    }
}

#[test]
fn texts_and_pictures_are_embedded_into_one_space() {
    let world = World::new();
    let path = world.picture("a.png", 1);
    let answer = world.json(&["embed", "--text", "a dog", "a cat", "--image", text(&path)]);
    let items = answer["items"].as_array().expect("a list");
    let modalities: Vec<_> = items.iter().map(|item| item["modality"].as_str()).collect();
    assert_eq!(modalities, [Some("text"), Some("text"), Some("image")]);
    let dims: Vec<_> = items
        .iter()
        .map(|item| row(&item["shared"]).len())
        .collect();
    assert!(
        dims[0] > 1 && dims.iter().all(|dim| *dim == dims[0]),
        "{dims:?}"
    );
    assert_ne!(items[0]["shared"], items[1]["shared"]);

    let info = world.json(&["model", "info"]);
    assert!(info.is_object());
    let ran = world.run(&["model", "info"]);
    let fingerprint = answer["fingerprint"].as_str().expect("a string");
    assert!(
        ran.code == Some(0) && ran.stdout.contains(fingerprint),
        "{ran:?}"
    );
}

#[test]
fn a_classification_is_a_distribution_with_the_best_label_first() {
    let world = World::new();
    let path = world.picture("a.png", 1);
    for input in [vec![text(&path)], vec!["--text", "a puppy"]] {
        let labels = ["--labels", "dog, car,pizza", "--template", "this is {}"];
        let answer = world.json(&[&["classify"], input.as_slice(), &labels].concat());
        let predictions = answer["predictions"].as_array().expect("a list");
        let probabilities: Vec<f64> = predictions
            .iter()
            .map(|p| p["probability"].as_f64().expect("a number"))
            .collect();
        assert_eq!(probabilities.len(), 3);
        assert!(
            (probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-4,
            "{answer}"
        );
        assert!(probabilities.is_sorted_by(|a, b| a >= b), "{answer}");
        assert!(predictions.iter().any(|p| p["label"] == "car"), "{answer}");
    }
    let refused = [
        (&["--labels", "dog,dog"][..], "given twice"),
        (&["--labels", "dog,,cat"], "empty"),
        (&["--labels", "dog", "--template", "a photo"], "{}"),
        (&["--labels", "dog", "--template", "{} and {}"], "{}"),
    ];
    for (arguments, reason) in refused {
        let ran = world.run(&[&["classify", "--text", "x"], arguments].concat());
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
    }
}

#[test]
fn a_search_before_anything_is_indexed_says_what_to_do() {
    let world = World::new();
    let ran = world.run(&["search", "a dog"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("diptych index"), "{}", ran.stderr);
    assert!(!world.path("data").exists(), "asking leaves nothing behind");
}

#[test]
fn a_specific_search_stays_within_one_kind() {
    let world = World::new();
    let path = world.picture("a.png", 1);
    world.index(&[]);
    let ran = world.run(&["search", "a dog", "--space", "specific"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--target text"), "{}", ran.stderr);
    let found = world.json(&["search", "--image", text(&path), "--space", "specific"]);
    assert_eq!(found["space"], "specific");
    assert_eq!(found["hits"][0]["id"], text(&path));
}

/// The turns that pictures and texts take were once counted out to `k`, however few there were.
#[test]
fn asking_for_more_than_there_is_ends() {
    let world = World::new();
    world.picture("a.png", 1);
    world.index(&[]);
    let found = world.json(&["search", "a", "--target", "both", "-k", "100000000000"]);
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_folder_that_is_no_model_or_cannot_hold_data_is_named() {
    let world = World::new();
    let path = world.picture("a.png", 1);
    let ran = world.run(&["model", "info", "--model", text(&world.path("pictures"))]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("pictures") && ran.stderr.contains("config"),
        "{}",
        ran.stderr
    );

    // Even root cannot make a folder below a file.
    let below_a_file = path.join("data");
    for command in [
        &["demo", "--no-serve"][..],
        &["index", text(&world.path("pictures"))],
    ] {
        let ran = world.run(&[command, &["--data", text(&below_a_file)]].concat());
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stderr.starts_with("error: ") && ran.stderr.contains("a.png"),
            "{ran:?}"
        );
        assert_eq!(
            ran.stderr.lines().count(),
            1,
            "one clear line: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_busy_port_is_noticed_before_any_work() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    for command in ["demo", "serve"] {
        let begin = Instant::now();
        let ran = world.run(&[command, "--port", &port]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stderr.contains(&port) && ran.stderr.contains("--port"),
            "{}",
            ran.stderr
        );
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert!(!world.path("data").exists(), "nothing was written");
    }
}

#[test]
fn an_address_that_others_reach_is_refused_unless_allowed() {
    let world = World::new();
    let ran = world.run(&["serve", "--bind", "0.0.0.0", "--port", "0"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--insecure"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn a_served_folder_is_used_by_nobody_else_and_a_signal_ends_it_well() {
    let world = World::new();
    world.picture("a.png", 1);
    world.index(&[]);
    let mut serving = Serving::start(&world.path("data"), &["serve", "--port", "0"]);
    let ran = world.run(&["search", "a dog"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("HTTP"), "{}", ran.stderr);

    terminate(&serving);
    let status = serving.child.wait().expect("ends");
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.run(&["search", "a dog"]).code, Some(0));
}

/// A second signal was once put behind the first, which waited for every open request.
#[cfg(unix)]
#[test]
fn a_second_signal_does_not_wait_for_open_requests() {
    let world = World::new();
    world.picture("a.png", 1);
    world.index(&[]);
    let mut serving = Serving::start(&world.path("data"), &["serve", "--port", "0"]);
    let address = serving.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("connects");
    let head = "POST /v1/collections/default/items HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("is sent");
    // The head of the answer says that the request was accepted.
    stream.read_exact(&mut [0; 12]).expect("an answer begins");
    terminate(&serving);
    std::thread::sleep(Duration::from_millis(500));
    let early = serving.child.try_wait().expect("can be asked");
    assert_eq!(early, None, "the open request is waited for");
    terminate(&serving);
    let begin = Instant::now();
    while serving.child.try_wait().expect("can be asked").is_none() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it still waits");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(unix)]
fn terminate(serving: &Serving) {
    let kill = Command::new("kill")
        .args(["-TERM", &serving.child.id().to_string()])
        .stdin(Stdio::null())
        .status();
    assert!(kill.expect("kill runs").success());
}
