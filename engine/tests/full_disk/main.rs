//! A disk that is full, and one that cannot be written: errors that say so, and nothing that was
//! acknowledged is lost. Needs the right to mount a small file system in memory.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use embedding::{Encoder, HashEncoder, Modality, Spaces, mix};
use engine::{Collection, Engine, EngineConfig, EngineError, Item, ItemId};
use tempfile::TempDir;

#[path = "../skips/mod.rs"]
mod skips;

const WRITERS: u32 = 4;
/// Items of one call: all of them are there, or none.
const TOGETHER: u32 = 3;
/// Size of the file system, and of a file that is removed to make room.
const DISK_BYTES: usize = 12 << 20;
const BALLAST_BYTES: usize = 4 << 20;
/// More calls than the disk has room for.
const CALLS: u32 = 10_000;

fn main() -> ExitCode {
    skips::run(&[
        (
            "a_full_disk_is_an_error_and_loses_nothing_that_was_acknowledged",
            a_full_disk_is_an_error_and_loses_nothing_that_was_acknowledged,
        ),
        (
            "a_disk_that_cannot_be_written_is_refused_in_words_and_stays_as_it_is",
            a_disk_that_cannot_be_written_is_refused_in_words_and_stays_as_it_is,
        ),
    ])
}

/// A small file system of our own.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = format!("size={DISK_BYTES}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Err(error) => Err(format!("mount cannot be started: {error}")),
            Ok(output) if !output.status.success() => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("nothing may be mounted here: {}", said.trim()))
            }
            Ok(_) => Ok(Self(dir)),
        }
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount
            .args(["-o", &format!("remount,{how}")])
            .arg(self.0.path());
        let status = mount.status().expect("mount starts");
        assert!(status.success(), "the disk is mounted again, {how}");
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        // A failed test goes on to say so; the folder itself is removed next.
        drop(unmounted);
    }
}

fn a_full_disk_is_an_error_and_loses_nothing_that_was_acknowledged() -> Result<(), String> {
    let disk = Disk::mount()?;
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; BALLAST_BYTES]).expect("there is room");
    let engine = Engine::open(&disk.data(), config()).expect("opens");
    let photos = engine.create("photos", &spaces()).expect("creates");
    let done: Vec<(u32, String)> = thread::scope(|scope| {
        let writers = (0..WRITERS).map(|writer| (writer, photos.clone()));
        let writers: Vec<_> = writers
            .map(|(writer, photos)| scope.spawn(move || write_until_it_fails(&photos, writer)))
            .collect();
        let done = writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"));
        done.collect()
    });
    assert!(
        done.iter()
            .any(|(_, error)| error.contains("No space left")),
        "somebody is told why: {done:?}"
    );
    let acknowledged: u32 = done.iter().map(|(calls, _)| calls).sum();
    assert!(
        acknowledged > 20,
        "only {acknowledged} calls: nothing was tested"
    );
    let after = photos
        .upsert(vec![item(0, 0)])
        .expect_err("writing is over");
    assert!(
        told(&after).contains("restart to go on"),
        "{}",
        told(&after)
    );
    let stored = photos.get(&id(0, 0)).expect("reading goes on");
    assert_eq!(stored, Some(item(0, 0)));
    drop(photos);
    drop(engine);

    // Still full: it may open or not, but it must say why, and must not make things worse.
    if let Err(error) = Engine::open(&disk.data(), config()) {
        assert!(told(&error).contains("No space left"), "{}", told(&error));
    }
    fs::remove_file(ballast).expect("room is made");
    let engine = Engine::open(&disk.data(), config()).expect("opens when there is room");
    let photos = engine.collection("photos").expect("is there");
    check(&photos, &done);
    photos
        .upsert(vec![item(WRITERS, 0)])
        .expect("writing goes on");
    drop(photos);
    drop(engine);
    let engine = Engine::open(&disk.data(), config()).expect("opens again");
    let photos = engine.collection("photos").expect("is there");
    check(&photos, &done);
    assert_eq!(
        photos.get(&id(WRITERS, 0)).expect("reads"),
        Some(item(WRITERS, 0))
    );
    Ok(())
}

fn a_disk_that_cannot_be_written_is_refused_in_words_and_stays_as_it_is() -> Result<(), String> {
    let disk = Disk::mount()?;
    let engine = Engine::open(&disk.data(), config()).expect("opens");
    let photos = engine.create("photos", &spaces()).expect("creates");
    photos
        .upsert((0..50).map(|n| item(0, n)).collect())
        .expect("upserts");
    drop(photos);
    drop(engine);
    let before = contents(&disk.data());
    disk.remount("ro");
    let error = Engine::open(&disk.data(), config()).expect_err("nothing can be written");
    let text = told(&error);
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.contains(&*disk.data().to_string_lossy()), "{text}");
    assert_eq!(contents(&disk.data()), before, "nothing was changed");
    let nowhere = Engine::open(&disk.0.path().join("new"), config());
    let text = told(&nowhere.expect_err("nothing can be made"));
    assert!(text.contains("Read-only file system"), "{text}");
    disk.remount("rw");
    let engine = Engine::open(&disk.data(), config()).expect("opens");
    let photos = engine.collection("photos").expect("is there");
    for number in 0..50 {
        assert_eq!(
            photos.get(&id(0, number)).expect("reads"),
            Some(item(0, number))
        );
    }
    Ok(())
}

/// How many calls were acknowledged, and why the next one was not.
fn write_until_it_fails(photos: &Arc<Collection>, writer: u32) -> (u32, String) {
    for call in 0..CALLS {
        let items = (0..TOGETHER).map(|i| item(writer, call * TOGETHER + i));
        if let Err(error) = photos.upsert(items.collect()) {
            return (call, told(&error));
        }
    }
    panic!("the disk is never full");
}

/// What was acknowledged is there; the call that failed is there as a whole or not at all.
fn check(photos: &Collection, done: &[(u32, String)]) {
    for (writer, (calls, _)) in done.iter().enumerate() {
        let writer = writer as u32;
        for number in 0..calls * TOGETHER {
            let stored = photos.get(&id(writer, number)).expect("reads");
            assert_eq!(
                stored,
                Some(item(writer, number)),
                "{writer}-{number} of {calls} calls"
            );
        }
        let failed = (calls * TOGETHER)..(calls + 1) * TOGETHER;
        let there = failed.clone().filter(|number| {
            let stored = photos.get(&id(writer, *number)).expect("reads");
            stored.is_some_and(|stored| stored == item(writer, *number))
        });
        let there = there.count();
        assert!(
            there == 0 || there == failed.len(),
            "{there} of {TOGETHER} are there"
        );
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        seal_rows: 30,
        store_cache_bytes: 4 << 20,
        ..EngineConfig::default()
    }
}

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, 16)).clone()
}

fn id(writer: u32, number: u32) -> ItemId {
    ItemId::new(format!("{writer}-{number:05}")).expect("plain characters")
}

fn item(writer: u32, number: u32) -> Item {
    let id = id(writer, number);
    let content = id.to_string();
    let encoder = HashEncoder::new(Modality::Image, 16);
    let encoded = encoder.encode(&[&content]).expect("bytes encode").remove(0);
    let mut item = Item::new(id, Modality::Image, encoded.shared);
    item.specific = encoded.specific;
    let length = mix(u64::from(number)) % 9000;
    item.text = Some("w".repeat(length as usize));
    item
}

/// An error and all its causes.
fn told(error: &EngineError) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Every file of a folder by its path.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder reads") {
        let path = entry.expect("a folder reads").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).expect("a file reads"));
        }
    }
    all
}
