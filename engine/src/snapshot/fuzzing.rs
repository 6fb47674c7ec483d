//! Snapshots made of any bytes.

use std::{io::Write as _, ops::ControlFlow, path::Path, sync::LazyLock};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::{
    Done, SnapshotOptions, chunks,
    heads::{self, HEADS},
    manifest::{Chunk, MANIFEST, Manifest},
    tarball, verify_snapshot,
};
use crate::{Collection, Engine, EngineConfig, ItemId, read_snapshot};

/// Longest embeddings that are restored; longer ones only take longer.
const MOST_DIM: usize = 64;

const NAME: &str = "restored";

/// One for all: to start its threads takes longer than to restore a small snapshot.
static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| {
    Mutex::new(Engine::in_memory(EngineConfig {
        audit_share: 0.0,
        ..EngineConfig::default()
    }))
});

/// Takes the bytes for a snapshot in one file; and for a manifest, its only chunk and its only file of
/// a head, whose hashes, counts and first id are put right.
pub(crate) fn run(bytes: &[u8]) {
    use_snapshot(bytes);
    if let Some(repaired) = repaired(bytes) {
        use_snapshot(&repaired);
    }
}

/// Some bytes after their length, a u16, and the rest.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

/// The manifest without its checksum, of which heads are said the file of a head, the chunk; each but the
/// last after its length.
fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let (manifest, mut chunk) = sized(bytes)?;
    let mut manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    let mut head: &[u8] = &[];
    if !manifest.heads.is_empty() {
        (head, chunk) = sized(chunk)?;
    }
    for one in manifest
        .heads
        .iter_mut()
        .flat_map(|head| &mut head.versions)
    {
        one.hash = blake3::hash(head).to_hex().to_string();
        one.bytes = head.len() as u64;
    }
    (manifest.items, manifest.bytes) = (0, 0);
    manifest.chunks.clear();
    let first = chunks::entries(chunk).next().flatten();
    if let Some(first) = first.and_then(|(id, _)| ItemId::new(id).ok()) {
        manifest.add(Chunk {
            hash: blake3::hash(chunk).to_hex().to_string(),
            bytes: chunk.len() as u64,
            items: chunks::entries(chunk).count() as u64,
            first,
        });
    }
    let mut tar = Vec::new();
    tarball::put(&mut tar, MANIFEST, &manifest.to_bytes()).expect("memory takes it");
    for part in &manifest.chunks {
        tarball::put(&mut tar, &part.path(), chunk).expect("memory takes it");
    }
    for (hash, _) in heads::files(&manifest.heads) {
        let name = format!("{HEADS}/{hash}");
        tarball::put(&mut tar, &name, head).expect("memory takes it");
    }
    tarball::end(&mut tar).expect("memory takes it");
    Some(tar)
}

fn go_on(_: Done) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn use_snapshot(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("given.tar");
    let mut file = fs_err::File::create(&path).expect("a new file");
    file.write_all(bytes).expect("writes");
    let said = read_snapshot(&path);
    let verified = verify_snapshot(&path, &go_on);
    let Ok(info) = said else {
        assert!(verified.is_err(), "what does not open is not good");
        return;
    };
    if dims(&path) > MOST_DIM {
        return;
    }
    // Tests may run this on several threads.
    let engine = ENGINE.lock();
    let restored = engine.restore(&path, NAME, &go_on);
    assert_eq!(
        restored.as_ref().err().map(ToString::to_string),
        verified.as_ref().err().map(ToString::to_string),
        "what is good can be restored, and nothing else"
    );
    let Ok(restored) = restored else {
        assert!(engine.collection(NAME).is_none());
        return;
    };
    assert_eq!(restored.stats().items as u64, info.items);
    let heads = restored.heads().expect("they were restored");
    assert_eq!(heads.len(), info.heads);
    for head in heads {
        let versions = head.versions.iter().map(|one| Some(one.version));
        for version in versions.chain([None]) {
            restored.head(&head.name, version).expect("it was checked");
        }
    }
    check_again(&restored, &dir);
    drop(restored);
    assert!(engine.delete(NAME).expect("it is deleted"));
}

fn dims(path: &Path) -> usize {
    let (_, manifest) = super::Source::open(path).expect("it opened before");
    let spaces = manifest.spaces;
    let specific = [spaces.specific_image_dim, spaces.specific_text_dim];
    let specific = specific.into_iter().flatten().max().unwrap_or(0);
    specific.max(spaces.shared_dim)
}

/// What was restored makes a snapshot of the same items.
fn check_again(restored: &Collection, dir: &TempDir) {
    let path = dir.path().join("again.tar");
    let made = restored.snapshot(&path, &SnapshotOptions::default(), &go_on);
    let made = made.expect("what was restored is good").info;
    let again = verify_snapshot(&path, &go_on).expect("so is its snapshot");
    assert_eq!((again.items, &again), (made.items, &made));
    let metas = restored.metas().expect("it is there");
    let ids: Vec<ItemId> = metas.map(|meta| meta.expect("reads").id).collect();
    assert_eq!(ids.len() as u64, again.items);
    for id in ids {
        assert!(restored.get(&id).expect("reads").is_some());
    }
}

/// A snapshot in one file, and the parts of another.
pub(crate) fn seeds(collection: &Collection) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("seed.tar");
    let made = collection.snapshot(&path, &SnapshotOptions::default(), &go_on);
    made.expect("is made");
    let (mut source, manifest) = super::Source::open(&path).expect("opens");
    let chunk = source.chunk(&manifest.chunks[0]).expect("reads");
    let text = serde_json::to_vec(&manifest).expect("a manifest is plain JSON");
    let version = &manifest.heads[0].versions[0];
    let head = source.file(&version.path(), (&version.hash, version.bytes));
    let head = head.expect("reads");
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat();
    let parts = [sized(&text), sized(&head), chunk].concat();
    vec![fs_err::read(&path).expect("reads"), parts]
}
