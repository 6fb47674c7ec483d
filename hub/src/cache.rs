//! The folder of one repository in the cache, laid out as all programs of the hub do it:
//! `blobs/ETAG` holds contents, `snapshots/COMMIT/NAME` leads to them, `refs/REVISION` holds a
//! commit.

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
    process,
};

use fs_err as fs;

use crate::{
    HubError,
    checksum::Etag,
    files,
    name::{Commit, RepoName, Revision},
    parts,
};

/// The folder of one repository.
pub(crate) struct Cache {
    repo: RepoName,
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(crate) fn new(root: &Path, repo: &RepoName) -> Self {
        let name = format!("models--{}", repo.as_str().replace('/', "--"));
        Self {
            repo: repo.clone(),
            folder: root.join(&name),
            locks: root.join(".locks").join(&name),
        }
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("blobs"))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(etag.as_str())
    }

    /// Where a content grows until it is all there.
    pub(crate) fn incomplete(&self, etag: &Etag) -> PathBuf {
        self.folder
            .join("blobs")
            .join(format!("{}.incomplete", etag.as_str()))
    }

    pub(crate) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str())
    }

    /// Whether a snapshot leads to this file.
    pub(crate) fn has(&self, commit: &Commit, name: &str) -> bool {
        self.snapshot(commit).join(name).is_file()
    }

    /// Whether a model can be read from the snapshot.
    pub(crate) fn is_complete(&self, commit: &Commit) -> bool {
        let entries = fs::read_dir(self.snapshot(commit))
            .into_iter()
            .flatten()
            .flatten();
        let names: BTreeSet<String> = entries
            .filter(|entry| entry.path().is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        files::needed(&self.repo, commit, &names, |name| self.list(commit, name)).is_ok()
    }

    /// The contents of a list of parts that is in a snapshot.
    pub(crate) fn list(&self, commit: &Commit, name: &str) -> Result<Vec<u8>, HubError> {
        let file = fs::File::open(self.snapshot(commit).join(name))?;
        parts::check_size(file.metadata()?.len(), &self.repo, commit, name)?;
        let mut contents = Vec::new();
        file.take(parts::MOST_BYTES).read_to_end(&mut contents)?;
        Ok(contents)
    }

    /// What the revision was when it was last asked for.
    pub(crate) fn reference(&self, revision: &Revision) -> Option<Commit> {
        let file = self.folder.join("refs").join(revision.as_str());
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Keeps what the revision is.
    pub(crate) fn set_reference(&self, revision: &Revision, commit: &Commit) -> io::Result<()> {
        let file = self.folder.join("refs").join(revision.as_str());
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        let aside = beside(&file);
        fs::write(&aside, commit.as_str())?;
        fs::rename(aside, file)
    }

    /// The newest pull request that was asked for and is complete.
    pub(crate) fn pull_request(&self) -> Option<Commit> {
        let entries = fs::read_dir(self.folder.join("refs/refs/pr"))
            .ok()?
            .flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let commits = numbers
            .into_iter()
            .filter_map(|n| self.reference(&Revision::pull_request(n)));
        commits.into_iter().find(|commit| self.is_complete(commit))
    }

    /// Keeps other processes from this content until the file is dropped; `waits` is called when one
    /// has it.
    pub(crate) fn lock(&self, etag: &Etag, waits: impl FnOnce()) -> io::Result<File> {
        fs::create_dir_all(&self.locks)?;
        let path = self.locks.join(format!("{}.lock", etag.as_str()));
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?
            .into_file();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waits();
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(file)
    }

    /// Makes a snapshot's name lead to a content.
    pub(crate) fn link(&self, commit: &Commit, name: &str, etag: &Etag) -> io::Result<()> {
        let folder = self.snapshot(commit);
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        let aside = beside(&path);
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        point(&self.blob(etag), etag, &aside)?;
        fs::rename(aside, path)
    }
}

/// A link that stays right when the cache is moved.
#[cfg(unix)]
fn point(_blob: &Path, etag: &Etag, at: &Path) -> io::Result<()> {
    use fs_err::os::unix::fs::symlink;
    symlink(Path::new("../../blobs").join(etag.as_str()), at)
}

/// Symbolic links need a right that few have here.
#[cfg(not(unix))]
fn point(blob: &Path, _etag: &Etag, at: &Path) -> io::Result<()> {
    fs::hard_link(blob, at).or_else(|_| fs::copy(blob, at).map(drop))
}

/// A name that no other process uses, to be renamed when all is in place.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(root: &Path) -> Cache {
        let cache = Cache::new(root, &"a/b".parse().expect("a name"));
        cache.create().expect("made");
        cache
    }

    fn commit(digit: &str) -> Commit {
        digit.repeat(40).parse().expect("a commit")
    }

    fn put(cache: &Cache, commit: &Commit, name: &str) {
        let etag = Etag::new(&format!("etag-of-{name}")).expect("an etag");
        fs::write(cache.blob(&etag), name).expect("written");
        cache.link(commit, name, &etag).expect("linked");
        cache.link(commit, name, &etag).expect("linked again");
    }

    #[test]
    fn a_snapshot_is_complete_when_its_links_lead_to_all_files() {
        let root = tempfile::tempdir().expect("a folder");
        let (cache, commit) = (cache(root.path()), commit("1"));
        let names = [
            "config.json",
            "preprocessor_config.json",
            "tokenizer.json",
            "model.safetensors",
        ];
        for name in names {
            assert!(!cache.is_complete(&commit), "before {name}");
            put(&cache, &commit, name);
        }
        assert!(cache.is_complete(&commit));
        let content = fs::read_to_string(cache.snapshot(&commit).join("config.json"));
        assert_eq!(content.expect("read"), "config.json");
        let left: Vec<_> = fs::read_dir(cache.snapshot(&commit))
            .expect("read")
            .collect();
        assert_eq!(left.len(), names.len(), "nothing else is left: {left:?}");

        let etag = Etag::new("etag-of-model.safetensors").expect("an etag");
        fs::remove_file(cache.blob(&etag)).expect("removed");
        assert!(!cache.is_complete(&commit), "a link leads nowhere");
    }

    #[test]
    fn references_keep_commits_and_ignore_what_is_none() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = cache(root.path());
        let revision: Revision = "refs/pr/15".parse().expect("a revision");
        assert_eq!(cache.reference(&revision), None);
        for digit in ["1", "2"] {
            cache
                .set_reference(&revision, &commit(digit))
                .expect("kept");
            assert_eq!(cache.reference(&revision), Some(commit(digit)));
        }
        assert_eq!(cache.pull_request(), None, "it is not complete");
        fs::write(cache.folder().join("refs/main"), "../../etc").expect("written");
        assert_eq!(cache.reference(&Revision::main()), None);
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = cache(root.path());
        let etag = Etag::new("a").expect("an etag");
        let held = cache
            .lock(&etag, || panic!("nobody has it"))
            .expect("locked");
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let cache = &cache;
            let etag = &etag;
            scope.spawn(move || cache.lock(etag, || tell.send(()).expect("heard")).map(drop));
            told.recv().expect("the second waits");
            drop(held);
        });
    }
}
