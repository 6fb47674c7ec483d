//! Snapshots: the state of a collection at one moment, in files of their own.
//!
//! A snapshot is a folder, or one `.tar` of the same: a [`manifest`], [`chunks`] of records in
//! the order of their ids, and [`heads`]. Chunks are named by their hash and cut where the ids say, so
//! that most of them are the same from one snapshot to the next: those are hard links ([`out`]). Others may
//! write while one is made ([`frozen`]); everything is checked when one is read ([`source`]). What
//! is derived from records is left out, and made again after a restore. docs/snapshots.md has the
//! form.

mod chunks;
mod error;
pub(crate) mod frozen;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod heads;
mod manifest;
mod out;
mod partial;
pub(crate) mod restore;
mod source;
mod tarball;

use std::{
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use chunks::Cutter;
pub use error::SnapshotError;
use fs_err as fs;
use heads::HEADS;
use manifest::{CHUNKS, Chunk, MANIFEST, Manifest};
use out::Out;
use partial::is_partial;
use serde::Serialize;
use source::Source;

use crate::{
    EngineError,
    collection::Collection,
    record::{self, Record},
    repair::check_dims,
};

/// Damaged items that a snapshot names, of those that it leaves out.
const NAMED: usize = 100;

/// How a snapshot is made.
#[derive(Debug, Clone, Default)]
pub struct SnapshotOptions {
    /// Another snapshot with which chunks are shared, besides those in the folder that the new one
    /// will be in.
    pub base: Option<PathBuf>,
    /// Leave damaged items and heads out, and say so, in place of failing.
    pub skip_damaged: bool,
    /// When it was made, in milliseconds since 1970, for the manifest. The engine reads no clock.
    pub made_at_ms: Option<u64>,
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// The collection that it was made of.
    pub collection: String,
    /// Name of the model that made the embeddings.
    pub model: String,
    /// When it was made, in milliseconds since 1970, if whoever made it said so.
    pub made_at_ms: Option<u64>,
    /// Number of items.
    pub items: u64,
    /// Bytes of all its chunks and heads, shared or not.
    pub bytes: u64,
    /// Number of chunks.
    pub chunks: usize,
    /// Number of heads.
    pub heads: usize,
    /// Items that were left out because their records were damaged.
    pub skipped_items: u64,
    /// The first of them.
    pub skipped: Vec<String>,
    /// Heads, and versions of heads, that were left out because they were damaged.
    pub skipped_heads: Vec<String>,
}

/// What making a snapshot did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotReport {
    /// What the snapshot says of itself.
    #[serde(flatten)]
    pub info: SnapshotInfo,
    /// Bytes of the files that are not shared with an earlier snapshot.
    pub new_bytes: u64,
}

/// How far work on a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Items that are done.
    pub items: u64,
    /// All items, as far as known.
    pub of: u64,
}

/// Hears of every chunk that is done, and says whether to go on.
pub(crate) type Told<'a> = &'a dyn Fn(Done) -> ControlFlow<()>;

fn tell(told: Told<'_>, done: Done) -> Result<(), SnapshotError> {
    match told(done) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(SnapshotError::GivenUp),
    }
}

