//! A segment as a file, mapped when it is read; `docs/format.md` describes the format. Derived: a
//! file that does not read back is built again from the store.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use bytemuck::{Pod, Zeroable};
use fs_err::{self as fs, File};
use memmap2::Mmap;

use crate::{
    column::{self, Column},
    index::{Coded, Codes, Graph, Hnsw, Layer, Lists, Rows},
    record::Stamp,
    segment::{Ids, Segment},
};

const MAGIC: [u8; 8] = *b"DIPTYIDX";
const VERSION: u32 = 2;
/// Sections start at multiples of this, so that numbers lie in a map as they do in memory, and
/// codes in whole cache lines.
const ALIGN: usize = 64;
/// Extension of a file that is not whole yet.
const ASIDE: &str = "tmp";
/// More sections than any segment has.
const MAX_SECTIONS: u32 = 64;

/// What a section holds.
mod kind {
    pub(super) const OWNER: u32 = 1;
    pub(super) const SHAPE: u32 = 2;
    pub(super) const ID_OFFSETS: u32 = 3;
    pub(super) const ID_BYTES: u32 = 4;
    pub(super) const STAMPS: u32 = 5;
    pub(super) const ROWS: u32 = 6;
    pub(super) const MEAN: u32 = 7;
    pub(super) const SCALE: u32 = 8;
    pub(super) const CODES: u32 = 9;
    pub(super) const RESTS: u32 = 10;
    pub(super) const MEMBER_OFFSETS: u32 = 11;
    pub(super) const MEMBER_TARGETS: u32 = 12;
    /// The lowest layer; those above have the numbers after it.
    pub(super) const LAYERS: u32 = 32;
}

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    sections: u32,
}

/// An entry of the table behind the header.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    kind: u32,
    unused: u32,
    start: u64,
    bytes: u64,
    /// BLAKE3 of the bytes and of the padding behind them.
    hash: [u8; 32],
}

/// Writes the segment of the shard named `owner` aside, and then puts it in place in one step.
pub(crate) fn write(path: &Path, owner: &str, segment: &Segment) -> io::Result<()> {
    if cfg!(target_endian = "big") {
        return Err(bad("files are kept on little-endian machines only"));
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let aside = path.with_extension(ASIDE);
    let written = write_aside(&aside, owner, segment).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // What is left of it may be what fills the disk.
        remove(&aside);
    }
    written
}

/// Removes what writes that a stop cut off have left in the folder `dir`.
pub(crate) fn remove_aside(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == ASIDE) {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("cannot remove half an index: {error}"),
    }
}

fn write_aside(aside: &Path, owner: &str, segment: &Segment) -> io::Result<()> {
    let (offsets, ids) = segment.ids.parts();
    let coded = segment.coded();
    let (codes, members) = (coded.codes(), coded.members());
    let layers: Vec<&Layer> = segment.graph().map_or_else(Vec::new, |graph| {
        let graph = graph.graph();
        std::iter::once(&graph.base).chain(&graph.upper).collect()
    });
    let mut shape = vec![codes.dim as u32];
    shape.extend(layers.iter().map(|layer| layer.width as u32));
    let scale = [codes.step, codes.span];
    let mut sections: Vec<(u32, &[u8])> = vec![
        (kind::OWNER, owner.as_bytes()),
        (kind::SHAPE, bytemuck::cast_slice(&shape)),
        (kind::ID_OFFSETS, bytemuck::cast_slice(offsets)),
        (kind::ID_BYTES, ids),
        (kind::STAMPS, bytemuck::cast_slice(&segment.stamps)),
        (kind::ROWS, bytemuck::cast_slice(segment.rows.data())),
        (kind::MEAN, bytemuck::cast_slice(&codes.mean)),
        (kind::SCALE, bytemuck::cast_slice(&scale)),
        (kind::CODES, bytemuck::cast_slice(&codes.rows)),
        (kind::RESTS, bytemuck::cast_slice(&codes.rests)),
        (kind::MEMBER_OFFSETS, bytemuck::cast_slice(&members.offsets)),
        (kind::MEMBER_TARGETS, bytemuck::cast_slice(&members.targets)),
    ];
    let links = layers
        .iter()
        .map(|layer| bytemuck::cast_slice(&layer.links));
    sections.extend((kind::LAYERS..).zip(links));

    let mut start = first_section(sections.len());
    let mut table = Vec::with_capacity(sections.len());
    for (kind, bytes) in &sections {
        let mut hasher = blake3::Hasher::new();
        hasher.update_rayon(bytes).update(padding(bytes.len()));
        table.push(Entry {
            kind: *kind,
            unused: 0,
            start: start as u64,
            bytes: bytes.len() as u64,
            hash: *hasher.finalize().as_bytes(),
        });
        start += bytes.len().next_multiple_of(ALIGN);
    }
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        sections: sections.len() as u32,
    };
    let mut head = bytemuck::bytes_of(&header).to_vec();
    head.extend_from_slice(bytemuck::cast_slice(&table));
    let hash = blake3::hash(&head);
    head.extend_from_slice(hash.as_bytes());
    head.resize(first_section(sections.len()), 0);

    let mut out = BufWriter::new(File::create(aside)?);
    out.write_all(&head)?;
    for (_, bytes) in sections {
        out.write_all(bytes)?;
        out.write_all(padding(bytes.len()))?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()
}

