//! A snapshot that is made while others write is of one moment.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::ScopedJoinHandle,
    time::Duration,
};

use super::*;

const WRITERS: u64 = 4;
/// Pairs of items of each writer: one in front of all other items, one behind them.
const PAIRS: u64 = 24;
/// Items that stay as they are.
const OTHERS: usize = 1200;
const SNAPSHOTS: usize = 12;

/// What a writer does in its step `n`: which pair, and whether it puts it or deletes it.
fn step(writer: u64, n: u64) -> (u64, bool) {
    let random = embedding::mix(n * WRITERS + writer + 1);
    (random % PAIRS, !(random >> 32).is_multiple_of(3))
}

fn pair(writer: u64, pair: u64) -> [String; 2] {
    ["a", "z"].map(|side| format!("{side}-{pair:02}-{writer}"))
}

fn put(name: &str, n: u64) -> Item {
    let mut item = item(name, Modality::Text, &format!("{name} {n}"));
    item.payload.insert("n".into(), n.into());
    item.payload
        .insert("filler".into(), "x".repeat(3000).into());
    item
}

/// When each step of a writer began and ended, on a clock that all share.
type Steps = Vec<(u64, u64)>;

fn write(collection: &Arc<Collection>, writer: u64, clock: &AtomicU64, stop: &AtomicBool) -> Steps {
    let mut steps = Vec::new();
    while !stop.load(SeqCst) {
        let n = steps.len() as u64;
        let (which, puts) = step(writer, n);
        let names = pair(writer, which);
        let began = clock.fetch_add(1, SeqCst);
        if puts {
            let items = names.iter().map(|name| put(name, n)).collect();
            collection.upsert(items).expect("upserts");
        } else {
            collection
                .delete(&names.map(|name| id(&name)))
                .expect("deletes");
        }
        steps.push((began, clock.fetch_add(1, SeqCst)));
    }
    steps
}

/// The number of steps of a writer after which its items are these, in which the last one changed
/// something.
fn after(writer: u64, found: &BTreeMap<String, u64>, most: usize) -> Vec<usize> {
    let mut now = BTreeMap::new();
    let mut fits = Vec::new();
    for n in 0..=most {
        if now == *found {
            fits.push(n);
        }
        let (which, puts) = step(writer, n as u64);
        for name in pair(writer, which) {
            if puts {
                now.insert(name, n as u64);
            } else {
                now.remove(&name);
            }
        }
    }
    fits
}

