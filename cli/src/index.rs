//! `diptych index`: pictures on disk become items, each batch durable before the next.
//!
//! Nothing needs to be done about an interruption: an item is either committed or not, and the
//! next run encodes whatever has no item with the hash of its present content.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    mem,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use embedding::{Encoded, Modality};
use encoders::{DecodeLimits, Done, Model, Pixels};
use engine::{Collection, EngineError, Item, ItemId, Payload};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    args::{IndexArgs, Places},
    home::{self, Home},
    output,
    pipeline::BATCH,
    serve,
    walk::{self, Failure},
};

/// What a run did.
#[derive(Debug, Default, Serialize)]
struct Report {
    collection: String,
    indexed: usize,
    updated: usize,
    unchanged: usize,
    pruned: usize,
    failed: Vec<Failure>,
    seconds: f64,
}

/// What is known of one file beside its pixels.
enum Outcome {
    Unchanged,
    Prepared { id: ItemId, hash: [u8; 32] },
    Failed(Failure),
}

/// Indexes, and says at the end what could not be. The exit code is a failure only when there
/// were failures and nothing else.
///
/// # Errors
/// When a path, the model or the collection cannot be used; what was committed before stays.
pub fn run(places: &Places, args: &IndexArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let home = Home::new(places)?;
    let found = walk::find(&args.paths)?;
    let engine = home.open_or_create()?;
    let model = home::model(places)?;
    let collection = match engine.create(&args.collection, model.spaces()) {
        // This says what to do in terms of the command line.
        Err(EngineError::AnotherModel { .. }) => {
            home::collection(&engine, &args.collection, &model)?
        }
        made => made?,
    };
    serve::remember_roots(&home, &found.roots)?;

    let known = known(&collection)?;
    let bar = output::progress("indexing", found.files.len());
    let name = args.collection.clone();
    let mut job = Job {
        collection: &collection,
        files: &found.files,
        waiting: Vec::new(),
        bar,
        report: Report {
            collection: name,
            failed: found.failures,
            ..Report::default()
        },
    };
    encoders::encode_all(
        &found.files,
        model.image().as_ref(),
        |path| Ok(look(path, &known, &model)),
        |done| job.take(done),
    )?;
    let mut report = job.finish()?;
    if args.prune {
        let roots = [found.roots, found.lost].concat();
        report.pruned = prune(&collection, &roots, &found.files)?;
    }
    report.failed.sort_by(|a, b| a.path.cmp(&b.path));
    report.seconds = start.elapsed().as_secs_f64();
    print(&report, args.json)?;
    let nothing_went_well = report.indexed + report.updated + report.unchanged == 0;
    let failed = !report.failed.is_empty() && nothing_went_well;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Hash of the content behind every item that has one.
fn known(collection: &Arc<Collection>) -> Result<HashMap<ItemId, [u8; 32]>> {
    let mut known = HashMap::new();
    for meta in collection.metas()? {
        let meta = meta?;
        if let Some(hash) = meta.content_hash {
            known.insert(meta.id, hash);
        }
    }
    Ok(known)
}

fn look(
    path: &Path,
    known: &HashMap<ItemId, [u8; 32]>,
    model: &Model,
) -> (Outcome, Option<Pixels>) {
    match prepare(path, known, model) {
        Ok(looked_at) => looked_at,
        Err(error) => (
            Outcome::Failed(Failure::new(&path.display(), error.as_ref())),
            None,
        ),
    }
}

fn prepare(
    path: &Path,
    known: &HashMap<ItemId, [u8; 32]>,
    model: &Model,
) -> Result<(Outcome, Option<Pixels>), Box<dyn Error + Send + Sync>> {
    let limits = DecodeLimits::default();
    let bytes = pairs::read_file(path, limits.max_bytes)?;
    let hash = *blake3::hash(&bytes).as_bytes();
    let id = id(path)?;
    if known.get(&id) == Some(&hash) {
        return Ok((Outcome::Unchanged, None));
    }
    let picture = encoders::decode(&bytes, &limits)?;
    let pixels = model.prepare(&picture);
    Ok((Outcome::Prepared { id, hash }, Some(pixels)))
}

/// The path itself where it can be an id, its hash otherwise.
fn id(path: &Path) -> Result<ItemId, EngineError> {
    let plain = path.to_str().and_then(|path| ItemId::new(path).ok());
    plain.map_or_else(
        || {
            let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
            ItemId::new(format!("path-blake3:{}", hash.to_hex()))
        },
        Ok,
    )
}

struct Job<'a> {
    collection: &'a Arc<Collection>,
    files: &'a [PathBuf],
    waiting: Vec<Item>,
    bar: ProgressBar,
    report: Report,
}

