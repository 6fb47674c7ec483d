//! The parts of a file: a head that says where each is and what it hashes to, and the parts.

use std::{io, sync::Arc};

use bytemuck::{Pod, Zeroable};
use fs_err::File;
use memmap2::Mmap;

use crate::{
    column::{self, Column},
    index::Source,
};

const MAGIC: [u8; 8] = *b"DIPTYIDX";
const VERSION: u32 = 4;
/// Sections start at multiples of this, so that numbers lie in a map as they do in memory, and
/// codes in whole cache lines.
pub(super) const ALIGN: usize = 64;
/// More sections than any segment has.
pub(super) const MAX_SECTIONS: u32 = 64;

/// What a section holds.
pub(super) mod kind {
    pub(in super::super) const OWNER: u32 = 1;
    pub(in super::super) const SHAPE: u32 = 2;
    pub(in super::super) const ID_OFFSETS: u32 = 3;
    pub(in super::super) const ID_BYTES: u32 = 4;
    pub(in super::super) const STAMPS: u32 = 5;
    pub(in super::super) const ROWS: u32 = 6;
    pub(in super::super) const MEAN: u32 = 7;
    pub(in super::super) const SCALE: u32 = 8;
    pub(in super::super) const CODES: u32 = 9;
    pub(in super::super) const RESTS: u32 = 10;
    pub(in super::super) const MEMBER_OFFSETS: u32 = 11;
    pub(in super::super) const MEMBER_TARGETS: u32 = 12;
    pub(in super::super) const ROW_BLOCKS: u32 = 13;
    pub(in super::super) const SHORT_DIRECTIONS: u32 = 14;
    pub(in super::super) const SHORT_UNITS: u32 = 15;
    pub(in super::super) const SHORT_CODES: u32 = 16;
    /// The lowest layer; those above have the numbers after it.
    pub(in super::super) const LAYERS: u32 = 32;
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Header {
    magic: [u8; 8],
    version: u32,
    pub(super) sections: u32,
    pub(super) generation: u64,
}

impl Header {
    pub(super) fn new(sections: usize, generation: u64) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            sections: sections as u32,
            generation,
        }
    }
}

/// An entry of the table behind the header.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) kind: u32,
    pub(super) unused: u32,
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// BLAKE3 of the bytes and of the padding behind them; zeros of the rows, whose blocks have
    /// hashes of their own.
    pub(super) hash: [u8; 32],
}

impl Entry {
    /// Bytes with the padding behind them.
    fn padded(&self) -> Option<usize> {
        usize::try_from(self.bytes)
            .ok()?
            .checked_next_multiple_of(ALIGN)
    }
}

/// The sections of a mapped file, all checked but the rows.
pub(super) struct Sections {
    map: Arc<Mmap>,
    table: Vec<Entry>,
    pub(super) generation: u64,
    pub(super) head: [u8; 32],
}

impl Sections {
    pub(super) fn open(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() < size_of::<Header>() as u64 {
            return Err(cut());
        }
        let map = column::map(file)?;
        let head = map.get(..size_of::<Header>()).ok_or_else(cut)?;
        let header: Header = bytemuck::pod_read_unaligned(head);
        if header.magic != MAGIC || header.version != VERSION || cfg!(target_endian = "big") {
            return Err(bad("it is of another version, or no index file"));
        }
        if header.sections > MAX_SECTIONS {
            return Err(unfit());
        }
        let count = header.sections as usize;
        let end = size_of::<Header>() + count * size_of::<Entry>();
        let first = first_section(count);
        let (head, rest) = map.get(..first).ok_or_else(cut)?.split_at(end);
        let (hash, padding) = rest.split_at(blake3::OUT_LEN);
        let head_hash = hash_head(head);
        if head_hash != *hash || padding.iter().any(|byte| *byte != 0) {
            return Err(damaged());
        }
        let entries = head[size_of::<Header>()..].chunks_exact(size_of::<Entry>());
        let table: Vec<Entry> = entries.map(bytemuck::pod_read_unaligned).collect();
        let mut at = first;
        for entry in &table {
            let padded = entry.padded().ok_or_else(unfit)?;
            let next = at.checked_add(padded).ok_or_else(unfit)?;
            let section = map.get(at..next).ok_or_else(cut)?;
            if entry.start != at as u64 {
                return Err(unfit());
            }
            let is_checked_later = entry.kind == kind::ROWS;
            let hash = || blake3::Hasher::new().update_rayon(section).finalize();
            if !is_checked_later && hash() != entry.hash {
                return Err(damaged());
            }
            at = next;
        }
        if at != map.len() {
            return Err(bad("it is too long"));
        }
        Ok(Self {
            map,
            table,
            generation: header.generation,
            head: head_hash,
        })
    }

    fn entry(&self, kind: u32) -> io::Result<&Entry> {
        let entry = self.table.iter().find(|entry| entry.kind == kind);
        entry.ok_or_else(unfit)
    }

    /// Whether there is such a section.
    pub(super) fn has(&self, kind: u32) -> bool {
        self.table.iter().any(|entry| entry.kind == kind)
    }

    pub(super) fn get<T: Pod>(&self, kind: u32) -> io::Result<Column<T>> {
        let entry = self.entry(kind)?;
        Column::mapped(&self.map, entry.start as usize, entry.bytes as usize).ok_or_else(unfit)
    }

    /// Where a section lies in the file.
    pub(super) fn source(&self, kind: u32, file: File) -> io::Result<Source> {
        let entry = self.entry(kind)?;
        let padded = entry.padded().ok_or_else(unfit)?;
        let section = Column::mapped(&self.map, entry.start as usize, padded);
        Ok(Source {
            section: section.ok_or_else(unfit)?,
            bytes: entry.bytes as usize,
            file,
            start: entry.start,
        })
    }
}

/// Hash of header and table.
pub(super) fn hash_head(head: &[u8]) -> [u8; 32] {
    *blake3::hash(head).as_bytes()
}

/// Where the first section starts: behind the header, the table and the hash of both.
pub(super) fn first_section(sections: usize) -> usize {
    let head = size_of::<Header>() + sections * size_of::<Entry>() + blake3::OUT_LEN;
    head.next_multiple_of(ALIGN)
}

pub(super) fn padding(bytes: usize) -> &'static [u8] {
    &[0; ALIGN][..bytes.next_multiple_of(ALIGN) - bytes]
}

fn cut() -> io::Error {
    bad("it is cut short")
}

fn damaged() -> io::Error {
    bad("its checksum does not fit")
}

pub(super) fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

pub(super) fn unfit() -> io::Error {
    bad("its parts do not fit together")
}
