//! Folders as clip-retrieval makes them, in both directions.

#![allow(
    clippy::result_large_err,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_for_each,
    clippy::type_complexity,
    reason = "tests look at errors once"
)]
#![cfg(feature = "collections")]

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray};
use embedding::{Fingerprint, Modality, Spaces};
use engine::{Item, ItemId};
use exchange::{
    ExchangeError, ExportOptions, Format, Ids, ImportOptions, NpyReader, NpyWriter, Precision,
    Source,
};
use parquet::arrow::ArrowWriter;
use world::{SPACES, World, items, row};

mod world;

const FOREIGN: ImportOptions = ImportOptions {
    as_model: true,
    modality: None,
    normalize: false,
    skip_bad: false,
    ids: Ids::Path,
};

fn numbers(path: &Path, modality: Modality, rows: std::ops::Range<usize>, dim: usize) {
    fs_err::create_dir_all(path.parent().expect("has one")).expect("is made");
    let mut writer = NpyWriter::create(path, dim, Precision::Single).expect("starts");
    for i in rows {
        writer
            .push(row(modality, i, dim).as_slice())
            .expect("is written");
    }
    writer.finish().expect("is written");
}

fn metadata(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    fs_err::create_dir_all(path.parent().expect("has one")).expect("is made");
    let batch = RecordBatch::try_from_iter(columns).expect("fits together");
    let file = File::create(path).expect("is made");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("starts");
    writer.write(&batch).expect("is written");
    writer.close().expect("is written");
}

fn texts(rows: std::ops::Range<usize>, text: impl Fn(usize) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.map(text)))
}

/// Two files of each kind: rows 0 to 4 and 4 to 7, images and their captions.
fn pairs(dir: &Path) {
    for (number, rows) in [(0, 0..4), (1, 4..7)] {
        let path = |folder: &str, ending: &str| {
            dir.join(folder).join(format!("{folder}_{number}.{ending}"))
        };
        numbers(&path("img_emb", "npy"), Modality::Image, rows.clone(), 16);
        numbers(&path("text_emb", "npy"), Modality::Text, rows.clone(), 16);
        let scores = rows.clone().map(|i| i as f64);
        let columns = vec![
            ("image_path", texts(rows.clone(), |i| format!("p/{i}.jpg"))),
            ("caption", texts(rows.clone(), |i| format!("caption {i}"))),
            (
                "similarity",
                Arc::new(Float64Array::from_iter_values(scores)) as ArrayRef,
            ),
            (
                "bytes",
                Arc::new(BinaryArray::from_iter_values(rows.map(|_| [1]))) as ArrayRef,
            ),
        ];
        metadata(&path("metadata", "parquet"), columns);
    }
}

#[test]
fn rows_of_numbered_files_become_images_and_texts_with_their_metadata() {
    let world = World::new();
    pairs(&world.path("clip"));
    let all = world.create("all", &SPACES);
    let said = world
        .import("clip", &all, &ImportOptions::default())
        .expect_err("is refused");
    assert!(matches!(said, ExchangeError::UnknownModel { .. }));
    for (inserted, updated) in [(14, 0), (0, 14)] {
        let imported = world.import("clip", &all, &FOREIGN).expect("imports");
        assert_eq!((imported.inserted, imported.updated), (inserted, updated));
        assert_eq!(imported.ignored_columns, ["bytes"]);
    }
    let get = |id: &str| {
        all.get(&ItemId::new(id).expect("an id"))
            .expect("reads")
            .expect("is there")
    };
    for i in 0..7 {
        let id = format!("p/{i}.jpg");
        let image = get(&id);
        let mut expected = Item::new(
            image.id.clone(),
            Modality::Image,
            row(Modality::Image, i, 16),
        );
        expected.source = Some(id.clone());
        expected
            .payload
            .insert("similarity".into(), (i as f64).into());
        expected
            .payload
            .insert("caption".into(), format!("caption {i}").into());
        assert_eq!(image, expected);

        let text = get(&format!("caption:{id}"));
        let mut expected = Item::new(text.id.clone(), Modality::Text, row(Modality::Text, i, 16));
        expected.text = Some(format!("caption {i}"));
        expected
            .payload
            .insert("similarity".into(), (i as f64).into());
        expected.payload.insert("image_path".into(), id.into());
        assert_eq!(text, expected);
    }
    let by_row = world.create("by-row", &SPACES);
    let options = ImportOptions {
        ids: Ids::Row,
        ..FOREIGN
    };
    world.import("clip", &by_row, &options).expect("imports");
    let ids: Vec<String> = items(&by_row)
        .iter()
        .map(|item| item.id.to_string())
        .collect();
    assert_eq!(ids[..2], ["0:0", "0:1"]);
    assert_eq!(ids[4], "1:0");
    assert_eq!(ids[7], "caption:0:0");
}

#[test]
fn embeddings_alone_are_numbered() {
    let world = World::new();
    numbers(
        &world.path("clip/text_emb/text_emb_00.npy"),
        Modality::Text,
        0..3,
        16,
    );
    let all = world.create("all", &SPACES);
    world.import("clip", &all, &FOREIGN).expect("imports");
    let ids: Vec<String> = items(&all).iter().map(|item| item.id.to_string()).collect();
    assert_eq!(ids, ["caption:00:0", "caption:00:1", "caption:00:2"]);
}

