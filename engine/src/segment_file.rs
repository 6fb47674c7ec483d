//! A segment as a file, mapped when it is read; `docs/format.md` describes the format. Derived: a
//! file that does not read back is built again from the store.
//!
//! When a file is opened, everything in it is checked but the rows themselves: ids, stamps and codes
//! are read through; links, and the codes that walks compare, are copied into memory of their own
//! afterwards. Rows are three quarters of a file and are checked block by block (`index/blocks.rs`),
//! each before a row of it is used.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod sections;

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err::{self as fs, File};
use rayon::prelude::*;
use sections::{Entry, Header, Sections, bad, first_section, hash_head, kind, padding, unfit};

use crate::{
    background,
    index::{
        BlockHash, Blocks, CodeRows, Coded, Codes, Graph, Hnsw, Layer, Lists, Rows, ShortCodes,
        block_bytes,
    },
    record::Stamp,
    segment::{Ids, Segment},
    shard::ShardKey,
    store::sync_names,
};

/// Extension of a file of a segment.
const WHOLE: &str = "idx";
/// Extension of a file that is not whole yet.
const ASIDE: &str = "tmp";

/// Bytes that are written in one go.
const WRITE_BYTES: usize = 1 << 20;

/// What a file must be: whose it is, which of its shard's seals it is of, and the dim of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) owner: &'a str,
    pub(crate) generation: u64,
    pub(crate) dim: usize,
}

/// A segment from a file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) segment: Segment,
    /// Hash of the file's head, which has the checksums of everything else.
    pub(crate) head: [u8; 32],
}

/// File of a shard's seal in the folder of its collection.
pub(crate) fn path(dir: &Path, shard: ShardKey, generation: u64) -> PathBuf {
    dir.join(format!("{shard}-{generation}.{WHOLE}"))
}

/// Writes the segment aside, and then puts it in place in one step. On return the file is durable,
/// and so is its name.
pub(crate) fn write(path: &Path, wanted: &Wanted<'_>, segment: &Segment) -> io::Result<()> {
    if cfg!(target_endian = "big") {
        return Err(bad("files are kept on little-endian machines only"));
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let aside = path.with_extension(ASIDE);
    let written = write_aside(&aside, wanted, segment)
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| sync_names(dir));
    if written.is_err() {
        // What is left of it may be what fills the disk.
        remove(&aside);
    }
    written
}

/// Removes files of segments that are not among the good ones from the folder `dir`: what seals
/// that a stop cut off have left, before or after they were done.
pub(crate) fn remove_others(dir: &Path, good: &[PathBuf]) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = [ASIDE, WHOLE].map(Some);
        let is_ours = ours.contains(&path.extension().and_then(|extension| extension.to_str()));
        if is_ours && !good.contains(&path) {
            remove(&path);
        }
    }
}

/// Removes a file that is not needed any more. One that stays does no harm.
pub(crate) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("cannot remove an index that is not needed: {error}"),
    }
}

