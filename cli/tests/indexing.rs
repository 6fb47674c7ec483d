//! `diptych index`, from outside: formats, repetition, interruption, removal, broken files.

use std::{collections::BTreeSet, process::Stdio, thread, time::Duration};

use serde_json::{Value, json};

use crate::world::{World, diptych, text};

mod world;

/// Numbers of a report, in the order new, changed, unchanged, removed, failed.
fn numbers(report: &Value) -> [u64; 5] {
    let number = |key: &str| report[key].as_u64().expect("a number");
    let failed = report["failed"].as_array().expect("a list").len() as u64;
    [
        number("indexed"),
        number("updated"),
        number("unchanged"),
        number("pruned"),
        failed,
    ]
}

/// Ids of everything in the collection.
fn ids(world: &World) -> Vec<String> {
    let found = world.json(&["search", "anything", "--k", "10000"]);
    let hits = found["hits"].as_array().expect("a list");
    hits.iter()
        .map(|hit| hit["id"].as_str().expect("a string").to_owned())
        .collect()
}

#[test]
fn pictures_of_every_format_are_found_by_themselves() {
    let world = World::new();
    let names = [
        "a.jpg",
        "b.png",
        "c.webp",
        "deep/er/d.gif",
        "e.bmp",
        "f.TIFF",
    ];
    let paths: Vec<_> = (1..)
        .zip(names)
        .map(|(seed, name)| world.picture(name, seed))
        .collect();
    let report = world.index(&[]);
    assert_eq!(numbers(&report), [6, 0, 0, 0, 0], "{report}");
    for path in paths {
        let found = world.json(&["search", "--image", text(&path), "-k", "1"]);
        let hit = &found["hits"][0];
        assert_eq!(hit["id"], text(&path));
        assert_eq!(hit["source"], text(&path));
        assert_eq!(hit["modality"], "image");
        assert!(hit["score"].as_f64().expect("a number") > 0.9999, "{hit}");
        assert_eq!(found["space"], "shared");
    }
}

#[test]
fn only_what_changed_is_encoded_again_and_only_prune_removes() {
    let world = World::new();
    let [a, b, _] = [1, 2, 3].map(|seed| world.picture(&format!("{seed}.png"), seed));
    assert_eq!(numbers(&world.index(&[])), [3, 0, 0, 0, 0]);
    assert_eq!(numbers(&world.index(&[])), [0, 0, 3, 0, 0]);

    world.picture("1.png", 40);
    fs_err::remove_file(&b).expect("removed");
    world.picture("4.png", 4);
    assert_eq!(numbers(&world.index(&[])), [1, 1, 1, 0, 0]);
    assert!(ids(&world).contains(&text(&b).to_owned()));
    let elsewhere = world.path("elsewhere");
    fs_err::create_dir_all(&elsewhere).expect("made");
    let report = world.json(&["index", text(&elsewhere), "--prune"]);
    assert_eq!(
        numbers(&report),
        [0, 0, 0, 0, 0],
        "another folder removes nothing"
    );
    assert_eq!(numbers(&world.index(&["--prune"])), [0, 0, 3, 1, 0]);
    assert!(!ids(&world).contains(&text(&b).to_owned()));
    assert!(ids(&world).contains(&text(&a).to_owned()));
}

/// Pictures behind a link were once indexed under the path that the link leads to, which nobody
/// remembered: they were never shown and never pruned.
#[cfg(unix)]
#[test]
fn pictures_behind_links_are_remembered_and_pruned() {
    use std::os::unix::fs::symlink;

    let world = World::new();
    world.picture("a.png", 1);
    let outside = world.path("outside");
    fs_err::create_dir_all(outside.join("folder")).expect("made");
    let outside_picture = |name: &str, seed| {
        let target = outside.join(name);
        fs_err::rename(world.picture("new.png", seed), &target).expect("moved");
        target
    };
    let [single, lost, kept, gone] = [
        ("single.png", 2),
        ("lost.png", 3),
        ("folder/kept.png", 4),
        ("folder/gone.png", 5),
    ]
    .map(|(name, seed)| outside_picture(name, seed));
    let pictures = world.path("pictures");
    symlink(outside.join("folder"), pictures.join("folder-link")).expect("linked");
    symlink(&single, pictures.join("single-link.png")).expect("linked");
    symlink("../outside/lost.png", pictures.join("lost-link.png")).expect("linked");
    fs_err::write(outside.join("notes.txt"), "no picture").expect("written");
    symlink(outside.join("notes.txt"), pictures.join("notes")).expect("linked");
    assert_eq!(numbers(&world.index(&[])), [5, 0, 0, 0, 0]);

    let roots = fs_err::read(world.path("data/indexed_roots.json")).expect("is there");
    let roots: BTreeSet<String> = serde_json::from_slice(&roots).expect("is a list");
    let expected = [&pictures, &outside.join("folder"), &single, &lost];
    assert_eq!(roots, expected.map(|path| text(path).to_owned()).into());

    fs_err::remove_file(&gone).expect("removed");
    fs_err::remove_file(&lost).expect("removed");
    assert_eq!(numbers(&world.index(&["--prune"])), [0, 0, 3, 2, 1]);
    let left = ids(&world);
    assert!(left.contains(&text(&single).to_owned()), "{left:?}");
    assert!(left.contains(&text(&kept).to_owned()), "{left:?}");

    // A folder inside one that is known needs no line of its own.
    fs_err::create_dir_all(pictures.join("inner")).expect("made");
    world.json(&["index", text(&pictures.join("inner"))]);
    let again = fs_err::read(world.path("data/indexed_roots.json")).expect("is there");
    let again: BTreeSet<String> = serde_json::from_slice(&again).expect("is a list");
    assert_eq!(again, roots);
}

