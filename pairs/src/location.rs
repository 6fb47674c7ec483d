//! Where the bytes of a picture are, and how they are read within a limit.

use std::{
    fmt,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

/// Where a picture is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A file of its own.
    File(PathBuf),
    /// A member of a tar file that is not compressed.
    Member {
        /// The tar file.
        shard: Arc<Path>,
        /// Name of the member.
        name: Box<str>,
        /// Where its contents begin, in bytes.
        offset: u64,
        /// How long they are, in bytes.
        bytes: u64,
    },
}

/// Why a file cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is larger than allowed.
    #[error("the file has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: usize,
    },
}

impl Location {
    /// Its bytes, but never more than `max`.
    ///
    /// # Errors
    /// When they cannot be read or are too many.
    pub fn read(&self, max: usize) -> Result<Vec<u8>, ReadError> {
        match self {
            Self::File(path) => read_file(path, max),
            Self::Member {
                shard,
                offset,
                bytes,
                ..
            } => {
                if *bytes > max as u64 {
                    return Err(ReadError::TooLarge { bytes: *bytes, max });
                }
                let mut file = fs_err::File::open(shard.as_ref())?;
                file.seek(SeekFrom::Start(*offset))?;
                let mut contents = vec![0; *bytes as usize];
                file.read_exact(&mut contents)?;
                Ok(contents)
            }
        }
    }

    /// The name of the picture alone.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Self::Member { name, .. } => name.to_string(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Member { shard, name, .. } => write!(f, "{}, {name}", shard.display()),
        }
    }
}

/// Reads a file, but never more than `max` bytes.
///
/// # Errors
/// When it cannot be read or is too large.
pub fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, ReadError> {
    let file = fs_err::File::open(path)?;
    let bytes = file.metadata()?.len();
    let too_large = |bytes| ReadError::TooLarge { bytes, max };
    if bytes > max as u64 {
        return Err(too_large(bytes));
    }
    let mut contents = Vec::with_capacity(bytes as usize + 1);
    // It may grow while it is read.
    file.take(max as u64 + 1).read_to_end(&mut contents)?;
    if contents.len() > max {
        return Err(too_large(contents.len() as u64));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_refused_with_both_sizes() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), [0; 11]).expect("written");
        let error = read_file(file.path(), 10).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "the file has 11 bytes, at most 10 are allowed"
        );
        assert_eq!(read_file(file.path(), 11).expect("fits").len(), 11);
    }

    #[test]
    fn a_member_is_read_by_its_place_alone_and_a_short_shard_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), b"0123456789").expect("written");
        let member = |offset, bytes| Location::Member {
            shard: file.path().into(),
            name: "a.png".into(),
            offset,
            bytes,
        };
        assert_eq!(member(3, 4).read(4).expect("is there"), b"3456");
        assert!(member(3, 4).read(3).is_err(), "over the limit");
        assert!(member(8, 4).read(4).is_err(), "behind the end");
        assert!(member(3, 4).to_string().ends_with(", a.png"));
    }
}