impl Job<'_> {
    fn take(&mut self, done: Vec<Done<Outcome>>) -> Result<()> {
        for Done {
            index,
            note,
            encoded,
        } in done
        {
            match (note, encoded) {
                (Outcome::Prepared { id, hash }, Some(encoded)) => {
                    self.waiting
                        .push(item(id, hash, &self.files[index], encoded));
                    continue;
                }
                (Outcome::Failed(failure), _) => self.report.failed.push(failure),
                (Outcome::Unchanged | Outcome::Prepared { .. }, _) => self.report.unchanged += 1,
            }
            self.bar.inc(1);
        }
        if self.waiting.len() < BATCH {
            return Ok(());
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<()> {
        let items = mem::take(&mut self.waiting);
        let count = items.len() as u64;
        let upserted = self
            .collection
            .upsert(items)
            .context("the items cannot be kept")?;
        self.report.indexed += upserted.inserted;
        self.report.updated += upserted.updated;
        self.bar.inc(count);
        Ok(())
    }

    fn finish(mut self) -> Result<Report> {
        self.commit()?;
        self.bar.finish_and_clear();
        Ok(self.report)
    }
}

fn item(id: ItemId, hash: [u8; 32], path: &Path, encoded: Encoded) -> Item {
    Item {
        id,
        modality: Modality::Image,
        shared: encoded.shared,
        specific: encoded.specific,
        payload: payload(path),
        source: Some(path.to_string_lossy().into_owned()),
        content_hash: Some(hash),
        text: None,
    }
}

fn payload(path: &Path) -> Payload {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Payload::from_iter([("name".to_owned(), name.into())])
}

/// Removes pictures below `roots` that are no longer there.
fn prune(collection: &Arc<Collection>, roots: &[PathBuf], files: &[PathBuf]) -> Result<usize> {
    let present: HashSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mut gone = Vec::new();
    for meta in collection.metas()? {
        let meta = meta?;
        let Some(source) = meta.source.as_deref().map(Path::new) else {
            continue;
        };
        let below = roots.iter().any(|root| source.starts_with(root));
        // A file that cannot be asked about, for instance for lack of permission, is not gone; nor
        // is one whose name could not be written down exactly.
        if below
            && id(source).is_ok_and(|id| id == meta.id)
            && !present.contains(source)
            && matches!(source.try_exists(), Ok(false))
        {
            gone.push(meta.id);
        }
    }
    Ok(collection.delete(&gone)?)
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        return Ok(output::json(report)?);
    }
    for Failure { path, reason } in &report.failed {
        output::line(&format!(
            "not indexed: {}: {}",
            output::clean(path),
            output::clean(reason)
        ))?;
    }
    let count = output::count;
    output::line(&format!(
        "{} new, {} changed, {} unchanged, {} removed, {} failed, in {:.1} s",
        count(report.indexed),
        count(report.updated),
        count(report.unchanged),
        count(report.pruned),
        count(report.failed.len()),
        report.seconds,
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_an_id_gets_a_stable_one() {
        assert_eq!(
            id(Path::new("/a/b.png")).expect("fits").as_str(),
            "/a/b.png"
        );
        let long = format!("/{}.png", "x".repeat(600));
        let hashed = id(Path::new(&long)).expect("is hashed");
        assert!(hashed.as_str().starts_with("path-blake3:"));
        assert_eq!(id(Path::new(&long)).expect("is hashed"), hashed);
        assert_ne!(id(Path::new("/a\nb.png")).expect("is hashed"), hashed);
    }
}
