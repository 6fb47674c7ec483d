//! Rows in a mapped file, checked block by block: each when a row of it is first read, and all of
//! them in the background. They are most of a file, and a search reads few of them, so an open does
//! not wait for them; and no row is used that was not checked.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    sync::atomic::{
        AtomicBool, AtomicU8,
        Ordering::{Acquire, Release},
    },
};

use fs_err::File;
use parking_lot::Mutex;

use crate::column::Column;

/// About the bytes of a block: a read of this size takes hardly longer than that of a row, and its
/// hash a few microseconds.
const BLOCK_BYTES: usize = 64 << 10;

const UNKNOWN: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;

/// BLAKE3 of a block.
pub(crate) type BlockHash = [u8; blake3::OUT_LEN];

/// Rows of `dim` numbers in a block: a power of two, so that a row's block is quickly found.
fn block_rows(dim: usize) -> usize {
    let rows = BLOCK_BYTES / (dim * size_of::<f32>());
    1 << rows.max(1).ilog2()
}

/// Bytes of a block; the last one may have fewer, and the padding.
pub(crate) fn block_bytes(dim: usize) -> usize {
    block_rows(dim) * dim * size_of::<f32>()
}

/// Where rows lie.
#[derive(Debug)]
pub(crate) struct Source {
    /// The rows and the padding behind them, in the map.
    pub(crate) section: Column<u8>,
    /// Bytes of the rows.
    pub(crate) bytes: usize,
    /// The same in the file, for readers who do not want it in the map.
    pub(crate) file: File,
    /// Where in the file.
    pub(crate) start: u64,
}

/// What is known of the blocks of a file's rows.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Binary logarithm of the rows of a block.
    shift: u32,
    /// Bytes of a block.
    size: usize,
    hashes: Column<BlockHash>,
    section: Column<u8>,
    file: Mutex<File>,
    start: u64,
    states: Vec<AtomicU8>,
    any_bad: AtomicBool,
}

impl Blocks {
    /// Nothing is known yet. `None` when there is not one hash for each block.
    pub(crate) fn new(dim: usize, hashes: Column<BlockHash>, source: Source) -> Option<Self> {
        let size = block_bytes(dim);
        let states = hashes.iter().map(|_| AtomicU8::new(UNKNOWN)).collect();
        (hashes.len() == source.bytes.div_ceil(size)).then_some(Self {
            shift: block_rows(dim).ilog2(),
            size,
            hashes,
            section: source.section,
            file: Mutex::new(source.file),
            start: source.start,
            states,
            any_bad: AtomicBool::new(false),
        })
    }

    /// Has the block of a row checked before the row is used.
    #[inline(always)]
    pub(crate) fn meet(&self, row: usize) {
        let block = row >> self.shift;
        if self.states[block].load(Acquire) == UNKNOWN {
            self.check_mapped(block);
        }
    }

    #[cold]
    fn check_mapped(&self, block: usize) {
        let hash = blake3::hash(&self.section[self.place(block)]);
        self.note(block, hash == self.hashes[block]);
    }

    /// Where a block lies in the section. The padding belongs to the last one.
    fn place(&self, block: usize) -> Range<usize> {
        let start = block * self.size;
        if block + 1 == self.states.len() {
            start..self.section.len()
        } else {
            start..start + self.size
        }
    }

    fn note(&self, block: usize, good: bool) {
        if !good {
            // Before the state: whoever sees that a block is known must see this, too.
            self.any_bad.store(true, Release);
        }
        let state = if good { GOOD } else { BAD };
        self.states[block].store(state, Release);
    }

    /// Checks one more block that nobody has met, from the first one at or after `from`. Gives where
    /// to go on; `None` when all are known. Reads the file and not the map, so that what nobody
    /// searches takes no memory; a block that cannot be read is a bad one.
    pub(crate) fn check_next(&self, from: usize, buffer: &mut Vec<u8>) -> Option<usize> {
        let unknown = |block: &usize| self.states[*block].load(Acquire) == UNKNOWN;
        let block = (from..self.states.len()).find(unknown)?;
        let place = self.place(block);
        buffer.resize(place.len(), 0);
        let mut read = || -> io::Result<()> {
            let mut file = self.file.lock();
            file.seek(SeekFrom::Start(self.start + place.start as u64))?;
            file.read_exact(buffer)
        };
        let good = match read() {
            Ok(()) => blake3::hash(buffer) == self.hashes[block],
            Err(error) => {
                tracing::warn!("rows of an index cannot be read: {error}");
                false
            }
        };
        self.note(block, good);
        Some(block + 1)
    }

    /// Whether the block of a row is known to be bad.
    pub(crate) fn is_bad(&self, row: usize) -> bool {
        self.states[row >> self.shift].load(Acquire) == BAD
    }

    /// The rows of blocks that are known to be bad, out of `rows` in all.
    pub(crate) fn bad_rows(&self, rows: usize) -> impl Iterator<Item = usize> + '_ {
        let bad = |block: &usize| self.states[*block].load(Acquire) == BAD;
        let blocks = if self.any_bad.load(Acquire) {
            self.states.len()
        } else {
            0
        };
        (0..blocks).filter(bad).flat_map(move |block| {
            let first = block << self.shift;
            first..rows.min(first + (1 << self.shift))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column;

    #[test]
    fn a_bad_block_is_noticed_by_a_reader_and_by_the_background_and_no_other_is() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("rows");
        let (dim, rows) = (512, 150);
        let mut bytes = vec![7; rows * dim * 4];
        let hashes: Vec<BlockHash> = bytes
            .chunks(block_bytes(dim))
            .map(|block| *blake3::hash(block).as_bytes())
            .collect();
        assert_eq!((hashes.len(), block_rows(dim)), (5, 32));
        bytes[70 * dim * 4] ^= 1;
        fs_err::write(&path, &bytes).expect("writes");
        let open = |hashes: &[BlockHash]| {
            let file = File::open(&path).expect("opens");
            let map = column::map(&file).expect("maps");
            let section = Column::mapped(&map, 0, bytes.len()).expect("lies inside");
            let source = Source {
                section,
                bytes: bytes.len(),
                file,
                start: 0,
            };
            Blocks::new(dim, hashes.to_vec().into(), source)
        };
        assert!(open(&hashes[1..]).is_none(), "a hash is missing");
        let bad = |blocks: &Blocks| blocks.bad_rows(rows).collect::<Vec<_>>();
        let blocks = open(&hashes).expect("fits");
        for row in (0..64).chain(96..rows) {
            blocks.meet(row);
        }
        assert_eq!(bad(&blocks), [0; 0]);
        blocks.meet(64);
        assert_eq!(bad(&blocks), (64..96).collect::<Vec<_>>());

        let blocks = open(&hashes).expect("fits");
        let (mut from, mut steps, mut buffer) = (0, 0, Vec::new());
        while let Some(next) = blocks.check_next(from, &mut buffer) {
            (from, steps) = (next, steps + 1);
        }
        assert_eq!((steps, bad(&blocks).len()), (5, 32));
    }

    #[test]
    fn blocks_hold_whole_rows_of_any_dim() {
        for dim in [1, 3, 512, 768, 16_384, 100_000] {
            let rows = block_rows(dim);
            assert!(rows.is_power_of_two());
            assert_eq!(block_bytes(dim), rows * dim * 4);
            assert!(rows == 1 || block_bytes(dim) <= BLOCK_BYTES, "dim {dim}");
        }
    }
}
