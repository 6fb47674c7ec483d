//! `export` and `import`, from outside.

use embedding::{Encoder, HashEncoder, Modality};
use exchange::{NpyWriter, Precision};
use serde_json::Value;

use crate::world::{World, text};

mod world;

fn hits(world: &World, collection: &str) -> Value {
    let search = ["search", "a dog", "--collection", collection, "-k", "5"];
    world.json(&search)["hits"].clone()
}

#[test]
fn a_collection_goes_out_and_comes_back_and_finds_the_same() {
    let world = World::new();
    for i in 0..5 {
        world.picture(&format!("{i}.png"), i);
    }
    world.index(&[]);
    let (file, folder) = (world.path("out.parquet"), world.path("out"));
    for (name, path) in [("file", &file), ("folder", &folder)] {
        let report = world.json(&["export", "default", text(path)]);
        assert_eq!(
            (&report["images"], &report["texts"]),
            (&5.into(), &0.into())
        );
        for (inserted, updated) in [(5, 0), (0, 5)] {
            let report = world.json(&["import", text(path), name]);
            let counts = (&report["inserted"], &report["updated"]);
            assert_eq!(counts, (&inserted.into(), &updated.into()), "{report}");
        }
        assert_eq!(hits(&world, name), hits(&world, "default"), "{name}");
    }
    let again = world.run(&["export", "default", text(&file)]);
    assert_eq!(again.code, Some(1));
    assert!(
        again.stderr.contains("out.parquet is there already"),
        "{}",
        again.stderr
    );
    let plain = world.run(&["import", text(&file), "file"]);
    assert!(
        plain
            .stdout
            .starts_with("0 new, 5 replaced, 0 bad left out"),
        "{plain:?}"
    );
    let none = world.run(&["export", "nothing", text(&world.path("b.parquet"))]);
    assert!(
        none.code == Some(1) && none.stderr.contains("no collection \"nothing\""),
        "{none:?}"
    );
    let half = world.run(&["export", "default", text(&world.path("b.parquet")), "--f16"]);
    assert!(
        half.code == Some(1) && half.stderr.contains("clip-retrieval"),
        "{half:?}"
    );
}

#[test]
fn embeddings_of_unknown_origin_are_taken_only_when_their_model_is_affirmed() {
    let world = World::new();
    let embedded = world.json(&["embed", "--text", "a"]);
    let dim = embedded["items"][0]["shared"]
        .as_array()
        .map_or(0, Vec::len);
    let folder = world.path("clip");
    let path = folder.join("img_emb/img_emb_0.npy");
    fs_err::create_dir_all(folder.join("img_emb")).expect("is made");
    let mut writer = NpyWriter::create(&path, dim, Precision::Half).expect("starts");
    let encoded = HashEncoder::new(Modality::Image, dim)
        .encode(&["a", "b"])
        .expect("encodes");
    let long: Vec<f32> = encoded[1]
        .shared
        .as_slice()
        .iter()
        .map(|x| 3.0 * x)
        .collect();
    for row in [encoded[0].shared.as_slice(), &long] {
        writer.push(row).expect("is written");
    }
    writer.finish().expect("is written");

    let import = ["import", text(&folder), "all"];
    let ran = world.run(&import);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("--as-model"),
        "{ran:?}"
    );
    assert!(!world.path("data").exists(), "nothing was made");
    let affirmed = [&import[..], &["--as-model"]].concat();
    let ran = world.run(&affirmed);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("row 1 of "),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("--normalize") && ran.stderr.contains("--skip-bad"),
        "{ran:?}"
    );
    let report = world.json(&[&affirmed[..], &["--skip-bad"]].concat());
    assert_eq!(
        (&report["inserted"], &report["skipped"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["bad"].as_array().map(Vec::len), Some(1));
    let report = world.json(&[&affirmed[..], &["--normalize"]].concat());
    assert_eq!(
        (&report["inserted"], &report["updated"]),
        (&1.into(), &1.into()),
        "{report}"
    );

    let ran = world.run(&["import", text(&world.path("none.parquet")), "all"]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("none.parquet"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}