#[test]
fn an_export_has_rows_that_agree_in_every_folder_and_comes_back() {
    let world = World::new();
    let all = world.filled("all", 30);
    for (name, half, rows_per_file) in [("a", false, 2), ("b", true, 1_000)] {
        let options = ExportOptions {
            half,
            rows_per_file,
            ..ExportOptions::default()
        };
        let exported = world.export_with(&all, name, &options).expect("exports");
        assert_eq!((exported.images, exported.texts), (20, 10));
        let dir = world.path(name);
        let first = if half {
            "img_emb_0.npy"
        } else {
            "img_emb_00.npy"
        };
        assert!(dir.join("img_emb").join(first).is_file());
        assert!(dir.join("texts/text_emb/text_emb_0.npy").is_file());
        for folder in ["img_emb", "texts/text_emb"] {
            let files = fs_err::read_dir(dir.join(folder)).expect("lists").count();
            let (rows, metadata) = if folder == "img_emb" {
                (20, "metadata")
            } else {
                (10, "texts/metadata")
            };
            assert_eq!(files as u64, u64::div_ceil(rows, rows_per_file));
            assert_eq!(
                fs_err::read_dir(dir.join(metadata)).expect("lists").count(),
                files
            );
        }
        let copy = world.create(&format!("copy-{name}"), &SPACES);
        world
            .import(name, &copy, &ImportOptions::default())
            .expect("imports");
        let (copies, all) = (items(&copy), items(&all));
        assert_eq!(copies.len(), all.len());
        for (copy, item) in copies.iter().zip(&all) {
            assert_eq!((&copy.id, copy.modality), (&item.id, item.modality));
            if half {
                assert!(copy.shared.cosine(&item.shared) > 0.999);
            } else {
                assert_eq!(copy.shared, item.shared);
            }
            for (name, value) in &item.payload {
                assert_eq!(copy.payload.get(name), Some(value));
            }
            if item.modality == Modality::Text {
                assert_eq!(copy.text, item.text);
            }
        }
    }
    let other = Spaces {
        fingerprint: Fingerprint([8; 16]),
        ..SPACES
    };
    let other = world.create("other", &other);
    let refused = world.import("a", &other, &FOREIGN).expect_err("is refused");
    assert!(
        matches!(refused, ExchangeError::AnotherModel { .. }),
        "{refused}"
    );
}

#[test]
fn an_empty_collection_is_a_folder_that_is_read_again() {
    let world = World::new();
    let empty = world.create("empty", &SPACES);
    fs_err::create_dir(world.path("a")).expect("is made");
    world
        .export(&empty, "a")
        .expect("an empty folder is no obstacle");
    assert_eq!(
        NpyReader::open(&world.path("a/img_emb/img_emb_0.npy"))
            .expect("opens")
            .dim(),
        16
    );
    assert_eq!(
        world
            .import("a", &empty, &ImportOptions::default())
            .expect("imports")
            .inserted,
        0
    );
    let refused = world.export(&empty, "a").expect_err("is refused");
    assert!(matches!(refused, ExchangeError::Exists { .. }), "{refused}");
}

#[test]
fn files_that_do_not_fit_together_are_named() {
    let world = World::new();
    let all = world.create("all", &SPACES);
    let refused = |says: &str| {
        let dir = world.path("clip");
        let read = Source::open(&dir, Format::ClipRetrieval);
        let read = read.and_then(|source| source.import(&all, &FOREIGN, &mut |_| ()));
        let said = read.expect_err(says).to_string();
        assert!(said.contains(says), "{said}");
        let _ = fs_err::remove_dir_all(&dir);
    };
    let file = |name: &str| world.path("clip").join(name);
    refused("expected a folder with img_emb/img_emb_0.npy");

    pairs(&file(""));
    fs_err::remove_file(file("metadata/metadata_1.parquet")).expect("is there");
    refused("there is no metadata_1.parquet");

    pairs(&file(""));
    fs_err::remove_file(file("img_emb/img_emb_1.npy")).expect("is there");
    fs_err::remove_file(file("text_emb/text_emb_1.npy")).expect("is there");
    refused("there is no img_emb_1.npy");

    pairs(&file(""));
    numbers(&file("text_emb/text_emb_1.npy"), Modality::Text, 0..4, 16);
    refused("it has 4 rows");

    pairs(&file(""));
    numbers(&file("text_emb/text_emb_1.npy"), Modality::Text, 0..3, 12);
    refused("its rows have 12 numbers, expected 16");

    pairs(&file(""));
    let bad: ArrayRef = Arc::new(Float64Array::from(vec![1.0; 3]));
    metadata(&file("metadata/metadata_1.parquet"), vec![("caption", bad)]);
    refused("column caption has type float64, expected Utf8");

    pairs(&file(""));
    fs_err::write(file("img_emb/img_emb_0.npy"), "no numbers").expect("is written");
    refused("img_emb_0.npy: it is no .npy file");
    assert_eq!(all.stats().items, 0);
}