#[test]
fn a_bad_file_costs_nothing_but_itself_and_is_named_with_its_reason() {
    let world = World::new();
    world.picture("good.png", 1);
    let whole = fs_err::read(world.picture("whole.jpg", 2)).expect("read");
    let bad = |name: &str, bytes: &[u8]| {
        fs_err::write(world.path("pictures").join(name), bytes).expect("written");
    };
    bad("cut.jpg", &whole[..whole.len() / 2]);
    bad("empty.gif", b"");
    bad("words.png", b"these are words");
    bad("live.heic", b"");
    let huge = fs_err::File::create(world.path("pictures/huge.bmp")).expect("made");
    huge.set_len(1 << 30).expect("sparse");

    let report = world.index(&[]);
    assert_eq!(numbers(&report), [2, 0, 0, 0, 5], "{report}");
    let failed = report["failed"].as_array().expect("a list");
    for (failure, name) in
        failed
            .iter()
            .zip(["cut.jpg", "empty.gif", "huge.bmp", "live.heic", "words.png"])
    {
        assert!(
            failure["path"].as_str().expect("a path").ends_with(name),
            "{report}"
        );
        assert!(
            failure["reason"].as_str().expect("a reason").len() > 10,
            "{report}"
        );
    }
    let ran = world.run(&["index", text(&world.path("pictures"))]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("words.png: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("5 failed"), "{}", ran.stdout);

    let ran = world.run(&["index", text(&world.path("pictures/words.png"))]);
    assert_eq!(ran.code, Some(1), "nothing went well");
}

#[test]
fn a_killed_run_is_completed_by_the_next_and_nothing_is_indexed_twice() {
    const PICTURES: usize = 600;
    let world = World::new();
    let paths: BTreeSet<String> = (0..PICTURES)
        .map(|i| text(&world.picture(&format!("{}/{i}.png", i % 7), i as u32)).to_owned())
        .collect();
    // How long a run takes depends on the machine: the delay is searched for until a kill hits a
    // run that has committed some pictures and not all.
    let (mut too_short, mut too_long, mut delay) =
        (Duration::ZERO, None, Duration::from_millis(100));
    for round in 0.. {
        assert!(
            round < 40,
            "no kill hit a run: {too_short:?} to {too_long:?}"
        );
        let mut command = diptych(&world.path("data"));
        command.args(["index", text(&world.path("pictures"))]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        thread::sleep(delay);
        child.kill().expect("killed");
        child.wait().expect("ended");
        let ran = world.run(&["search", "anything", "--k", "10000", "--json"]);
        // Before the first commit there may be no collection, nor even a store.
        let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        match found["hits"].as_array().map_or(0, Vec::len) {
            0 => too_short = delay,
            PICTURES => {
                too_long = Some(delay);
                fs_err::remove_dir_all(world.path("data")).expect("removed");
            }
            _ => break,
        }
        delay = too_long.map_or(delay * 2, |too_long| (too_short + too_long) / 2);
    }
    let report = world.index(&[]);
    let [new, changed, unchanged, _, failed] = numbers(&report);
    assert!(new > 0 && unchanged > 0, "{report}");
    assert_eq!(
        (new + unchanged, changed, failed),
        (PICTURES as u64, 0, 0),
        "{report}"
    );
    let found = ids(&world);
    assert_eq!(found.len(), PICTURES);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), paths);
    assert_eq!(numbers(&world.index(&[])), [0, 0, PICTURES as u64, 0, 0]);
}

#[test]
fn collections_are_apart() {
    let world = World::new();
    world.picture("1.png", 1);
    world.index(&["--collection", "one"]);
    let ran = world.run(&["search", "x"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("there is one"), "{}", ran.stderr);
    let found = world.json(&["search", "x", "--collection", "one"]);
    assert_eq!(found["collection"], json!("one"));
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(1));
    let ran = world.run(&[
        "index",
        text(&world.path("pictures")),
        "--collection",
        "No Name",
    ]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("No Name"), "{}", ran.stderr);
}
