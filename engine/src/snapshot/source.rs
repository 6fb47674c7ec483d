//! Reading a snapshot, a folder or one file: nothing is given that was not checked.

use std::{
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use fs_err::File;

use super::{
    SnapshotError,
    manifest::{Chunk, MANIFEST, MOST_BYTES, Manifest},
    tarball::{self, Places},
};

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// `None` of a folder.
    tar: Option<(File, Places)>,
}

impl Source {
    /// Opens a snapshot and reads its manifest.
    pub(super) fn open(path: &Path) -> Result<(Self, Manifest), SnapshotError> {
        let none = |reason: String| SnapshotError::None {
            path: path.to_owned(),
            reason,
        };
        let mut source = Self {
            path: path.to_owned(),
            tar: None,
        };
        if path.is_file() {
            let mut file = File::open(path)?;
            let places = tarball::places(&mut file)?;
            let damaged = |reason| source.damaged("the tar", reason);
            source.tar = Some((file, places.map_err(damaged)?));
        }
        let Some((mut file, bytes)) = source.part(MANIFEST)? else {
            return Err(none(match (&source.tar, path.exists()) {
                (Some(_), _) => format!("there is no {MANIFEST} in the tar"),
                (None, true) => format!("there is no {MANIFEST} in the folder"),
                (None, false) => "there is nothing".to_owned(),
            }));
        };
        if bytes > MOST_BYTES {
            return Err(none(format!(
                "its {MANIFEST} has {bytes} bytes, expected at most {MOST_BYTES}"
            )));
        }
        let manifest = Manifest::read(path, &read(&mut file, bytes)?)?;
        let parts = source.tar.as_ref().map(|(_, places)| places.len());
        if parts.is_some_and(|parts| parts != manifest.parts() + 1) {
            let reason = "it has other files than its manifest says".to_owned();
            return Err(source.damaged("the tar", reason));
        }
        Ok((source, manifest))
    }

    /// The bytes of a chunk.
    pub(super) fn chunk(&mut self, chunk: &Chunk) -> Result<Vec<u8>, SnapshotError> {
        self.file(&chunk.path(), (&chunk.hash, chunk.bytes))
    }

    /// The bytes of a file that has this hash, and so many of them.
    pub(super) fn file(
        &mut self,
        name: &str,
        (hash, expected): (&str, u64),
    ) -> Result<Vec<u8>, SnapshotError> {
        let Some((mut file, length)) = self.part(name)? else {
            return Err(self.damaged(name, "it is missing".to_owned()));
        };
        if length != expected {
            let reason = format!("it has {length} bytes, expected {expected}");
            return Err(self.damaged(name, reason));
        }
        let bytes = read(&mut file, length)?;
        if *blake3::hash(&bytes).to_hex() != *hash {
            return Err(self.damaged(name, "its checksum does not fit".to_owned()));
        }
        Ok(bytes)
    }

    /// A file of the snapshot, read from its start on, and its length.
    fn part(&mut self, name: &str) -> Result<Option<(File, u64)>, SnapshotError> {
        if let Some((file, places)) = &mut self.tar {
            let Some((start, bytes)) = places.get(name) else {
                return Ok(None);
            };
            file.seek(SeekFrom::Start(*start))?;
            return Ok(Some((file.try_clone()?, *bytes)));
        }
        match File::open(self.path.join(name)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some((file, length)))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The error of a part that is not as it was written.
    pub(super) fn damaged(&self, what: &str, reason: String) -> SnapshotError {
        SnapshotError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
            reason,
        }
    }
}

/// The next bytes of a file that has so many.
fn read(file: &mut File, bytes: u64) -> Result<Vec<u8>, SnapshotError> {
    let mut read = Vec::with_capacity(bytes as usize);
    file.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}