fn write_aside(aside: &Path, wanted: &Wanted<'_>, segment: &Segment) -> io::Result<()> {
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
    let rows: &[u8] = bytemuck::cast_slice(segment.rows.data());
    let blocks = block_hashes(rows, codes.dim);
    let mut sections: Vec<(u32, &[u8])> = vec![
        (kind::OWNER, wanted.owner.as_bytes()),
        (kind::SHAPE, bytemuck::cast_slice(&shape)),
        (kind::ID_OFFSETS, bytemuck::cast_slice(offsets)),
        (kind::ID_BYTES, ids),
        (kind::STAMPS, bytemuck::cast_slice(&segment.stamps)),
        (kind::ROWS, rows),
        (kind::MEAN, bytemuck::cast_slice(&codes.mean)),
        (kind::SCALE, bytemuck::cast_slice(&scale)),
        (kind::CODES, bytemuck::cast_slice(codes.rows.data())),
        (kind::RESTS, bytemuck::cast_slice(&codes.rests)),
        (kind::MEMBER_OFFSETS, bytemuck::cast_slice(&members.offsets)),
        (kind::MEMBER_TARGETS, bytemuck::cast_slice(&members.targets)),
        (kind::ROW_BLOCKS, bytemuck::cast_slice(&blocks)),
    ];
    let short = segment.graph().and_then(Hnsw::short);
    if let Some((directions, units, rows)) = short.map(ShortCodes::parts) {
        sections.push((kind::SHORT_DIRECTIONS, bytemuck::cast_slice(directions)));
        sections.push((kind::SHORT_UNITS, bytemuck::cast_slice(units)));
        sections.push((kind::SHORT_CODES, bytemuck::cast_slice(rows)));
    }
    let links = layers
        .iter()
        .map(|layer| bytemuck::cast_slice(&layer.links));
    sections.extend((kind::LAYERS..).zip(links));

    let mut start = first_section(sections.len());
    let mut table = Vec::with_capacity(sections.len());
    for (kind, bytes) in &sections {
        let hash = if *kind == kind::ROWS {
            [0; 32]
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update_rayon(bytes).update(padding(bytes.len()));
            *hasher.finalize().as_bytes()
        };
        table.push(Entry {
            kind: *kind,
            unused: 0,
            start: start as u64,
            bytes: bytes.len() as u64,
            hash,
        });
        start += bytes.len() + padding(bytes.len()).len();
    }
    let header = Header::new(sections.len(), wanted.generation);
    let mut head = bytemuck::bytes_of(&header).to_vec();
    head.extend_from_slice(bytemuck::cast_slice(&table));
    let hash = hash_head(&head);
    head.extend_from_slice(&hash);
    head.resize(first_section(sections.len()), 0);

    let mut out = BufWriter::new(File::create(aside)?);
    out.write_all(&head)?;
    for (_, bytes) in sections {
        for part in bytes.chunks(WRITE_BYTES) {
            background::stops();
            out.write_all(part)?;
        }
        out.write_all(padding(bytes.len()))?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()
}

/// Hashes of the blocks of rows; the padding belongs to the last one.
fn block_hashes(rows: &[u8], dim: usize) -> Vec<BlockHash> {
    let blocks = rows.par_chunks(block_bytes(dim)).enumerate();
    let last = rows.len().div_ceil(block_bytes(dim)).saturating_sub(1);
    let hash = |(i, block)| {
        background::stops();
        let mut hasher = blake3::Hasher::new();
        hasher.update(block);
        if i == last {
            hasher.update(padding(rows.len()));
        }
        *hasher.finalize().as_bytes()
    };
    blocks.map(hash).collect()
}

/// Reads a segment. Everything but its rows is checked now; afterwards the system brings in what
/// searches touch.
///
/// # Errors
/// When the file cannot be read, is damaged, or is not the wanted one.
pub(crate) fn read(path: &Path, wanted: &Wanted<'_>) -> io::Result<Opened> {
    let file = File::open(path)?;
    let sections = Sections::open(&file)?;
    if *sections.get::<u8>(kind::OWNER)? != *wanted.owner.as_bytes() {
        return Err(bad("it belongs to another shard or model"));
    }
    if sections.generation != wanted.generation {
        return Err(bad("it is of another seal"));
    }
    let dim = wanted.dim;
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
    let source = sections.source(kind::ROWS, file)?;
    let blocks = Blocks::new(dim, sections.get(kind::ROW_BLOCKS)?, source).ok_or_else(unfit)?;
    let rows = Rows::from_file(dim, sections.get(kind::ROWS)?, blocks).ok_or_else(unfit)?;
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
        rows: CodeRows::new(dim, sections.get(kind::CODES)?).ok_or_else(unfit)?,
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
            let short = if sections.has(kind::SHORT_CODES) {
                let units = sections.get(kind::SHORT_UNITS)?;
                let directions = sections.get(kind::SHORT_DIRECTIONS)?;
                let rows = sections.get(kind::SHORT_CODES)?;
                Some(ShortCodes::from_parts(dim, directions, &units, rows).ok_or_else(unfit)?)
            } else {
                None
            };
            Some(Hnsw::from_graph(Arc::clone(&coded), short, graph).ok_or_else(unfit)?)
        }
        None => None,
    };
    Ok(Opened {
        segment: Segment::new(ids, stamps, coded, graph),
        head: sections.head,
    })
}

#[cfg(test)]
mod tests;
