//! A segment as a file. Derived: a file that does not read back is built again from the store.
//!
//! ```text
//! "DIPTYIDX" | version u32 | lists | BLAKE3 of all before [32]
//! ```
//!
//! Each list is its length as `u64` and its elements, all little-endian: the name of what it
//! belongs to (u8), id offsets (u64), id bytes (u8), hashes of embeddings (8 bytes), ordinals (u32),
//! dim (u32, one), numbers (f32), and, where there is a graph, the entry node (u32, one), the node members' offsets and targets,
//! the lowest layer's offsets and targets, and for each upper layer its nodes, offsets and targets
//! (all u32).

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::Arc,
};

use fs_err::{self as fs, File};

use crate::{
    index::{Graph, Hnsw, Layer, Links, Rows},
    record::Stamp,
    segment::{Ids, Segment},
};

const MAGIC: &[u8; 12] = b"DIPTYIDX\x02\0\0\0";
const HASH_BYTES: u64 = 32;
/// Bytes converted at a time.
const BLOCK_BYTES: usize = 1 << 16;

/// Writes the segment of the shard named `owner` aside, and then puts it in place in one step.
pub(crate) fn write(path: &Path, owner: &str, segment: &Segment) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let aside = path.with_extension("tmp");
    let mut out = Writer {
        file: BufWriter::with_capacity(BLOCK_BYTES, File::create(&aside)?),
        hasher: blake3::Hasher::new(),
    };
    out.bytes(MAGIC)?;
    let (offsets, bytes) = segment.ids.parts();
    out.list(owner.as_bytes(), |b| [*b])?;
    out.list(offsets, |x| x.to_le_bytes())?;
    out.list(bytes, |b| [*b])?;
    out.list(&segment.stamps, |x| x.embeddings)?;
    out.list(&segment.stamps, |x| x.ordinal.to_le_bytes())?;
    out.u32s(&[segment.rows.dim() as u32])?;
    out.list(segment.rows.data(), |x| x.to_le_bytes())?;
    if let Some(graph) = segment.graph().map(Hnsw::graph) {
        out.u32s(&[graph.entry])?;
        out.links(&graph.members)?;
        out.links(&graph.base)?;
        for layer in &graph.upper {
            out.u32s(&layer.nodes)?;
            out.links(&layer.links)?;
        }
    }
    let hash = out.hasher.finalize();
    out.file.write_all(hash.as_bytes())?;
    let file = out
        .file
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    fs::rename(&aside, path)
}

struct Writer {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn list<T, const N: usize>(
        &mut self,
        list: &[T],
        to: impl Fn(&T) -> [u8; N],
    ) -> io::Result<()> {
        self.bytes(&(list.len() as u64).to_le_bytes())?;
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        for part in list.chunks(BLOCK_BYTES / N) {
            block.clear();
            for item in part {
                block.extend_from_slice(&to(item));
            }
            self.bytes(&block)?;
        }
        Ok(())
    }

    fn u32s(&mut self, list: &[u32]) -> io::Result<()> {
        self.list(list, |x| x.to_le_bytes())
    }

    fn links(&mut self, links: &Links) -> io::Result<()> {
        self.u32s(&links.offsets)?;
        self.u32s(&links.targets)
    }
}

/// Reads the segment of the shard named `owner`, with rows of `dim`; `None` when there is no file.
///
/// # Errors
/// When the file cannot be read, is damaged, or belongs to another shard.
pub(crate) fn read(path: &Path, owner: &str, dim: usize) -> io::Result<Option<Segment>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let left = file.metadata()?.len();
    let left = left
        .checked_sub(HASH_BYTES)
        .ok_or_else(|| bad("it is cut short"))?;
    let file = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut input = Reader {
        file,
        hasher: blake3::Hasher::new(),
        left,
    };
    let mut magic = [0; MAGIC.len()];
    input.bytes(&mut magic)?;
    if magic != *MAGIC {
        return Err(bad("it is of another version, or no index file"));
    }
    if input.list(u8::from_le_bytes)? != owner.as_bytes() {
        return Err(bad("it belongs to another shard or model"));
    }
    let ids = (
        input.list(u64::from_le_bytes)?,
        input.list(u8::from_le_bytes)?,
    );
    let embeddings = input.list(|bytes: [u8; 8]| bytes)?;
    let ordinals = input.u32s()?;
    let file_dim = input.u32s()?;
    let numbers = input.list(f32::from_le_bytes)?;
    let graph = if input.left > 0 {
        Some(input.graph()?)
    } else {
        None
    };
    // Nothing is believed before the hash has been compared.
    input.check_hash()?;
    let unfit = || bad("its parts do not fit together");
    if file_dim != [dim as u32] {
        return Err(unfit());
    }
    let ids = Ids::from_parts(ids.0, ids.1).ok_or_else(unfit)?;
    let rows = Rows::from_data(dim, numbers).ok_or_else(unfit)?;
    let lengths = [ids.len(), embeddings.len(), ordinals.len()];
    if lengths != [rows.len(); 3] {
        return Err(unfit());
    }
    let stamps = embeddings.into_iter().zip(ordinals);
    let stamps = stamps.map(|(embeddings, ordinal)| Stamp {
        embeddings,
        ordinal,
    });
    let rows = Arc::new(rows);
    let graph = match graph {
        Some(graph) => Some(Hnsw::from_graph(rows.clone(), graph).ok_or_else(unfit)?),
        None => None,
    };
    Ok(Some(Segment::new(ids, stamps.collect(), rows, graph)))
}

