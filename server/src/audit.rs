//! The log of administrative actions and refused attempts: one object of JSON per line, only ever
//! appended to. A file that has grown large is kept beside it under a number, the newest under 1.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fs_err as fs;
use parking_lot::Mutex;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::keys::private;

/// A log of administrative actions.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    bytes: u64,
    files: usize,
    /// Held while a line is written.
    alone: Mutex<()>,
}

/// One action.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Action<'a> {
    /// Name of the key, if one was asked for.
    pub key: Option<&'a str>,
    /// From where, unless from this machine's command line.
    pub address: Option<&'a str>,
    /// What was done, as `DELETE /v1/collections/{collection}`.
    pub action: &'a str,
    /// To what: the path of the request, or a name.
    pub target: &'a str,
    /// What came of it: a status of HTTP, or `done`.
    pub outcome: &'a str,
    /// The id of the request.
    pub request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    action: Action<'a>,
}

impl Audit {
    /// A log at `path`, which is begun with its first line. `files` files of about `bytes` bytes are
    /// kept.
    pub fn new(path: PathBuf, bytes: u64, files: usize) -> Self {
        Self {
            path,
            bytes,
            files,
            alone: Mutex::new(()),
        }
    }

    /// Appends one action.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, action: Action<'_>) -> io::Result<()> {
        let now = OffsetDateTime::now_utc();
        let time = now.format(&Rfc3339).map_err(io::Error::other)?;
        let mut line = serde_json::to_vec(&Line { time, action })?;
        line.push(b'\n');
        let _alone = self.alone.lock();
        let grown = std::fs::metadata(&self.path).map_or(0, |about| about.len());
        if grown > 0 && grown + line.len() as u64 > self.bytes {
            self.turn()?;
        }
        // Opened each time, so that another program may move the file away.
        private(&self.path, false)?.write_all(&line)
    }

    /// Moves every file one number up, and drops the last.
    fn turn(&self) -> io::Result<()> {
        let last = self.files.saturating_sub(1);
        if last == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..last).rev() {
            let from = numbered(&self.path, number);
            if from.exists() {
                fs::rename(&from, numbered(&self.path, number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))
    }
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn write(audit: &Audit, target: &str) {
        let action = Action {
            key: Some("ops"),
            address: None,
            action: "DELETE /x",
            target,
            outcome: "204",
            request_id: None,
        };
        audit.write(action).expect("writes");
    }

    #[test]
    fn a_line_says_when_who_did_what_and_what_came_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::new(path.clone(), 1 << 20, 3);
        write(&audit, "/a\n\"b");
        write(&audit, "/c");
        let text = fs::read_to_string(&path).expect("reads");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["key"], &lines[0]["target"]),
            (&"ops".into(), &"/a\n\"b".into())
        );
        let time = lines[0]["time"].as_str().expect("a time");
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn files_turn_when_they_are_full_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::new(path.clone(), 200, 3);
        for i in 0..9 {
            write(&audit, &format!("/{i}"));
        }
        let read = |path: &Path| fs::read_to_string(path).expect("reads");
        assert!(read(&path).contains("\"/8\""));
        assert!(read(&numbered(&path, 1)).contains("\"/7\""));
        assert!(read(&numbered(&path, 2)).contains("\"/6\""));
        assert!(!numbered(&path, 3).exists(), "three files are kept");
    }
}
