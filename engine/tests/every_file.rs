//! Damage: in every file that a closed engine leaves, bits are flipped and ends are cut off. An
//! index never prevents a start and never changes an answer. A store gives every item as it was
//! written, or an error that names its folder and says what to do.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use embedding::{Encoder, HashEncoder, Modality, Spaces, mix};
use engine::{
    Collection, Engine, EngineConfig, EngineError, FieldKind, Fields, Filter, Item, ItemId, Query,
    SearchRequest, Target,
};
use serde_json::json;

const SEED: u64 = 20_261_121;
/// Tries in the store's log, and in every other file.
const TRIES: [u64; 2] = [240, 24];
/// Every so manieth try cuts the file, the others flip a bit.
const CUTS: u64 = 4;
/// Longest time that a damaged folder may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Most memory that this test may ever hold: what is damaged must not be believed.
const MEMORY_KIB: u64 = 1 << 20;
const ITEMS: u64 = 150;
/// So many that the rows of a file are several of the blocks that are checked one by one.
const DIM: usize = 256;

/// A declared field.
const FIELD: &str = "version";

fn config() -> EngineConfig {
    EngineConfig {
        seal_rows: 40,
        graph_rows: 40,
        shards: NonZeroUsize::new(1),
        store_cache_bytes: 4 << 20,
        ..EngineConfig::default()
    }
}

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

fn id(number: u64) -> ItemId {
    ItemId::new(format!("{number:03}")).expect("plain characters")
}

fn modality(number: u64) -> Modality {
    if number.is_multiple_of(2) {
        Modality::Image
    } else {
        Modality::Text
    }
}

fn item(number: u64, version: u64) -> Item {
    let content = format!("{number} {version}");
    let encoder = HashEncoder::new(modality(number), DIM);
    let encoded = encoder.encode(&[&content]).expect("bytes encode").remove(0);
    let mut item = Item::new(id(number), modality(number), encoded.shared);
    item.specific = encoded.specific;
    item.payload.insert(FIELD.into(), version.into());
    // A few are larger than what the store keeps in one piece.
    let length = if number.is_multiple_of(20) {
        40_000
    } else {
        600
    };
    item.text = Some("w".repeat(length));
    item
}

/// Fills a folder and closes it, twice, so that something was replaced and something deleted.
/// Gives what is there by number; `None` for what was deleted.
fn filled(dir: &Path) -> BTreeMap<u64, Option<Item>> {
    let mut expected = BTreeMap::new();
    for version in 1..=2 {
        let engine = Engine::open(dir, config()).expect("opens");
        let fields = Fields::new([(FIELD, FieldKind::Integer)]).expect("good fields");
        let photos = engine.create_with_fields("photos", &spaces(), &fields);
        let photos = photos.expect("creates");
        for number in (0..ITEMS).filter(|n| version == 1 || n.is_multiple_of(4)) {
            let item = item(number, version);
            expected.insert(number, Some(item.clone()));
            photos.upsert(vec![item]).expect("upserts");
        }
        for number in (0..ITEMS).filter(|n| n % 10 == 5 * (version - 1)) {
            photos.delete(&[id(number)]).expect("deletes");
            expected.insert(number, None);
        }
        photos.seal().expect("seals");
        // A calibration is kept, too. What is there of it changes no hit.
        let there = expected.iter().filter(|(_, item)| item.is_some());
        let there: Vec<u64> = there.map(|(number, _)| *number).collect();
        let pairs = there
            .windows(2)
            .filter(|pair| modality(pair[0]) != modality(pair[1]));
        let pairs: Vec<_> = pairs.map(|pair| (id(pair[0]), id(pair[1]))).collect();
        photos.calibrate(Some(&pairs)).expect("is kept");
        drop(photos);
        engine.close();
    }
    expected
}

#[test]
fn damage_to_any_file_is_repaired_or_told_and_never_a_wrong_answer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let expected = filled(dir.path());
    let files = files(dir.path(), Path::new(""));
    let is_store = |file: &Path| file.starts_with("store");
    assert!(files.iter().any(|file| is_store(file)), "{files:?}");
    assert!(
        files.iter().any(|file| file.starts_with("index")),
        "{files:?}"
    );
    // A failure is told once, by us, and what is caught is no failure.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut told = BTreeMap::new();
    let mut failures = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let tries = TRIES[usize::from(!file.ends_with("db"))];
        for i in 0..tries {
            let seed = mix(SEED ^ mix(number as u64) ^ i);
            let damaged = tempfile::tempdir().expect("a temporary folder");
            copy(dir.path(), damaged.path());
            let Some(what) = damage(&damaged.path().join(file), seed, i % CUTS == 0) else {
                continue;
            };
            match within_patience(damaged.path(), &expected) {
                Ok(Outcome::Answers) => {}
                Ok(Outcome::Told) if is_store(file) => *told.entry(file).or_insert(0) += 1,
                Ok(Outcome::Told) => failures.push(format!("{}: {what}: refused", file.display())),
                Err(wrong) => failures.push(format!("{}: {what}: {wrong}", file.display())),
            }
        }
    }
    panic::set_hook(hook);
    assert!(
        failures.is_empty(),
        "seed {SEED}: {} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(
        !told.is_empty(),
        "no damage was ever noticed: nothing was tested"
    );
    if let Some(most) = most_memory_kib() {
        assert!(most < MEMORY_KIB, "{most} KiB were held");
    }
}

/// What came of a damaged folder, when nothing was wrong.
enum Outcome {
    /// Everything is there.
    Answers,
    /// It said that something is damaged.
    Told,
}