struct Reader {
    file: BufReader<File>,
    hasher: blake3::Hasher,
    /// Bytes before the hash.
    left: u64,
}

impl Reader {
    fn bytes(&mut self, to: &mut [u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(to.len() as u64)
            .ok_or_else(|| bad("it is cut short"))?;
        self.file.read_exact(to)?;
        self.hasher.update(to);
        Ok(())
    }

    fn list<T, const N: usize>(&mut self, from: impl Fn([u8; N]) -> T) -> io::Result<Vec<T>> {
        let mut length = [0; 8];
        self.bytes(&mut length)?;
        let length = u64::from_le_bytes(length);
        // A damaged length must not make us ask for more memory than the file could fill.
        if length
            .checked_mul(N as u64)
            .is_none_or(|bytes| bytes > self.left)
        {
            return Err(bad("it is cut short"));
        }
        let mut left = length as usize;
        let mut list = Vec::with_capacity(left);
        let mut block = vec![0; BLOCK_BYTES];
        while left > 0 {
            let part = left.min(BLOCK_BYTES / N);
            self.bytes(&mut block[..part * N])?;
            let (items, _) = block[..part * N].as_chunks::<N>();
            list.extend(items.iter().map(|item| from(*item)));
            left -= part;
        }
        Ok(list)
    }

    fn u32s(&mut self) -> io::Result<Vec<u32>> {
        self.list(u32::from_le_bytes)
    }

    fn links(&mut self) -> io::Result<Links> {
        Ok(Links {
            offsets: self.u32s()?,
            targets: self.u32s()?,
        })
    }

    fn graph(&mut self) -> io::Result<Graph> {
        let entry = self.u32s()?;
        let [entry] = entry[..] else {
            return Err(bad("its graph has no entry"));
        };
        let mut graph = Graph {
            entry,
            members: self.links()?,
            base: self.links()?,
            upper: Vec::new(),
        };
        while self.left > 0 {
            graph.upper.push(Layer {
                nodes: self.u32s()?,
                links: self.links()?,
            });
        }
        Ok(graph)
    }

    fn check_hash(mut self) -> io::Result<()> {
        let mut hash = [0; HASH_BYTES as usize];
        self.file.read_exact(&mut hash)?;
        if self.hasher.finalize() == hash {
            Ok(())
        } else {
            Err(bad("its checksum does not fit"))
        }
    }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;

    fn segment(graph_rows: usize) -> Segment {
        let mut ids = Ids::new();
        let mut rows = Rows::new(4);
        for i in 0..60 {
            ids.push(&format!("{i:03}"));
            rows.push(&[(i as f32).cos(), (i as f32).sin(), 0.0, 0.0]);
        }
        let stamp = |i: u32| Stamp {
            embeddings: u64::from(i).to_le_bytes(),
            ordinal: 59 - i,
        };
        let stamps = (0..60).map(stamp).collect();
        let config = EngineConfig {
            graph_rows,
            ..EngineConfig::default()
        };
        Segment::build((ids, stamps, rows), &config, &|| false).expect("nobody stops it")
    }

    #[test]
    fn a_segment_comes_back_as_it_was_written_with_and_without_a_graph() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("made/for/it/a.idx");
        assert!(
            read(&path, "a", 4).expect("nothing wrong").is_none(),
            "no file, no segment"
        );
        for graph_rows in [0, 100] {
            let segment = segment(graph_rows);
            write(&path, "a", &segment).expect("writes");
            let back = read(&path, "a", 4).expect("reads").expect("is there");
            assert_eq!((&back.ids, &back.stamps), (&segment.ids, &segment.stamps));
            assert!(back.by_ordinal().iter().rev().copied().eq(0..60));
            assert_eq!(back.rows, segment.rows);
            assert_eq!(
                back.graph().map(Hnsw::graph),
                segment.graph().map(Hnsw::graph)
            );
            assert_eq!(back.graph().is_some(), graph_rows == 0);
            assert!(read(&path, "b", 4).is_err(), "another shard");
            assert!(read(&path, "a", 5).is_err(), "another dim");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_has_a_flipped_bit_anywhere_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.idx");
        write(&path, "a", &segment(0)).expect("writes");
        let good = fs::read(&path).expect("reads");
        for i in (0..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[i] ^= 1 << (i % 8);
            fs::write(&path, flipped).expect("writes");
            assert!(read(&path, "a", 4).is_err(), "bit flipped in byte {i}");
            fs::write(&path, &good[..i]).expect("writes");
            assert!(read(&path, "a", 4).is_err(), "cut after byte {i}");
        }
        fs::write(&path, [&good[..], &good[..]].concat()).expect("writes");
        assert!(read(&path, "a", 4).is_err(), "too long");
    }
}
