//! A world of its own for a test of the binary: a data folder, pictures, and nothing of the
//! user's.

// Every test target uses its own part.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

/// What a run of the binary left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A temporary folder with a data folder in it.
pub struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        // As `index` will write it.
        fs_err::canonicalize(self.dir.path())
            .expect("exists")
            .join(name)
    }

    /// Path of a picture in `pictures/`, painted from `seed`; its name says the format.
    pub fn picture(&self, name: &str, seed: u32) -> PathBuf {
        let path = self.path("pictures").join(name);
        fs_err::create_dir_all(path.parent().expect("has one")).expect("made");
        paint(seed, 96, 64).save(&path).expect("saved");
        path
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(&self.path("data"), arguments)
    }

    /// The answer of a command that must go well.
    pub fn json(&self, arguments: &[&str]) -> Value {
        json(&self.path("data"), arguments)
    }

    /// Runs `index` over `pictures/`.
    pub fn index(&self, more: &[&str]) -> Value {
        let pictures = self.path("pictures");
        self.json(&[&["index", text(&pictures)], more].concat())
    }
}

/// The binary, with nothing but `data` to work on.
pub fn diptych(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych"));
    for variable in ["DIPTYCH_MODEL", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
        .env("DIPTYCH_DATA", data)
        .env("HOME", data)
        .stdin(Stdio::null());
    command
}

pub fn run(data: &Path, arguments: &[&str]) -> Ran {
    let output = diptych(data)
        .args(arguments)
        .output()
        .expect("the binary runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The answer of a command that must go well.
pub fn json(data: &Path, arguments: &[&str]) -> Value {
    let ran = run(data, &[arguments, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("the output is JSON")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A picture unlike those of other seeds: a colored rectangle on a colored gradient.
pub fn paint(seed: u32, width: u32, height: u32) -> RgbImage {
    let byte = |n: u32| (seed.wrapping_mul(0x9e37_79b9).rotate_left(n * 7) >> 5) as u8;
    let inside = |at: u32, side: u32, n| at > u32::from(byte(n)) % side && at * 4 > side;
    RgbImage::from_fn(width, height, |x, y| {
        if inside(x, width / 2, 1) && inside(y, height / 2, 2) {
            Rgb([byte(3), byte(4), byte(5)])
        } else {
            Rgb([
                byte(6).wrapping_add(x as u8),
                byte(7).wrapping_add(y as u8),
                byte(8),
            ])
        }
    })
}

/// Where the test of the demo leaves what it has indexed:
/// doing it twice would take as long as all other tests together.
pub fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo")
}

/// A running server; it is killed when it is dropped.
pub struct Serving {
    pub child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Serving {
    /// Starts the binary and waits for it to print its address.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = diptych(data);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let url = lines.find_map(|line| {
            let start = line.find("http://")?;
            Some(line[start..].trim().to_owned())
        });
        // Whatever else is printed must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(url) = url else {
            let status = child.wait();
            panic!("{arguments:?} printed no address: {status:?}");
        };
        Self { child, url }
    }

    /// The status and the body of an answer to JSON.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(method, path, ("application/json", &body.to_string()))
    }

    /// The body of what there is.
    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, ("application/json", "")).1
    }

    /// The status and the body of an answer to a body of some kind.
    pub fn send(&self, method: &str, path: &str, (kind, body): (&str, &str)) -> (u16, Value) {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("connects");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sends");
        stream.write_all(body.as_bytes()).expect("sends");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answers");
        let status = reply
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let start = reply.find("\r\n\r\n").expect("an end of the head") + 4;
        let body = serde_json::from_str(&reply[start..]).unwrap_or_default();
        (status.expect("a status"), body)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
