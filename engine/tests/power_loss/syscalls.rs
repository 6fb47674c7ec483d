//! What `strace` writes down, taken apart.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// The system calls that change files or their names, and those that would do so behind our back.
/// A question mark has strace ignore those that this machine does not know.
pub const TRACED: &str = "?open,openat,?openat2,?creat,close,?dup,?dup2,?dup3,fcntl,lseek,write,\
     pwrite64,writev,?pwritev,?pwritev2,?truncate,ftruncate,?fallocate,?rename,?renameat,\
     ?renameat2,?unlink,unlinkat,?mkdir,mkdirat,?rmdir,?link,?linkat,?symlink,?symlinkat,fsync,\
     fdatasync,?sync_file_range,?sync,?syncfs,msync,mmap,?copy_file_range,?sendfile,?splice,\
     ?io_uring_setup";

/// A finished call. Times are line numbers of the recording: a call took effect somewhere between
/// `begin` and `end`.
#[derive(Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments as strace writes them.
    pub args: Vec<String>,
    /// Negative when it failed.
    pub result: i64,
    /// When it was entered.
    pub begin: usize,
    /// When it had returned.
    pub end: usize,
}

/// What happens at one line of the recording.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// This call is entered.
    Begin(usize),
    /// This call has returned.
    End(usize),
}

/// Reads a recording: every call that returned, and in which order they began and ended.
///
/// # Panics
/// When a line is not understood.
pub fn read(path: &Path) -> (Vec<Call>, Vec<Moment>) {
    let file = BufReader::new(File::open(path).expect("strace left a recording"));
    let mut calls: Vec<Call> = Vec::new();
    let mut moments = Vec::new();
    // Text of calls that have begun, and where they stand, by thread.
    let mut open: HashMap<String, (String, usize)> = HashMap::new();
    for (time, line) in file.lines().enumerate() {
        let line = line.expect("the recording can be read");
        let (thread, text) = line.split_once(' ').expect("a line starts with a thread");
        let text = text.trim_start();
        if text.starts_with("---") || text.starts_with("+++") {
            continue;
        }
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            open.insert(thread.to_owned(), (begun.to_owned(), calls.len()));
            moments.push(Moment::Begin(calls.len()));
            calls.push(parse(begun, "?", time));
            continue;
        }
        if text.starts_with("<... ") {
            let (_, rest) = text.split_once(" resumed>").expect("a call is resumed");
            let (begun, position) = open.remove(thread).expect("what is resumed has begun");
            let begin = calls[position].begin;
            calls[position] = finished(&(begun + rest), begin, time);
            moments.push(Moment::End(position));
        } else {
            moments.extend([Moment::Begin(calls.len()), Moment::End(calls.len())]);
            calls.push(finished(text, time, time));
        }
    }
    (calls, moments)
}

fn finished(text: &str, begin: usize, end: usize) -> Call {
    // Short calls are padded, so that the results stand in one column.
    let (body, result) = text.rsplit_once(" = ").unwrap_or((text, "?"));
    let body = body.trim_end();
    let body = body.strip_suffix(')').unwrap_or(body);
    Call {
        end,
        ..parse(body, result, begin)
    }
}

fn parse(body: &str, result: &str, begin: usize) -> Call {
    let (name, args) = body.split_once('(').expect("a call has arguments");
    let result = result.split(' ').next().unwrap_or(result);
    let result = match result.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).unwrap_or(-1),
        None => result.parse().unwrap_or(-1),
    };
    Call {
        name: name.to_owned(),
        args: args.trim_end().split(", ").map(str::to_owned).collect(),
        result,
        begin,
        end: usize::MAX,
    }
}

impl Call {
    /// An argument that is a number.
    pub fn number(&self, i: usize) -> Option<i64> {
        self.args.get(i)?.trim_end_matches(')').parse().ok()
    }

    /// An argument that is bytes.
    ///
    /// # Panics
    /// When it is none, or when strace cut it short.
    pub fn bytes(&self, i: usize) -> Vec<u8> {
        let quoted = self.args[i].strip_prefix('"');
        let quoted = quoted.and_then(|text| text.strip_suffix('"'));
        let text = quoted.unwrap_or_else(|| panic!("{} has no whole string at {i}", self.name));
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => panic!("{} has a string that is not hexadecimal", self.name),
        };
        let (bytes, rest) = text.as_bytes().as_chunks::<4>();
        assert!(rest.is_empty(), "a byte is written as four characters");
        bytes
            .iter()
            .map(|[_, _, high, low]| 16 * digit(*high) + digit(*low))
            .collect()
    }

    /// An argument that is a path.
    pub fn path(&self, i: usize) -> std::path::PathBuf {
        String::from_utf8(self.bytes(i))
            .expect("paths here are UTF-8")
            .into()
    }

    /// Whether an argument names a flag.
    pub fn has(&self, i: usize, flag: &str) -> bool {
        self.args
            .get(i)
            .is_some_and(|arg| arg.split('|').any(|word| word == flag))
    }
}