impl Collection {
    /// Writes a snapshot: the collection as it is at one moment of this call, whatever others write
    /// meanwhile. They are held up for no longer than a batch takes to be applied; until the
    /// snapshot has passed an item, its first change also copies the old record to an unnamed file.
    ///
    /// `to` is a folder to be made, or a file if it ends in `.tar`; it is complete and durable on
    /// return, and otherwise not there. Chunks that another snapshot beside it has already are hard
    /// links, where the file system knows them. `told` hears of every chunk, and says whether to go
    /// on.
    ///
    /// # Errors
    /// When there is something at `to`, when another snapshot of the collection is under way, when
    /// a record is damaged (unless such are left out), when the collection is deleted or closed
    /// meanwhile, or when the store or a file cannot be used.
    pub fn snapshot(
        &self,
        to: &Path,
        options: &SnapshotOptions,
        told: &dyn Fn(Done) -> ControlFlow<()>,
    ) -> Result<SnapshotReport, EngineError> {
        let mut out = Out::start(to, options.base.as_deref())?;
        let of = self.stats().items as u64;
        let (frozen, saved) = {
            // Whoever changes heads waits until they are written.
            let _turn = self.declaring.take(&[()]).ok_or_else(|| self.gone())?;
            let frozen = self.freeze(out.parent())?;
            let saved = heads::save(self, &mut out, options.skip_damaged, || {
                tell(told, Done { items: 0, of })
            })?;
            (frozen, saved)
        };
        let mut manifest = Manifest {
            made_at_ms: options.made_at_ms,
            fields: frozen.fields.clone(),
            calibration: self.confidence.to_keep(),
            versions_below: frozen.versions_below,
            ..Manifest::new(self.name.clone(), self.spaces().clone())
        };
        manifest.set_heads(saved.heads, saved.skipped);
        let mut new_bytes = saved.new_bytes;
        let mut cutter = Cutter::default();
        let mut put = |bytes: Vec<u8>, chunk: Chunk, manifest: &mut Manifest| {
            if out.put(&chunk.path(), &bytes)? {
                new_bytes += chunk.bytes;
            }
            manifest.add(chunk);
            let items = manifest.items;
            let of = of.max(items);
            Ok::<_, EngineError>(tell(told, Done { items, of })?)
        };
        frozen.each(self, |key, value| {
            let read = self.id_of(key).and_then(|id| {
                let damaged = |reason| self.damaged(id.as_str(), reason);
                let record = Record::read(key, value).map_err(damaged)?;
                check_dims(&self.description, &record).map_err(damaged)?;
                Ok(id)
            });
            let id = match read {
                Ok(id) => id,
                Err(EngineError::DamagedItem { id, .. }) if options.skip_damaged => {
                    manifest.skipped_items += 1;
                    if manifest.skipped.len() < NAMED {
                        manifest.skipped.push(id);
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let damaged = |reason: &str| self.damaged(id.as_str(), reason.to_owned());
            let mut body = record::checked(key, value).map_err(damaged)?.to_vec();
            // Which one it has is of no importance outside, and so the same item has the same bytes.
            record::set_ordinal(&mut body, 0);
            if let Some((bytes, chunk)) = cutter.push(&id, &body) {
                put(bytes, chunk, &mut manifest)?;
            }
            Ok(())
        })?;
        if let Some((bytes, chunk)) = cutter.end() {
            put(bytes, chunk, &mut manifest)?;
        }
        let info = manifest.info();
        out.finish(&manifest.to_bytes())?;
        Ok(SnapshotReport { info, new_bytes })
    }
}

/// Reads a snapshot, and checks every byte of it and that it can be restored.
///
/// # Errors
/// When it is none, is damaged, is of a later version, or cannot be read.
pub fn verify_snapshot(
    path: &Path,
    told: &dyn Fn(Done) -> ControlFlow<()>,
) -> Result<SnapshotInfo, SnapshotError> {
    let (mut source, manifest) = Source::open(path)?;
    restore::verify(&mut source, &manifest, told)?;
    Ok(manifest.info())
}

/// Reads what a snapshot says of itself. Its chunks are not looked at.
///
/// # Errors
/// When it is none, its manifest is damaged or of a later version, or it cannot be read.
pub fn read_snapshot(path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    let (_, manifest) = Source::open(path)?;
    Ok(manifest.info())
}

/// The snapshots that lie in a folder, by name: their paths, and what they say of themselves. What
/// is no complete snapshot is left out; a folder that is not there has none.
///
/// # Errors
/// When the folder cannot be read.
pub fn list_snapshots(folder: &Path) -> Result<Vec<(PathBuf, SnapshotInfo)>, SnapshotError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !is_partial(&path)
            && let Ok(info) = read_snapshot(&path)
        {
            found.push((path, info));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Removes a snapshot. What others share with it stays with them.
///
/// # Errors
/// When there is none, or a file cannot be removed.
pub fn remove_snapshot(path: &Path) -> Result<(), SnapshotError> {
    if path.is_file() {
        return Ok(fs::remove_file(path)?);
    }
    let manifest = path.join(MANIFEST);
    let chunks = path.join(CHUNKS);
    if !manifest.is_file() && !chunks.is_dir() {
        return Err(SnapshotError::None {
            path: path.to_owned(),
            reason: format!("there is neither {MANIFEST} nor {CHUNKS}"),
        });
    }
    // First, so that what a stop leaves is no snapshot any more.
    if manifest.is_file() {
        fs::remove_file(manifest)?;
    }
    Ok(fs::remove_dir_all(path)?)
}

/// Writes a snapshot as one `.tar`, and checks it meanwhile.
///
/// # Errors
/// When it is none, is damaged, or cannot be read, or when `to` cannot be written. What was written
/// is no snapshot then.
pub fn pack_snapshot(path: &Path, to: &mut dyn Write) -> Result<(), SnapshotError> {
    let (mut source, manifest) = Source::open(path)?;
    tarball::put(to, MANIFEST, &manifest.to_bytes())?;
    for chunk in &manifest.chunks {
        tarball::put(to, &chunk.path(), &source.chunk(chunk)?)?;
    }
    for (hash, bytes) in heads::files(&manifest.heads) {
        let name = format!("{HEADS}/{hash}");
        tarball::put(to, &name, &source.file(&name, (hash, bytes))?)?;
    }
    Ok(tarball::end(to)?)
}