fn within_patience(dir: &Path, expected: &BTreeMap<u64, Option<Item>>) -> Result<Outcome, String> {
    let (done, is_done) = mpsc::channel();
    let (dir, expected) = (dir.to_owned(), expected.clone());
    thread::spawn(move || {
        let used = catch_unwind(AssertUnwindSafe(|| use_all(&dir, &expected)));
        let used = used.unwrap_or_else(|_| Err("a panic escaped".into()));
        // Nobody listens any more when it took too long.
        let _ = done.send(used);
    });
    let late = || Err(format!("it took longer than {PATIENCE:?}"));
    is_done.recv_timeout(PATIENCE).unwrap_or_else(|_| late())
}

/// Opens a folder and asks for everything.
fn use_all(dir: &Path, expected: &BTreeMap<u64, Option<Item>>) -> Result<Outcome, String> {
    let engine = match Engine::open(dir, config()) {
        Ok(engine) => engine,
        Err(error) => return told(dir, &error),
    };
    let Some(photos) = engine.collection("photos") else {
        return Err("the collection is gone, and nothing was said".into());
    };
    let mut outcome = Outcome::Answers;
    for (number, wanted) in expected {
        match photos.get(&id(*number)) {
            Ok(found) if found == *wanted => {}
            Ok(found) => {
                let [wanted, found] = [wanted.is_some(), found.is_some()];
                return Err(format!("item {number}: wanted {wanted}, found {found}"));
            }
            Err(error) => outcome = told(dir, &error)?,
        }
    }
    for wanted in expected.values().flatten().step_by(10) {
        match best(&photos, wanted) {
            Ok(Some(best)) if best == wanted.id => {}
            Ok(best) if matches!(outcome, Outcome::Answers) => {
                return Err(format!("searching {} found {best:?}", wanted.id));
            }
            Ok(_) => {}
            Err(error) => outcome = told(dir, &error)?,
        }
    }
    for version in 1..=2 {
        let of_version = |item: &&Item| item.payload.get(FIELD) == Some(&version.into());
        let wanted = expected.values().flatten().filter(of_version);
        let wanted: Vec<ItemId> = wanted.map(|item| item.id.clone()).collect();
        match filtered(&photos, version) {
            Ok(found) if found == wanted => {}
            Ok(found) if matches!(outcome, Outcome::Answers) => {
                let (found, wanted) = (found.len(), wanted.len());
                return Err(format!(
                    "{found} items of version {version}, wanted {wanted}"
                ));
            }
            Ok(_) => {}
            Err(error) => outcome = told(dir, &error)?,
        }
    }
    Ok(outcome)
}

fn best(photos: &Collection, wanted: &Item) -> Result<Option<ItemId>, EngineError> {
    let query = Query {
        embedding: wanted.shared.clone(),
        space: spaces().shared(),
    };
    let target = match wanted.modality {
        Modality::Text => Target::Text,
        Modality::Image => Target::Image,
    };
    let request = SearchRequest::new(query, target, NonZeroUsize::MIN);
    let answer = photos.search(&request)?;
    Ok(answer.hits.into_iter().next().map(|hit| hit.id))
}

/// The items of a version by the index of the field, in the order of ids.
fn filtered(photos: &Collection, version: u64) -> Result<Vec<ItemId>, EngineError> {
    let query = Query {
        embedding: item(0, 0).shared,
        space: spaces().shared(),
    };
    let all = NonZeroUsize::new(ITEMS as usize).expect("not zero");
    let mut request = SearchRequest::new(query, Target::Both, all);
    let filter = json!({ "must": [{ "field": FIELD, "eq": version }] });
    request.filter = Some(Filter::from_json(&filter)?);
    let hits = photos.search(&request)?.hits;
    let mut ids: Vec<ItemId> = hits.into_iter().map(|hit| hit.id).collect();
    ids.sort();
    Ok(ids)
}

/// Whether an error says which folder or item it is about, and what to do.
fn told(dir: &Path, error: &EngineError) -> Result<Outcome, String> {
    let causes = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    let text = causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    let where_it_is = text.contains(&*dir.to_string_lossy()) || text.contains("photos");
    let what_to_do = text.contains("restore");
    if where_it_is && what_to_do {
        Ok(Outcome::Told)
    } else {
        Err(format!("an error that does not help: {text}"))
    }
}

/// Damages a file and says how; `None` when it is empty.
fn damage(file: &Path, seed: u64, cut: bool) -> Option<String> {
    let mut bytes = fs::read(file).expect("a file reads");
    let place = (mix(seed) as usize).checked_rem(bytes.len())?;
    let what = if cut {
        bytes.truncate(place);
        format!("cut after byte {place}")
    } else {
        let bit = mix(seed ^ 1) % 8;
        bytes[place] ^= 1 << bit;
        format!("bit {bit} of byte {place} flipped")
    };
    fs::write(file, bytes).expect("a file is written");
    Some(what)
}

/// Every file below a folder, by its path from there.
fn files(dir: &Path, below: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir.join(below)).expect("a folder reads") {
        let entry = entry.expect("a folder reads");
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            all.extend(files(dir, &path));
        } else {
            all.push(path);
        }
    }
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    for file in files(from, Path::new("")) {
        let to = to.join(&file);
        fs::create_dir_all(to.parent().expect("a folder above")).expect("a folder is made");
        fs::copy(from.join(&file), to).expect("a file is copied");
    }
}

/// The most memory that this process ever held, where the system says so.
fn most_memory_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().split(' ').next()?.parse().ok()
}