/// Makes snapshots while four writers put pairs of items and delete them, and demands of each that
/// there was a moment at which every writer had done just the steps that are in it.
fn check(engine: &Engine, seal_rows: bool) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let collection = engine.create("a", &spaces()).expect("creates");
    let others = (0..OTHERS).map(|i| put(&format!("m-{i:04}"), 0));
    collection.upsert(others.collect()).expect("upserts");
    let (clock, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let made = |i: usize| dir.path().join(format!("{i}"));
    let steps: Vec<Steps> = std::thread::scope(|scope| {
        let (collection, clock, stop) = (&collection, &clock, &stop);
        let write = |writer| scope.spawn(move || write(collection, writer, clock, stop));
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        for i in 0..SNAPSHOTS {
            // Time for the writers, whatever the disk is like.
            let slowly = |done| {
                std::thread::sleep(Duration::from_millis(4));
                quiet(done)
            };
            let made = collection.snapshot(&made(i), &SnapshotOptions::default(), &slowly);
            made.expect("is made");
            if seal_rows {
                collection.seal().expect("seals");
            }
        }
        stop.store(true, SeqCst);
        let steps = writers.into_iter().map(ScopedJoinHandle::join);
        steps.map(|steps| steps.expect("no panic")).collect()
    });
    let mut moved = 0;
    let mut last = 0;
    for i in 0..SNAPSHOTS {
        let restored = engine.restore(&made(i), "b", &quiet).expect("restores");
        let mut found = vec![BTreeMap::new(); WRITERS as usize];
        let mut others = 0;
        for ItemMeta { id, payload, .. } in metas(&restored) {
            let n = payload["n"].as_u64().expect("a number");
            match id
                .as_str()
                .rsplit('-')
                .next()
                .and_then(|w| w.parse::<usize>().ok())
            {
                Some(writer) if !id.as_str().starts_with('m') => {
                    let found: &mut BTreeMap<_, _> = &mut found[writer];
                    found.insert(id.to_string(), n);
                }
                _ => others += 1,
            }
        }
        assert_eq!(others, OTHERS, "snapshot {i}");
        engine.delete("b").expect("deletes");
        // A moment is between the start of each writer's last step in it and the end of the next.
        let mut spans: Vec<(u64, u64)> = vec![(0, u64::MAX)];
        for (writer, (found, steps)) in found.iter().zip(&steps).enumerate() {
            let fits = after(writer as u64, found, steps.len());
            assert!(
                !fits.is_empty(),
                "snapshot {i} has half of a step of writer {writer}"
            );
            let span = |n: &usize| {
                let from = n.checked_sub(1).map_or(0, |last| steps[last].0);
                (from, steps.get(*n).map_or(u64::MAX, |next| next.1))
            };
            let both = |a: &(u64, u64)| {
                let a = *a;
                let meet = fits
                    .iter()
                    .map(span)
                    .map(move |b| (a.0.max(b.0), a.1.min(b.1)));
                meet.filter(|(from, to)| from < to).collect::<Vec<_>>()
            };
            spans = spans.iter().flat_map(both).collect();
            assert!(
                !spans.is_empty(),
                "snapshot {i}: writer {writer} is of another moment"
            );
        }
        let (from, to) = spans[0];
        assert!(to > last, "snapshot {i} is older than the one before");
        moved += usize::from(from > last);
        last = last.max(from);
    }
    assert!(
        moved > SNAPSHOTS / 2,
        "the writers wrote meanwhile: {moved}"
    );
}

#[test]
fn a_snapshot_is_of_one_moment_while_four_writers_put_and_delete_all_the_time() {
    check(&Engine::in_memory(small()), false);
}

#[test]
fn a_snapshot_is_of_one_moment_on_disk_while_others_write_and_seal() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    check(&Engine::open(dir.path(), small()).expect("opens"), true);
}

#[test]
fn one_snapshot_of_a_collection_at_a_time_and_none_of_one_that_goes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::in_memory(small());
    let collection = varied(&engine, "a");
    let path = |name: &str| dir.path().join(name);
    let (collection, engine) = (&collection, &engine);
    let told = |_| {
        let busy = snapshot(collection, &path("second")).expect_err("is refused");
        assert!(
            matches!(busy, EngineError::Snapshot(SnapshotError::Busy { .. })),
            "{busy}"
        );
        let busy = snapshot(collection, &path("first")).expect_err("is refused");
        assert!(
            matches!(busy, EngineError::Snapshot(SnapshotError::InUse { .. })),
            "{busy}"
        );
        engine.delete("a").expect("deletes");
        ControlFlow::Continue(())
    };
    let gone = collection.snapshot(&path("first"), &SnapshotOptions::default(), &told);
    let gone = gone.expect_err("it went");
    assert!(
        matches!(gone, EngineError::Snapshot(SnapshotError::Stopped { .. })),
        "{gone}"
    );
    let left = || std::fs::read_dir(dir.path()).expect("lists").count();
    assert_eq!(left(), 0, "nothing is left");
    let collection = varied(engine, "b");
    let stop = |_| ControlFlow::Break(());
    let stopped = collection.snapshot(&path("b.tar"), &SnapshotOptions::default(), &stop);
    assert!(
        stopped.is_err() && left() == 0,
        "nothing is left of one that is given up"
    );
    snapshot(&collection, &path("b.tar")).expect("is made");
    let stopped = engine.restore(&path("b.tar"), "c", &stop);
    assert!(stopped.is_err() && engine.collection("c").is_none());
}
