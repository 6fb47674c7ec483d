//! Checksums as hubs state them: the `ETag` of a large file is its SHA-256, that of a small one the
//! SHA-1 that git gives it.

use std::{
    fmt::Write as _,
    io::{self, Read},
    path::Path,
};

use fs_err as fs;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Read at once.
const BUFFER: usize = 1 << 17;

/// The name of a file's content on the hub, and in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etag(String);

impl Etag {
    /// Takes the value of the header.
    pub(crate) fn new(header: &str) -> Option<Self> {
        let value = header
            .strip_prefix("W/")
            .unwrap_or(header)
            .trim_matches('"');
        // It becomes the name of a file.
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = !value.is_empty() && value.len() <= 128 && value.chars().all(is_letter);
        (is_name && !value.starts_with('.')).then(|| Self(value.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The checksum of a file, where it is another than this one says. An `ETag` that is no checksum,
    /// as some mirrors give it, says nothing.
    pub(crate) fn mismatch(&self, file: &Path) -> io::Result<Option<String>> {
        let is_hex = self.0.chars().all(|c| c.is_ascii_hexdigit());
        let found = match self.0.len() {
            64 if is_hex => digest(Sha256::new(), file)?,
            40 if is_hex => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {}\0", fs::metadata(file)?.len()));
                digest(hash, file)?
            }
            _ => return Ok(None),
        };
        Ok((found != self.0.to_ascii_lowercase()).then_some(found))
    }
}

fn digest(mut hash: impl Digest, file: &Path) -> io::Result<String> {
    let mut file = fs::File::open(file)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_compared_by_sha256_or_as_git_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a");
        fs::write(&file, "hello\n").expect("written");
        let right = [
            // `sha256sum` and `git hash-object`.
            "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
            "W/\"ce013625030ba8dba906f756967f9e9ca394464a\"",
            "\"not-a-checksum\"",
        ];
        for etag in right.map(|header| Etag::new(header).expect("an etag")) {
            assert_eq!(etag.mismatch(&file).expect("read"), None, "{etag:?}");
        }
        for wrong in ["0".repeat(64), "0".repeat(40)] {
            let found = Etag::new(&wrong)
                .expect("an etag")
                .mismatch(&file)
                .expect("read");
            assert_eq!(found.expect("wrong").len(), wrong.len());
        }
    }

    #[test]
    fn an_etag_stays_in_its_folder() {
        for bad in ["", "\"\"", "..", "../a", "a/b", ".hidden", &"a".repeat(129)] {
            assert_eq!(Etag::new(bad), None, "{bad:?}");
        }
    }
}
