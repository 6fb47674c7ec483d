//! Collections through Parquet and back, and what is refused on the way.
//!
//! Over 400 lines: the tests share the files of other programs that are made here.
#![cfg(feature = "collections")]

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringArray,
    builder::{
        FixedSizeListBuilder, Float64Builder, LargeListBuilder, LargeStringBuilder, ListBuilder,
        PrimitiveBuilder,
    },
    types::Float16Type,
};
use embedding::{Modality, Spaces};
use engine::{Item, ItemId};
use exchange::{ExchangeError, ExportOptions, Exported, ImportOptions};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use world::{SPACES, World, item, items, row};

mod world;

/// What a program that knows nothing of us writes.
fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("fits together");
    let file = File::create(path).expect("is made");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("starts");
    writer.write(&batch).expect("is written");
    writer.close().expect("is written");
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// Embeddings as lists of any size of doubles.
fn lists(rows: &[Vec<f32>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float64Builder::new());
    for row in rows {
        builder.append_value(row.iter().map(|x| Some(f64::from(*x))));
    }
    Arc::new(builder.finish())
}

fn unit(content: usize) -> Vec<f32> {
    row(Modality::Image, content, 16).into_vec()
}

const FOREIGN: ImportOptions = ImportOptions {
    as_model: true,
    modality: Some(Modality::Image),
    normalize: false,
    skip_bad: false,
    ids: exchange::Ids::Path,
};

