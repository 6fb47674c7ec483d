//! Files that pyarrow, pandas and numpy have written: `tests/reference/exchange/check.py fixtures`.

#![allow(
    clippy::result_large_err,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_for_each,
    clippy::type_complexity,
    reason = "tests look at errors once"
)]
#![cfg(feature = "collections")]

use std::{path::PathBuf, sync::Arc};

use embedding::Modality;
use engine::{Collection, Item, ItemId};
use exchange::{Format, Ids, ImportOptions, Imported, Source};
use serde_json::{Value, json};
use world::{SPACES, World};

mod world;

const ROWS: usize = 5;

fn import(name: &str, into: &Arc<Collection>) -> Imported {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let options = ImportOptions {
        as_model: true,
        modality: None,
        normalize: false,
        skip_bad: false,
        ids: Ids::Path,
    };
    let source = Source::open(&path, Format::of(&path)).expect("opens");
    source.import(into, &options, &mut |_| ()).expect("imports")
}

/// Row `i` of what check.py makes.
fn row(i: usize) -> Vec<f64> {
    let raw = (0..SPACES.shared_dim).map(|j| ((i * 31 + j * 17) % 23) as f64 - 11.0);
    let length = raw.clone().map(|x| x * x).sum::<f64>().sqrt();
    raw.map(|x| x / length).collect()
}

fn get(collection: &Collection, id: &str) -> Item {
    let id = ItemId::new(id).expect("an id");
    collection.get(&id).expect("reads").expect("is there")
}

fn assert_near(item: &Item, expected: &[f64], tolerance: f64) {
    let far = item
        .shared
        .as_slice()
        .iter()
        .zip(expected)
        .map(|(a, b)| (f64::from(*a) - b).abs());
    let far = far.fold(0.0, f64::max);
    assert!(far <= tolerance, "{}: {far}", item.id);
}

#[test]
fn tables_of_pyarrow_are_read_whatever_types_and_codecs_they_have() {
    let world = World::new();
    for (name, tolerance) in [("plain", 1e-7), ("large", 1e-7), ("half", 5e-4)] {
        let all = world.create(name, &SPACES);
        let imported = import(&format!("{name}.parquet"), &all);
        assert_eq!((imported.inserted, imported.updated), (ROWS, 0));
        assert!(
            imported.ignored_columns.is_empty(),
            "{:?}",
            imported.ignored_columns
        );
        for i in 0..ROWS {
            let item = get(&all, &format!("item \u{e9} {i}"));
            let modality = if i % 2 == 0 {
                Modality::Image
            } else {
                Modality::Text
            };
            assert_eq!(item.modality, modality);
            assert_near(&item, &row(i), tolerance);
            let mut payload = json!({"n": i, "sizes": [i, i + 1]});
            if i % 2 == 0 {
                payload["label"] = format!("l{i}").into();
            }
            assert_eq!(Value::Object(item.payload), payload);
            assert_eq!((item.specific, item.text, item.source), (None, None, None));
        }
    }
}

#[test]
fn a_folder_that_numpy_and_pandas_have_written_is_read_as_clip_retrieval_means_it() {
    let world = World::new();
    let all = world.create("clip", &SPACES);
    assert_eq!(import("clip", &all).inserted, 2 * ROWS);
    for i in 0..ROWS {
        let path = format!("p/{i}.jpg");
        let (image, text) = (get(&all, &path), get(&all, &format!("caption:{path}")));
        assert_near(&image, &row(i), 5e-4);
        assert_near(&text, &row(ROWS + i), 5e-4);
        let caption = format!("caption \u{e9} {i}");
        assert_eq!(text.text.as_deref(), Some(caption.as_str()));
        assert_eq!(image.source.as_deref(), Some(path.as_str()));
        let taken = format!("2024-05-0{}T12:30:00.250000Z", i + 1);
        let mut payload = json!({"similarity": i as f64 / 8.0, "taken": taken, "caption": caption});
        assert_eq!(Value::Object(image.payload), payload);
        payload
            .as_object_mut()
            .expect("an object")
            .remove("caption");
        payload["image_path"] = path.into();
        assert_eq!(Value::Object(text.payload), payload);
    }
}
