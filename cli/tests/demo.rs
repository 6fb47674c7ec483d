//! `diptych demo`, from outside.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::world::{diptych, run};

mod world;

#[test]
fn an_interrupted_demo_is_completed_and_then_starts_at_once() {
    let data = world::demo_folder();
    // What an earlier run of the tests has left.
    let _ = fs_err::remove_dir_all(&data);
    let mut command = diptych(&data);
    command
        .args(["demo", "--no-serve"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("runs");
    thread::sleep(Duration::from_secs(3));
    child.kill().expect("killed");
    child.wait().expect("ended");

    let ran = run(&data, &["demo", "--no-serve"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let begin = Instant::now();
    let ran = run(&data, &["demo", "--no-serve"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(ran.stderr, "", "nothing was left to do");

    // All pictures, with their files, and all names.
    let search = |target| {
        let arguments = [
            "search",
            "pizza",
            "--collection",
            "demo",
            "--k",
            "100000",
            "--target",
            target,
        ];
        world::json(&data, &arguments)["hits"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let pictures = search("image");
    assert!(pictures.len() > 3500, "{} pictures", pictures.len());
    for hit in &pictures {
        let source = hit["source"].as_str().expect("a path");
        assert!(fs_err::metadata(source).expect("exists").len() > 0);
        assert_eq!(
            hit["payload"]["name"].as_str().map(str::is_empty),
            Some(false)
        );
    }
    let names = search("text");
    assert_eq!(names.len(), pictures.len());
    assert_eq!(
        names[0]["text"], "pizza",
        "the name itself is nearest to itself"
    );
}
