//! A run of the writing process under `strace`, and what it did to its folder.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    disk::{Disk, Inode, ROOT},
    load::{Amount, Line},
    syscalls::{self, Call, Moment, TRACED},
};

/// Set in the recorded process: its folder, its seed and the amount that it writes.
pub const WRITER: &str = "DIPTYCH_POWER_LOSS_WRITER";

/// A recorded run.
#[derive(Debug)]
pub struct Recording {
    /// What happened to the files.
    pub disk: Disk,
    /// What the process said, with the time from which others may have known.
    pub lines: Vec<(usize, Line)>,
    /// Time of the end.
    pub end: usize,
}

/// Whether strace is here and may look at other processes; `Err` says what is missing.
pub fn possible() -> Result<(), String> {
    let tried = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    match tried {
        Err(error) => Err(format!("strace cannot be started: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("strace cannot look at processes: {}", said.trim()))
        }
        Ok(_) => Ok(()),
    }
}

/// Runs the writing process on a folder, which may hold something, and records it.
pub fn record(dir: &Path, seed: u64, amount: Amount) -> Recording {
    let dir = dir.canonicalize().expect("the folder is there");
    let disk = Disk::new(&dir);
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let trace = temporary.path().join("trace");
    let Amount { runs, operations } = amount;
    let output = Command::new("strace")
        .args(["-f", "-qq", "-xx", "-s", "1000000000", "-e"])
        .arg(format!("trace={TRACED}"))
        .args(["-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program has a path"))
        .env(
            WRITER,
            format!("{seed} {runs} {operations} {}", dir.display()),
        )
        .stdout(Stdio::null())
        .output()
        .expect("strace starts");
    assert!(
        output.status.success(),
        "the recorded process failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (calls, moments) = syscalls::read(&trace);
    let mut replay = Replay {
        dir,
        disk,
        descriptors: HashMap::new(),
        lines: Vec::new(),
        under_way: HashMap::new(),
    };
    for moment in &moments {
        match *moment {
            Moment::Begin(i) => replay.begin(i, &calls[i]),
            Moment::End(i) => replay.end(i, &calls[i]),
        }
    }
    Recording {
        disk: replay.disk,
        lines: replay.lines,
        end: calls.last().map_or(0, |call| call.end),
    }
}

/// The recorded process as it was at one moment.
struct Replay {
    dir: PathBuf,
    disk: Disk,
    descriptors: HashMap<i64, Open>,
    lines: Vec<(usize, Line)>,
    /// Files of calls under way, as their descriptors can be given to others before they return.
    under_way: HashMap<usize, Inode>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    inode: Inode,
    position: usize,
}

impl Replay {
    fn begin(&mut self, i: usize, call: &Call) {
        let descriptor = call.number(if call.name == "mmap" { 4 } else { 0 });
        let open = descriptor.and_then(|fd| self.descriptors.get(&fd));
        if let Some(open) = open {
            self.under_way.insert(i, open.inode);
        }
        if call.name == "close"
            && let Some(descriptor) = descriptor
        {
            self.descriptors.remove(&descriptor);
        }
    }

    fn end(&mut self, i: usize, call: &Call) {
        if call.result < 0 {
            return;
        }
        let time = (call.begin, call.end);
        let inode = self.under_way.remove(&i);
        match (call.name.as_str(), inode) {
            ("openat", _) => self.open(call, time),
            ("write", None) if call.number(0) == Some(1) => {
                let text = String::from_utf8(call.bytes(1)).expect("lines are UTF-8");
                let line = Line::read(&text).expect("a line of the writer");
                self.lines.push((call.begin, line));
            }
            ("write", Some(inode)) => {
                let descriptor = call.number(0).expect("a descriptor");
                let open = self.descriptors.get_mut(&descriptor).expect("it is open");
                let at = open.position;
                open.position += call.result as usize;
                self.write(inode, at, call, time);
            }
            ("pwrite64", Some(inode)) => {
                let at = call.number(3).expect("an offset") as usize;
                self.write(inode, at, call, time);
            }
            ("lseek", Some(_)) => {
                let descriptor = call.number(0).expect("a descriptor");
                let open = self.descriptors.get_mut(&descriptor).expect("it is open");
                open.position = call.result as usize;
            }
            ("ftruncate", Some(inode)) => {
                let length = call.number(1).expect("a length") as usize;
                self.disk.truncate(inode, length, time);
            }
            ("fsync" | "fdatasync", Some(inode)) => self.disk.sync(inode, time),
            ("dup" | "dup2" | "dup3", Some(_)) => self.duplicate(call),
            ("fcntl", Some(_)) if call.args[1].starts_with("F_DUPFD") => self.duplicate(call),
            ("mmap", Some(_)) => assert!(
                !(call.has(3, "MAP_SHARED") && call.has(2, "PROT_WRITE")),
                "a file is written through a map, which strace does not see: {call:?}"
            ),
            ("mkdir", _) => self.make_folder(call, 0, time),
            ("mkdirat", _) => self.make_folder(call, 1, time),
            ("unlink" | "rmdir", _) => self.remove(call, 0, time),
            ("unlinkat", _) => self.remove(call, 1, time),
            ("rename", _) => self.rename(call, (0, 1), time),
            ("renameat" | "renameat2", _) => self.rename(call, (1, 3), time),
            ("link" | "symlink" | "truncate" | "creat" | "open", _) => {
                let all = 0..call.args.len();
                let ours = all
                    .filter(|i| call.args[*i].starts_with('"'))
                    .any(|i| call.path(i).starts_with(&self.dir));
                assert!(!ours, "the model knows no {}: {call:?}", call.name);
            }
            (
                // What is no change of a file, or promises nothing.
                "close" | "fcntl" | "sync_file_range" | "msync" | "mmap" | "sync" | "syncfs",
                _,
            ) => {}
            (name, inode) => {
                let strange = inode.is_some() || name.starts_with("io_uring");
                assert!(!strange, "the model knows no {name}");
            }
        }
    }

    fn write(&mut self, inode: Inode, at: usize, call: &Call, time: (usize, usize)) {
        let mut bytes = call.bytes(1);
        bytes.truncate(call.result as usize);
        self.disk.write(inode, at, bytes, time);
    }

    fn duplicate(&mut self, call: &Call) {
        let descriptor = call.number(0).expect("a descriptor");
        let open = self.descriptors[&descriptor];
        self.descriptors.insert(call.result, open);
    }

    /// Where a path leads from, and the path from there; `None` when it is not in our folder.
    fn place(&self, call: &Call, i: usize) -> Option<(Inode, PathBuf)> {
        let path = call.path(i);
        if path.is_absolute() {
            let path = path.strip_prefix(&self.dir).ok()?;
            return Some((ROOT, path.to_owned()));
        }
        let from = call.number(i.checked_sub(1)?)?;
        Some((self.descriptors.get(&from)?.inode, path))
    }

    fn open(&mut self, call: &Call, time: (usize, usize)) {
        let Some((from, path)) = self.place(call, 1) else {
            return;
        };
        for flag in ["O_APPEND", "O_SYNC", "O_DSYNC", "O_DIRECT", "O_TMPFILE"] {
            assert!(!call.has(2, flag), "the model knows no {flag}: {call:?}");
        }
        let inode = self.disk.find(from, &path).unwrap_or_else(|| {
            assert!(call.has(2, "O_CREAT"), "{call:?} found what is not there");
            self.disk.create(from, &path, true, time)
        });
        if call.has(2, "O_TRUNC") {
            self.disk.truncate(inode, 0, time);
        }
        let open = Open { inode, position: 0 };
        self.descriptors.insert(call.result, open);
    }

    fn make_folder(&mut self, call: &Call, i: usize, time: (usize, usize)) {
        if let Some((from, path)) = self.place(call, i) {
            self.disk.create(from, &path, false, time);
        }
    }

    fn remove(&mut self, call: &Call, i: usize, time: (usize, usize)) {
        if let Some((from, path)) = self.place(call, i) {
            self.disk.unlink(from, &path, time);
        }
    }

    fn rename(&mut self, call: &Call, (old, new): (usize, usize), time: (usize, usize)) {
        match (self.place(call, old), self.place(call, new)) {
            (Some((ROOT, old)), Some((ROOT, new))) => self.disk.rename(&old, &new, time),
            (None, None) => {}
            _ => panic!("a rename in or out of the folder: {call:?}"),
        }
    }
}
