//! `diptych index`: pictures on disk become items, each batch durable before the next.
//!
//! Nothing needs to be done about an interruption: an item is either committed or not, and the
//! next run encodes whatever has no item with the hash of its present content.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use embedding::Modality;
use encoders::{DecodeLimits, Model, Pixels};
use engine::{Collection, EngineError, Item, ItemId, Payload};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    args::{IndexArgs, Places},
    home::{self, Home},
    inputs, output,
    pipeline::{self, BATCH},
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

/// What became of one file.
enum Outcome {
    Unchanged,
    Prepared(Prepared),
    Failed(Failure),
}

/// A picture that waits for the tower.
struct Prepared {
    id: ItemId,
    path: PathBuf,
    hash: [u8; 32],
    pixels: Pixels,
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
        model: &model,
        waiting: Vec::new(),
        bar,
        report: Report {
            collection: name,
            failed: found.failures,
            ..Report::default()
        },
    };
    pipeline::for_each(
        &found.files,
        |path| look(path, &known, &model),
        |_, outcome| job.take(outcome),
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

fn look(path: &Path, known: &HashMap<ItemId, [u8; 32]>, model: &Model) -> Outcome {
    let limits = DecodeLimits::default();
    let bytes = match inputs::read(path, &limits) {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::Failed(Failure::new(path, &error)),
    };
    let hash = *blake3::hash(&bytes).as_bytes();
    let id = match id(path) {
        Ok(id) => id,
        Err(error) => return Outcome::Failed(Failure::new(path, &error)),
    };
    if known.get(&id) == Some(&hash) {
        return Outcome::Unchanged;
    }
    match encoders::decode(&bytes, &limits) {
        Ok(picture) => {
            let pixels = model.prepare(&picture);
            Outcome::Prepared(Prepared {
                id,
                path: path.to_owned(),
                hash,
                pixels,
            })
        }
        Err(error) => Outcome::Failed(Failure::new(path, &error)),
    }
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
    model: &'a Model,
    waiting: Vec<Prepared>,
    bar: ProgressBar,
    report: Report,
}

impl Job<'_> {
    fn take(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Unchanged => {
                self.report.unchanged += 1;
                self.bar.inc(1);
            }
            Outcome::Failed(failure) => {
                self.report.failed.push(failure);
                self.bar.inc(1);
            }
            Outcome::Prepared(prepared) => {
                self.waiting.push(prepared);
                if self.waiting.len() == BATCH {
                    self.commit()?;
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let mut pixels = Vec::with_capacity(self.waiting.len());
        let mut items = Vec::with_capacity(self.waiting.len());
        for Prepared {
            id,
            path,
            hash,
            pixels: picture,
        } in self.waiting.drain(..)
        {
            pixels.push(picture);
            items.push((id, path, hash));
        }
        let encoded = self.model.image().encode(&pixels)?;
        let item = |((id, path, hash), encoded): ((ItemId, PathBuf, _), embedding::Encoded)| Item {
            id,
            modality: Modality::Image,
            shared: encoded.shared,
            specific: encoded.specific,
            payload: payload(&path),
            source: Some(path.to_string_lossy().into_owned()),
            content_hash: Some(hash),
            text: None,
        };
        let items: Vec<Item> = items.into_iter().zip(encoded).map(item).collect();
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
