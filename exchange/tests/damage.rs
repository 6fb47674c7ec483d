//! Files and items that are not as they were written: an error each, and nothing worse.
#![cfg(feature = "collections")]

use std::sync::Arc;

use engine::{
    Engine, EngineConfig, EngineError,
    store::{Batch, Entry, MemoryStore, Store, StoreError},
};
use exchange::{ExchangeError, ExportOptions, Exported, ImportOptions};
use world::{SPACES, World, item};

mod world;

/// Bits that are flipped in each byte that is tried.
const STEP: usize = 37;

fn exported(world: &World, name: &str) -> Vec<u8> {
    let options = ExportOptions {
        row_group_bytes: 4 << 10,
        ..ExportOptions::default()
    };
    let all = world.filled("all", 40);
    world.export_with(&all, name, &options).expect("exports");
    fs_err::read(world.path(name)).expect("reads")
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error() {
    let world = World::new();
    let good = exported(&world, "a.parquet");
    let copy = world.create("copy", &SPACES);
    for end in (0..good.len())
        .step_by(STEP)
        .chain(good.len() - 16..good.len())
    {
        fs_err::write(world.path("a.parquet"), &good[..end]).expect("is written");
        let read = world.import("a.parquet", &copy, ImportOptions::default());
        assert!(read.is_err(), "cut after {end} of {}", good.len());
    }
    assert_eq!(copy.stats().items, 0);
}

/// Pages are all under the checksum. The footer behind them cannot be: a flip there may turn the name
/// of a column into another.
#[test]
fn a_flipped_bit_in_a_page_is_noticed_before_any_row_is_taken_and_no_flip_is_a_panic() {
    let world = World::new();
    let good = exported(&world, "a.parquet");
    let text = String::from_utf8_lossy(&good);
    let (_, checksum) = text.split_once("{\"bytes\":").expect("has a checksum");
    let digits: String = checksum.chars().take_while(char::is_ascii_digit).collect();
    let pages: usize = digits.parse().expect("a number");
    for at in (0..pages)
        .step_by(STEP)
        .chain((pages..good.len()).step_by(5))
    {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        fs_err::write(world.path("a.parquet"), &flipped).expect("is written");
        let copy = world.create("copy", &SPACES);
        let read = world.import("a.parquet", &copy, ImportOptions::default());
        if at < pages {
            assert!(
                matches!(read, Err(ExchangeError::Damaged { .. })),
                "byte {at}: {read:?}"
            );
            assert_eq!(copy.stats().items, 0);
        }
        world.engine.delete("copy").expect("deletes");
    }
}

/// A file of another program has no checksum of ours: its pages are read as they are.
#[test]
fn a_damaged_file_without_a_checksum_is_no_panic_either() {
    let world = World::new();
    let good = exported(&world, "a.parquet");
    // As if another program had written it.
    let ours = b"diptych exchange";
    let at = good
        .windows(ours.len())
        .position(|window| window == ours)
        .expect("is named");
    let mut foreign = good.clone();
    foreign[at] = b'D';
    for at in (0..good.len()).step_by(STEP) {
        let mut flipped = foreign.clone();
        flipped[at] ^= 1 << (at / STEP % 8);
        fs_err::write(world.path("a.parquet"), &flipped).expect("is written");
        let copy = world.create("copy", &SPACES);
        let options = ImportOptions {
            skip_bad: at.is_multiple_of(2),
            ..ImportOptions::default()
        };
        if let Ok(imported) = world.import("a.parquet", &copy, options) {
            assert!(imported.inserted <= 40, "byte {at}");
        }
        world.engine.delete("copy").expect("deletes");
    }
}

/// A store that is looked into from outside.
struct Kept(Arc<MemoryStore>);

impl Store for Kept {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan_after<'a>(
        &'a self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Box<dyn Iterator<Item = Entry> + Send + 'a> {
        self.0.scan_after(prefix, after)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
}

#[test]
fn a_damaged_item_ends_an_export_unless_it_is_to_be_left_out() {
    let world = World::new();
    let store = Arc::new(MemoryStore::new());
    let config = EngineConfig::default();
    let engine = Engine::with_store(Box::new(Kept(store.clone())), None, config).expect("opens");
    let all = engine.create("all", &SPACES).expect("creates");
    all.upsert((0..9).map(item).collect()).expect("upserts");
    let (key, mut value) = store.scan(b"i").nth(4).expect("is there").expect("reads");
    value[40] ^= 1;
    let mut batch = Batch::default();
    batch.put(key, value);
    store.commit(batch).expect("commits");

    for name in ["a.parquet", "a"] {
        let damaged = world.export(&all, name).expect_err("is damaged");
        let damaged = matches!(
            damaged,
            ExchangeError::Engine(EngineError::DamagedItem { .. })
        );
        assert!(damaged && world.has_only(&[]), "nothing is left");
    }
    let options = ExportOptions {
        skip_bad: true,
        ..ExportOptions::default()
    };
    let expected = Exported {
        images: 5,
        texts: 3,
        skipped: 1,
    };
    let done = world
        .export_with(&all, "a.parquet", &options)
        .expect("exports");
    assert_eq!(done.images + done.texts + done.skipped, 9);
    assert_eq!(done, expected);
}