/// Reads the segment of the shard named `owner`, with rows of `dim`; `None` when there is no file.
/// Every byte is checked now; afterwards the system brings in what searches touch.
///
/// # Errors
/// When the file cannot be read, is damaged, or belongs to another shard.
pub(crate) fn read(path: &Path, owner: &str, dim: usize) -> io::Result<Option<Segment>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() < size_of::<Header>() as u64 {
        return Err(bad("it is cut short"));
    }
    let sections = Sections::open(&file)?;
    if *sections.get::<u8>(kind::OWNER)? != *owner.as_bytes() {
        return Err(bad("it belongs to another shard or model"));
    }
    let shape = sections.get::<u32>(kind::SHAPE)?;
    let (file_dim, widths) = shape.split_first().ok_or_else(unfit)?;
    if *file_dim != dim as u32 {
        return Err(unfit());
    }
    let ids = Ids::from_parts(
        sections.get(kind::ID_OFFSETS)?,
        sections.get(kind::ID_BYTES)?,
    );
    let ids = ids.ok_or_else(unfit)?;
    let stamps = sections.get::<Stamp>(kind::STAMPS)?;
    let rows = Rows::from_data(dim, sections.get(kind::ROWS)?).ok_or_else(unfit)?;
    if ids.len() != rows.len() || stamps.len() != rows.len() {
        return Err(unfit());
    }
    let [step, span] = sections.get::<f32>(kind::SCALE)?[..] else {
        return Err(unfit());
    };
    let codes = Codes {
        dim,
        mean: sections.get::<f32>(kind::MEAN)?.to_vec(),
        step,
        span,
        rows: sections.get(kind::CODES)?,
        rests: sections.get(kind::RESTS)?,
    };
    let members = Lists {
        offsets: sections.get(kind::MEMBER_OFFSETS)?,
        targets: sections.get(kind::MEMBER_TARGETS)?,
    };
    let coded = Coded::from_parts(Arc::new(rows), codes, members).ok_or_else(unfit)?;
    let coded = Arc::new(coded);
    let layers = (kind::LAYERS..).zip(widths).map(|(kind, width)| {
        let (width, links) = (*width as usize, sections.get(kind)?);
        Ok(Layer { width, links })
    });
    let mut layers = layers.collect::<io::Result<Vec<_>>>()?.into_iter();
    let graph = match layers.next() {
        Some(base) => {
            let upper = layers.collect();
            let graph = Graph { base, upper };
            Some(Hnsw::from_graph(Arc::clone(&coded), graph).ok_or_else(unfit)?)
        }
        None => None,
    };
    Ok(Some(Segment::new(ids, stamps, coded, graph)))
}

/// The sections of a mapped file, all checked.
struct Sections {
    map: Arc<Mmap>,
    table: Vec<Entry>,
}

impl Sections {
    fn open(file: &File) -> io::Result<Self> {
        let map = column::map(file)?;
        let cut = || bad("it is cut short");
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
        if blake3::hash(head) != *hash || padding.iter().any(|byte| *byte != 0) {
            return Err(bad("its checksum does not fit"));
        }
        let entries = head[size_of::<Header>()..].chunks_exact(size_of::<Entry>());
        let table: Vec<Entry> = entries.map(bytemuck::pod_read_unaligned).collect();
        let mut at = first;
        for entry in &table {
            let bytes = usize::try_from(entry.bytes).map_err(|_| unfit())?;
            let padded = bytes.checked_next_multiple_of(ALIGN).ok_or_else(unfit)?;
            let next = at.checked_add(padded).ok_or_else(unfit)?;
            let section = map.get(at..next).ok_or_else(cut)?;
            if entry.start != at as u64 {
                return Err(unfit());
            }
            if blake3::Hasher::new().update_rayon(section).finalize() != entry.hash {
                return Err(bad("its checksum does not fit"));
            }
            at = next;
        }
        if at != map.len() {
            return Err(bad("it is too long"));
        }
        Ok(Self { map, table })
    }

    fn get<T: Pod>(&self, kind: u32) -> io::Result<Column<T>> {
        let entry = self.table.iter().find(|entry| entry.kind == kind);
        let entry = entry.ok_or_else(unfit)?;
        Column::mapped(&self.map, entry.start as usize, entry.bytes as usize).ok_or_else(unfit)
    }
}

/// Where the first section starts: behind the header, the table and the hash of both.
fn first_section(sections: usize) -> usize {
    let head = size_of::<Header>() + sections * size_of::<Entry>() + blake3::OUT_LEN;
    head.next_multiple_of(ALIGN)
}

fn padding(bytes: usize) -> &'static [u8] {
    &[0; ALIGN][..bytes.next_multiple_of(ALIGN) - bytes]
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn unfit() -> io::Error {
    bad("its parts do not fit together")
}

#[cfg(test)]
mod tests;
