//! `diptych demo`, from outside.

use std::{
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Serving, diptych, run};

mod world;

#[test]
fn an_interrupted_demo_is_completed_and_then_starts_at_once() {
    let data = world::demo_folder();
    // What an earlier run of the tests has left.
    let _ = fs_err::remove_dir_all(&data);
    // How soon something is committed depends on the machine. All of it takes many times longer.
    let mut delay = Duration::from_secs(1);
    let survived = loop {
        let mut command = diptych(&data);
        command
            .args(["demo", "--no-serve"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("runs");
        thread::sleep(delay);
        child.kill().expect("killed");
        child.wait().expect("ended");
        let survived = count(&data, "text") + count(&data, "image");
        if survived > 0 {
            break survived;
        }
        delay *= 2;
        assert!(delay < Duration::from_mins(2), "nothing is ever committed");
    };

    let ran = run(&data, &["demo", "--no-serve"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let completed = indexed(&ran.stderr);
    assert!(completed > 0, "the first run was interrupted");
    let first = ran.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("indexing "), "{}", ran.stderr);
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
    assert_eq!(
        survived + completed,
        2 * pictures.len(),
        "nothing is indexed twice"
    );
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
    words_tell_pictures(&data);
}

/// Demands that words tell the pictures, and that the others say what is none of them.
fn words_tell_pictures(data: &Path) {
    let serving = Serving::start(data, &["serve", "--port", "0"]);
    let labels = ["red apple", "bicycle", "cat", "pizza"];
    for (templates, multi_label) in [
        (json!(null), false),
        (json!(null), true),
        (json!("clip"), false),
    ] {
        let asked = json!({
            "collection": "demo", "ids": [
                "1f34e", "1f6b2", "1f355", "1f34e-name", "1f355-name", "1f4bb", "1f4bb-name", "nothing",
            ],
            "labels": labels, "templates": templates, "multi_label": multi_label, "k": 1,
        });
        let (status, reply) = serving.ask("POST", "/v1/classify", &asked);
        assert_eq!(status, 200, "{reply}");
        let found = [labels[0], labels[1], labels[3], labels[0], labels[3]];
        for (i, label) in found.into_iter().enumerate() {
            let item = &reply["items"][i];
            assert_eq!(item["labels"][0]["label"], label, "{asked}: {item}");
            assert_eq!(item["none_of_these"], false, "{asked}: {item}");
        }
        for computer in &reply["items"].as_array().expect("items")[5..7] {
            assert_eq!(computer["none_of_these"], true, "{asked}: {computer}");
        }
        assert_eq!(reply["items"][7]["error"]["code"], "item_not_found");
    }
}

/// Items of one kind in the store; 0 where there is no store yet.
fn count(data: &Path, target: &str) -> usize {
    let everything = [
        "--collection",
        "demo",
        "--k",
        "100000",
        "--json",
        "--target",
    ];
    let ran = run(
        data,
        &[&["search", "x"], &everything[..], &[target]].concat(),
    );
    let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    found["hits"].as_array().map_or(0, Vec::len)
}

/// Pictures and names that a run says it has indexed.
fn indexed(stderr: &str) -> usize {
    let line = stderr.lines().find(|line| line.starts_with("indexed "));
    let line = line.unwrap_or_else(|| panic!("nothing was indexed: {stderr}"));
    let (counts, _) = line.split_once(" in ").expect("says how long it took");
    let number = |word: &str| word.replace(',', "").parse::<usize>().ok();
    counts.split(' ').filter_map(number).sum()
}