fn refused(error: Result<impl std::fmt::Debug, ExchangeError>) -> String {
    let error = error.expect_err("is refused");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn everything_comes_back_bit_for_bit_from_several_row_groups() {
    let world = World::new();
    let all = world.filled("all", 300);
    let options = ExportOptions {
        row_group_bytes: 8 << 10,
        ..ExportOptions::default()
    };
    let exported = world
        .export_with(&all, "all.parquet", &options)
        .expect("exports");
    assert_eq!((exported.images, exported.texts), (200, 100));
    let file = File::open(world.path("all.parquet")).expect("opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("is Parquet");
    assert!(reader.metadata().num_row_groups() >= 5);

    let copy = world.create("copy", &SPACES);
    for (inserted, updated) in [(300, 0), (0, 300)] {
        let imported = world.import("all.parquet", &copy, ImportOptions::default());
        let imported = imported.expect("imports");
        assert_eq!((imported.inserted, imported.updated), (inserted, updated));
        assert!(imported.ignored_columns.is_empty());
        assert_eq!(items(&copy), items(&all));
    }
    world.export(&copy, "copy.parquet").expect("exports");
    let again = world.create("again", &SPACES);
    world
        .import("copy.parquet", &again, ImportOptions::default())
        .expect("imports");
    assert_eq!(items(&again), items(&all));
    assert!(
        world.has_only(&["all.parquet", "copy.parquet"]),
        "nothing else is left"
    );
}

#[test]
fn an_empty_collection_and_one_without_specific_embeddings_come_back() {
    let world = World::new();
    let plain = Spaces {
        specific_text_dim: None,
        specific_image_dim: None,
        ..SPACES
    };
    let one_dim = Spaces {
        specific_text_dim: None,
        ..SPACES
    };
    for (name, spaces) in [("both", &SPACES), ("none", &plain), ("one", &one_dim)] {
        let empty = world.create(name, spaces);
        let exported = world
            .export(&empty, &format!("{name}.parquet"))
            .expect("exports");
        assert_eq!(exported, Exported::default());
        let imported = world.import(&format!("{name}.parquet"), &empty, ImportOptions::default());
        assert_eq!(imported.expect("imports").inserted, 0);
    }
    let full = world.create("full", &one_dim);
    let some = (0..20).map(|i| {
        let mut item = item(i);
        item.specific = item.specific.filter(|_| item.modality == Modality::Image);
        item
    });
    full.upsert(some.collect()).expect("upserts");
    world.export(&full, "full.parquet").expect("exports");
    let copy = world.create("copy", &one_dim);
    world
        .import("full.parquet", &copy, ImportOptions::default())
        .expect("imports");
    assert_eq!(items(&copy), items(&full));
}

#[test]
fn a_file_says_which_model_and_fields_it_comes_from() {
    let world = World::new();
    let all = world.filled("all", 10);
    world.export(&all, "a.parquet").expect("exports");
    let path = world.path("a.parquet");
    let source = exchange::Source::open(&path, exchange::Format::Parquet).expect("opens");
    let about = source.about().expect("says so");
    assert_eq!(
        (&about.spaces, &about.fields),
        (all.spaces(), &all.fields())
    );
    assert_eq!(source.rows(), 10);
    let other = Spaces {
        fingerprint: embedding::Fingerprint([8; 16]),
        ..SPACES
    };
    let other = world.create("other", &other);
    for as_model in [false, true] {
        let options = ImportOptions {
            as_model,
            ..ImportOptions::default()
        };
        let said = refused(world.import("a.parquet", &other, options));
        assert!(said.contains("0707") && said.contains("0808"), "{said}");
    }
    assert_eq!(other.stats().items, 0);
}

#[test]
fn what_is_there_is_not_written_over_and_a_failure_leaves_nothing() {
    let world = World::new();
    let all = world.filled("all", 3);
    fs_err::write(world.path("a.parquet"), "mine").expect("is written");
    let said = refused(world.export(&all, "a.parquet"));
    assert!(said.contains("a.parquet is there already"), "{said}");
    assert_eq!(
        fs_err::read(world.path("a.parquet")).expect("reads"),
        b"mine"
    );
    world.engine.delete("all").expect("deletes");
    assert!(world.export(&all, "b.parquet").is_err());
    assert!(world.has_only(&["a.parquet"]));
}

#[test]
fn a_file_of_another_program_needs_to_be_told_its_model_and_may_have_other_types() {
    let world = World::new();
    let rows: Vec<Vec<f32>> = (0..3).map(unit).collect();
    let columns = || {
        vec![
            ("id", Arc::new(Int64Array::from(vec![7, 8, 9])) as ArrayRef),
            ("shared", lists(&rows)),
            ("label", texts(&["cat", "dog", "bike"])),
            (
                "score",
                Arc::new(Float64Array::from(vec![Some(0.5), None, Some(f64::NAN)])),
            ),
        ]
    };
    write(&world.path("a.parquet"), columns());
    let all = world.create("all", &SPACES);
    let said = refused(world.import("a.parquet", &all, ImportOptions::default()));
    assert!(said.contains("does not say which model"), "{said}");
    let untold = ImportOptions {
        modality: None,
        ..FOREIGN
    };
    let said = refused(world.import("a.parquet", &all, untold));
    assert!(said.contains("no column modality"), "{said}");
    assert_eq!(
        world
            .import("a.parquet", &all, FOREIGN)
            .expect("imports")
            .inserted,
        3
    );
    let found = items(&all);
    for (i, item) in found.iter().enumerate() {
        let mut expected = Item::new(
            ItemId::new((7 + i).to_string()).expect("an id"),
            Modality::Image,
            row(Modality::Image, i, 16),
        );
        expected
            .payload
            .insert("label".into(), ["cat", "dog", "bike"][i].into());
        if i == 0 {
            expected.payload.insert("score".into(), 0.5.into());
        }
        assert_eq!(*item, expected);
    }

    // The same rows, as other programs may write them.
    let mut large = LargeListBuilder::new(Float64Builder::new());
    let mut fixed = FixedSizeListBuilder::new(Float64Builder::new(), 16);
    for row in &rows {
        large.append_value(row.iter().map(|x| Some(f64::from(*x))));
        fixed
            .values()
            .append_slice(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        fixed.append(true);
    }
    let mut ids = LargeStringBuilder::new();
    ids.extend(["7", "8", "9"].map(Some));
    let shapes: [ArrayRef; 2] = [Arc::new(large.finish()), Arc::new(fixed.finish())];
    let ids: ArrayRef = Arc::new(ids.finish());
    for (i, shared) in shapes.into_iter().enumerate() {
        let mut columns = columns();
        columns[0].1 = ids.clone();
        columns[1].1 = shared;
        write(&world.path("b.parquet"), columns);
        let same = world.create(&format!("same{i}"), &SPACES);
        world.import("b.parquet", &same, FOREIGN).expect("imports");
        assert_eq!(items(&same), found);
    }
    let mut half = ListBuilder::new(PrimitiveBuilder::<Float16Type>::new());
    for row in &rows {
        half.append_value(row.iter().map(|x| Some(half::f16::from_f32(*x))));
    }
    let mut columns = columns();
    columns[1].1 = Arc::new(half.finish());
    write(&world.path("c.parquet"), columns);
    let near = world.create("near", &SPACES);
    world.import("c.parquet", &near, FOREIGN).expect("imports");
    for (near, exact) in items(&near).iter().zip(&found) {
        assert!(near.shared.cosine(&exact.shared) > 0.999);
    }
}

#[test]
fn a_wrong_or_missing_column_is_named_with_what_was_expected() {
    let world = World::new();
    let all = world.create("all", &SPACES);
    let rows = vec![unit(0)];
    let fixed = |dim: i32| -> ArrayRef {
        let mut builder = FixedSizeListBuilder::new(Float64Builder::new(), dim);
        builder.values().append_slice(&vec![0.5; dim as usize]);
        builder.append(true);
        Arc::new(builder.finish())
    };
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let expected = "expected FixedSizeList<float32, 16>";
    for (column, array, says) in [
        ("id", None, "no column id".to_owned()),
        (
            "id",
            Some(numbers.clone()),
            "column id has type float64, expected Utf8 or integers".into(),
        ),
        ("shared", None, "no column shared".into()),
        (
            "shared",
            Some(texts(&["x"])),
            format!("column shared has type Utf8, {expected}"),
        ),
        (
            "shared",
            Some(fixed(4)),
            format!("has type FixedSizeList<float64, 4>, {expected}"),
        ),
        (
            "specific_image",
            Some(fixed(16)),
            "column specific_image has type".into(),
        ),
        (
            "specific",
            Some(texts(&["x"])),
            "column specific has type Utf8".into(),
        ),
        (
            "modality",
            Some(numbers.clone()),
            "column modality has type float64".into(),
        ),
        (
            "payload",
            Some(numbers.clone()),
            "column payload has type float64".into(),
        ),
        (
            "content_hash",
            Some(numbers),
            "column content_hash has type float64".into(),
        ),
    ] {
        let mut columns = vec![("id", texts(&["a"])), ("shared", lists(&rows))];
        columns.retain(|(name, _)| *name != column);
        columns.extend(array.map(|array| (column, array)));
        write(&world.path("a.parquet"), columns);
        let said = refused(world.import("a.parquet", &all, FOREIGN));
        assert!(said.contains(&says) && said.contains("a.parquet"), "{said}");
    }
    assert_eq!(all.stats().items, 0);
}

/// `shared`, `id`, `modality` and `payload`.
type Row = (Vec<f32>, &'static str, &'static str, &'static str);

#[test]
fn a_bad_row_is_named_by_its_number_and_id_or_left_out_and_counted() {
    let world = World::new();
    let nan = [vec![f32::NAN], unit(1)[1..].to_vec()].concat();
    let long: Vec<f32> = unit(2).iter().map(|x| 2.0 * x).collect();
    let good = (unit(9), "ok", "image", "{}");
    for (i, (row, id, modality, payload), says) in [
        (
            0,
            (nan, "n", "image", "{}"),
            "element 0 of the embedding is NaN",
        ),
        (1, (long, "l", "image", "{}"), "has length 2, expected 1"),
        (
            2,
            (unit(3)[1..].to_vec(), "s", "image", "{}"),
            "shared has 15 numbers, expected 16",
        ),
        (3, (vec![0.0; 16], "z", "image", "{}"), "has length 0"),
        (4, (unit(3), "m", "video", "{}"), "modality is \"video\""),
        (
            5,
            (unit(3), "p", "text", "[1]"),
            "payload is no JSON object",
        ),
        (6, (unit(3), "", "text", "{}"), "it is empty"),
        (
            7,
            (unit(3), "f", "text", "{\"n\": \"x\"}"),
            "field n of item f is \"x\"",
        ),
    ] {
        let rows = [good.clone(), good.clone(), (row, id, modality, payload)];
        let column = |pick: fn(&Row) -> &'static str| {
            let cells: Vec<&str> = rows.iter().map(pick).collect();
            texts(&cells)
        };
        let embeddings: Vec<Vec<f32>> = rows.iter().map(|row| row.0.clone()).collect();
        let columns = vec![
            ("id", column(|row| row.1)),
            ("modality", column(|row| row.2)),
            ("shared", lists(&embeddings)),
            ("payload", column(|row| row.3)),
        ];
        write(&world.path("a.parquet"), columns);
        let all = world.filled(&format!("all{i}"), 0);
        let said = refused(world.import("a.parquet", &all, FOREIGN));
        assert!(said.contains(says), "{said}");
        assert!(
            said.contains("row 2 of ") && said.contains(&format!("(id {id:?})")),
            "{said}"
        );
        let skipping = ImportOptions {
            skip_bad: true,
            ..FOREIGN
        };
        let imported = world.import("a.parquet", &all, skipping).expect("imports");
        assert_eq!((imported.skipped, all.stats().items), (1, 1));
        assert!(imported.bad[0].contains(says), "{:?}", imported.bad);
        let scaling = ImportOptions {
            normalize: true,
            ..FOREIGN
        };
        assert_eq!(world.import("a.parquet", &all, scaling).is_ok(), i == 1);
    }
}

/// Another program keeps the metadata of what it changes, and so a checksum that is not its own.
#[test]
fn an_export_that_another_program_has_changed_is_read() {
    let world = World::new();
    let all = world.filled("all", 20);
    world.export(&all, "a.parquet").expect("exports");
    let file = File::open(world.path("a.parquet")).expect("opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("is Parquet");
    let metadata = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .cloned();
    let batch = reader
        .build()
        .expect("reads")
        .next()
        .expect("has rows")
        .expect("reads");
    let (half, schema) = (batch.slice(0, 10), batch.schema());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_key_value_metadata(metadata)
        .build();
    let file = File::create(world.path("b.parquet")).expect("is made");
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("starts");
    writer.write(&half).expect("is written");
    writer.close().expect("is written");
    let copy = world.create("copy", &SPACES);
    world
        .import("b.parquet", &copy, ImportOptions::default())
        .expect("imports");
    assert_eq!(items(&copy), items(&all)[..10]);
}

#[test]
fn users_of_arrow_see_the_columns_as_they_are_documented() {
    let world = World::new();
    let all = world.filled("all", 40);
    world.export(&all, "a.parquet").expect("exports");
    let file = File::open(world.path("a.parquet")).expect("opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("is Parquet");
    let about = &reader.schema().metadata()["diptych"];
    assert!(about.contains("fingerprint"), "{about}");
    let columns: Vec<String> = reader
        .schema()
        .fields()
        .iter()
        .map(|field| {
            format!(
                "{} {}",
                field.name(),
                if field.is_nullable() { "null" } else { "-" }
            )
        })
        .collect();
    let expected = [
        "id -",
        "modality -",
        "shared -",
        "specific_image null",
        "specific_text null",
        "payload -",
        "text null",
        "source null",
        "content_hash null",
    ];
    assert_eq!(columns, expected);
    let batch = reader
        .build()
        .expect("reads")
        .next()
        .expect("has rows")
        .expect("reads");
    let shared = batch
        .column(2)
        .as_any()
        .downcast_ref::<FixedSizeListArray>()
        .expect("fixed");
    let first = shared.value(0);
    let first = first
        .as_any()
        .downcast_ref::<Float32Array>()
        .expect("float32");
    assert_eq!(first.values(), items(&all)[0].shared.as_slice());
    assert!(batch.column(3).is_null(0) && batch.column(4).is_null(0));
}
