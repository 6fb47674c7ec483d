//! `diptych snapshot`, from outside, and what is said when a store is damaged.

use serde_json::{Value, json};

use crate::world::{Serving, World, json, run, text};

mod world;

fn filled() -> World {
    let world = World::new();
    for seed in 1..4 {
        world.picture(&format!("{seed}.png"), seed);
    }
    world.index(&["--collection", "photos"]);
    world
}

fn found(world: &World, data: &str, collection: &str) -> Value {
    let picture = world.path("pictures").join("2.png");
    let search = [
        "search",
        "--image",
        text(&picture),
        "--collection",
        collection,
    ];
    let mut found = json(&world.path(data), &search);
    let hits = found["hits"].take();
    let bare = |hit: &Value| {
        (
            hit["id"].clone(),
            hit["score"].clone(),
            hit["payload"].clone(),
        )
    };
    let hits = hits.as_array().expect("a list");
    let bare = hits.iter().map(|hit| serde_json::to_value(bare(hit)));
    bare.collect::<Result<_, _>>().expect("JSON")
}

#[test]
fn a_snapshot_is_made_checked_and_restored_into_a_new_data_folder() {
    let world = filled();
    let expected = found(&world, "data", "photos");
    let serving = Serving::start(&world.path("data"), &["serve", "--port", "0"]);
    let words = json!({ "labels": ["red", "blue"] });
    let (status, made) = serving.ask("PUT", "/v1/collections/photos/heads/color", &words);
    assert_eq!(status, 201, "{made}");
    drop(serving);
    let [folder, second, tar] = ["a/first", "a/second", "one.tar"].map(|name| world.path(name));
    let made = world.json(&["snapshot", "create", "photos", text(&folder)]);
    assert_eq!(
        [&made["items"], &made["skipped_items"], &made["heads"]],
        [&json!(3), &json!(0), &json!(1)]
    );
    assert_eq!(made["bytes"], made["new_bytes"]);
    assert!(made["made_at_ms"].is_u64(), "{made}");
    let again = world.json(&["snapshot", "create", "photos", text(&second)]);
    assert_eq!(again["new_bytes"], 0, "a hard link");
    world.json(&["snapshot", "create", "photos", text(&tar)]);
    for snapshot in [&folder, &second, &tar] {
        let checked = world.json(&["snapshot", "verify", text(snapshot)]);
        assert_eq!(
            (&checked["items"], &checked["heads"]),
            (&json!(3), &json!(1)),
            "{checked}"
        );
    }
    for (from, name) in [(&folder, "new"), (&tar, "tar")] {
        let restore = ["snapshot", "restore", text(from), name];
        let restored = json(&world.path("other"), &restore);
        assert_eq!(restored["restored_as"], name);
        assert_eq!(found(&world, "other", name), expected);
        let refused = run(&world.path("other"), &restore);
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("is there already"),
            "{}",
            refused.stderr
        );
    }
    let refused = world.run(&["snapshot", "create", "photos", text(&folder)]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("is there already"),
        "{}",
        refused.stderr
    );
    let refused = world.run(&["snapshot", "create", "movies", text(&world.path("b"))]);
    assert!(
        refused.stderr.contains("there is photos"),
        "{}",
        refused.stderr
    );
    let said = world.run(&["snapshot", "verify", text(&tar)]);
    assert!(
        said.stdout.starts_with("photos: 3 items, "),
        "{}",
        said.stdout
    );

    let mut bytes = fs_err::read(&tar).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&tar, bytes).expect("written");
    for command in [
        &["snapshot", "verify", text(&tar)][..],
        &["snapshot", "restore", text(&tar), "bad"],
    ] {
        let damaged = world.run(command);
        assert_eq!(damaged.code, Some(1));
        assert!(damaged.stderr.contains("is damaged"), "{}", damaged.stderr);
    }
    let none = world.run(&["snapshot", "verify", text(&world.path("pictures"))]);
    assert!(none.stderr.contains("is no snapshot"), "{}", none.stderr);
}

#[test]
fn a_damaged_store_says_so_and_names_the_command_that_restores_its_last_snapshot() {
    let world = filled();
    let expected = found(&world, "data", "photos");
    let damage = || {
        // The settings of the store library: without them it does not open.
        let file = world.path("data/store/store/conf");
        fs_err::write(&file, b"segment_size: 52").expect("written");
    };
    let settings = fs_err::read(world.path("data/store/store/conf")).expect("read");
    damage();
    let search = ["search", "red", "--collection", "photos"];
    let bare = world.run(&search);
    assert_eq!(bare.code, Some(1));
    assert!(
        bare.stderr.contains("its store is damaged"),
        "{}",
        bare.stderr
    );
    assert!(
        bare.stderr.contains("there is no snapshot in"),
        "{}",
        bare.stderr
    );

    fs_err::write(world.path("data/store/store/conf"), settings).expect("written");
    let snapshots = world.path("data/snapshots/photos");
    for name in ["old", "new", "aside"] {
        // The names say nothing: the newest counts, and what is not complete does not.
        world.json(&["snapshot", "create", "photos", text(&snapshots.join(name))]);
    }
    fs_err::remove_file(snapshots.join("aside/manifest.json")).expect("removed");
    damage();
    let said = world.run(&search);
    assert_eq!(said.code, Some(1));
    let command = said
        .stderr
        .lines()
        .find(|line| line.contains("diptych snapshot restore"));
    let command = command.unwrap_or_else(|| panic!("no command in {}", said.stderr));
    assert!(command.contains("photos/new'"), "{command}");
    let words: Vec<String> = command
        .trim()
        .split(' ')
        .skip(1)
        .map(|word| word.trim_matches('\'').to_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let restored = world.run(&words);
    assert_eq!(restored.code, Some(0), "{words:?}: {}", restored.stderr);
    assert_eq!(found(&world, "data-restored", "photos"), expected);
}
