//! A snapshot in one file: a tar of the folder, in the form of POSIX (ustar).
//!
//! Every header follows from a name and a size, and what fills up is zeros. So we read nothing but
//! what we could have written, and any other byte anywhere is damage.

use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use fs_err::File;
use tar::{EntryType, Header};

/// What a tar is made of.
const BLOCK: usize = 512;
/// Blocks of zeros at its end.
const END_BLOCKS: usize = 2;

/// Whether a snapshot of this name is one file.
pub(super) fn is_tar(path: &Path) -> bool {
    let ending = path.extension();
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))
}

fn header(name: &str, bytes: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

fn padding(bytes: u64) -> usize {
    (BLOCK - (bytes % BLOCK as u64) as usize) % BLOCK
}

/// Writes a file.
pub(super) fn put(to: &mut (impl Write + ?Sized), name: &str, bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len() as u64;
    to.write_all(header(name, length)?.as_bytes())?;
    to.write_all(bytes)?;
    to.write_all(&[0; BLOCK][..padding(length)])
}

/// Writes the end.
pub(super) fn end(to: &mut (impl Write + ?Sized)) -> io::Result<()> {
    to.write_all(&[0; END_BLOCKS * BLOCK])
}

/// Where each file is: its name, its start, its bytes.
pub(super) type Places = HashMap<String, (u64, u64)>;

/// Finds the files of a tar, and checks everything else in it; an error says what is wrong.
pub(super) fn places(file: &mut File) -> io::Result<Result<Places, String>> {
    let length = file.metadata()?.len();
    let mut places = Places::new();
    let mut at = 0;
    let mut block = [0; BLOCK];
    loop {
        if at + BLOCK as u64 > length {
            return Ok(Err("it is cut short".to_owned()));
        }
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(check_end(file, at, length)?.map(|()| places));
        }
        let Some((name, bytes)) = entry(&block) else {
            return Ok(Err(format!(
                "the header at byte {at} is none that Diptych writes; if another program made this \
                 tar, unpack it and name the folder"
            )));
        };
        let start = at + BLOCK as u64;
        let padding = padding(bytes);
        let end = start.checked_add(bytes);
        let Some(end) = end.filter(|end| *end <= length.saturating_sub(padding as u64)) else {
            return Ok(Err(format!("{name} is cut short")));
        };
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut block[..padding])?;
        if block[..padding].iter().any(|byte| *byte != 0) {
            return Ok(Err(format!("what fills up {name} is not zeros")));
        }
        at = end + padding as u64;
        if places.insert(name.clone(), (start, bytes)).is_some() {
            return Ok(Err(format!("{name} is in it twice")));
        }
    }
}

/// The name and the size in a header.
fn entry(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let read = Header::from_byte_slice(block);
    let name = std::str::from_utf8(&read.path_bytes()).ok()?.to_owned();
    let bytes = read.entry_size().ok()?;
    let ours = header(&name, bytes).ok()?;
    (ours.as_bytes() == block).then_some((name, bytes))
}

/// Checks that nothing but zeros follows, and enough of them. Other programs write some more.
fn check_end(file: &mut File, at: u64, length: u64) -> io::Result<Result<(), String>> {
    if length - at < (END_BLOCKS * BLOCK) as u64 {
        return Ok(Err("its end is cut short".to_owned()));
    }
    file.seek(SeekFrom::Start(at))?;
    let mut buffer = [0; 16 * BLOCK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Ok(()));
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(Err("something follows its end".to_owned()));
        }
    }
}
