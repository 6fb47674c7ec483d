//! Files of segments made of any bytes.

use std::{io::Write as _, sync::Arc};

use embedding::Embedding;
use roaring::RoaringBitmap;
use tempfile::NamedTempFile;

use super::{
    Entry, Header, Opened, Wanted, block_hashes, first_section, hash_head, kind, padding, read,
    sections::MAX_SECTIONS, write,
};
use crate::{
    budget::Budget,
    config::EngineConfig,
    filter::plan::{Estimate, Plan},
    index::{Hnsw, Rows, SearchParams, ShortCodes},
    record::Stamp,
    segment::{Ids, Segment},
    shard::{self, Found, Shard, Standing, View},
};

/// Longest rows that are searched; longer ones only take longer.
const MOST_DIM: u32 = 4096;
/// In the field that is not used, of the first entry: the hashes of rows are put right, too.
const HASH_ROWS: u32 = 1;

/// Opens the bytes as a file, and uses whatever opens.
pub(crate) fn run(bytes: &[u8]) {
    use_file(bytes);
    if let Some(repaired) = repaired(bytes) {
        use_file(&repaired);
    }
}

/// The same parts with their places and checksums put right, and as much as there is of the last.
fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let header: Header = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Header>())?);
    let count = header.sections.min(MAX_SECTIONS) as usize;
    let table = bytes.get(size_of::<Header>()..)?;
    let table = table.get(..count * size_of::<Entry>())?;
    let entries = table.chunks_exact(size_of::<Entry>());
    let mut table: Vec<Entry> = entries.map(bytemuck::pod_read_unaligned).collect();
    let mut data = bytes.get(first_section(count)..)?;
    let mut parts: Vec<Vec<u8>> = Vec::with_capacity(count);
    let mut start = first_section(count);
    for entry in &mut table {
        let there = usize::try_from(entry.bytes).map_or(data.len(), |n| n.min(data.len()));
        let (part, rest) = data.split_at(there);
        data = rest.get(padding(there).len()..).unwrap_or_default();
        (entry.start, entry.bytes) = (start as u64, there as u64);
        start += there + padding(there).len();
        parts.push(part.to_vec());
    }
    let of = |wanted| table.iter().position(|entry| entry.kind == wanted);
    let hashes_rows = table.first().is_some_and(|e| e.unused & HASH_ROWS != 0);
    if hashes_rows && let (Some(rows), Some(blocks)) = (of(kind::ROWS), of(kind::ROW_BLOCKS)) {
        let hashes = block_hashes(&parts[rows], dim(&table, &parts) as usize);
        let hashes: &[u8] = bytemuck::cast_slice(&hashes);
        if hashes.len() == parts[blocks].len() {
            parts[blocks].copy_from_slice(hashes);
        }
    }
    for (entry, part) in table.iter_mut().zip(&parts) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(part).update(padding(part.len()));
        entry.hash = *hasher.finalize().as_bytes();
    }
    let header = Header::new(count, header.generation);
    let mut file = bytemuck::bytes_of(&header).to_vec();
    file.extend_from_slice(bytemuck::cast_slice(&table));
    let hash = hash_head(&file);
    file.extend_from_slice(&hash);
    file.resize(first_section(count), 0);
    for part in &parts {
        file.extend_from_slice(part);
        file.extend_from_slice(padding(part.len()));
    }
    Some(file)
}

/// The dim that the parts say, within bounds.
fn dim(table: &[Entry], parts: &[Vec<u8>]) -> u32 {
    let shape = table.iter().position(|entry| entry.kind == kind::SHAPE);
    let said = shape.and_then(|shape| parts.get(shape)?.first_chunk());
    said.map_or(1, |dim| u32::from_le_bytes(*dim))
        .clamp(1, MOST_DIM)
}

fn use_file(bytes: &[u8]) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("writes");
    let (owner, generation, dim) = said(bytes).unwrap_or_default();
    let wanted = Wanted {
        owner: &owner,
        generation,
        dim: dim as usize,
    };
    let Ok(Opened { segment, .. }) = read(file.path(), &wanted) else {
        return;
    };
    use_segment(segment, dim as usize);
    let Ok(Opened { segment, .. }) = read(file.path(), &wanted) else {
        panic!("a file that opened does not open again");
    };
    let again = NamedTempFile::new().expect("a temporary file");
    write(again.path(), &wanted, &segment).expect("writes");
    let back = read(again.path(), &wanted).expect("what was written opens");
    assert_eq!(back.segment.ids, segment.ids);
    assert_eq!(back.segment.stamps, segment.stamps);
    let settled = back.segment.settled(&Budget::new(None));
    use_segment(settled, dim as usize);
}

/// Whose file it says it is: a reader who wants another one looks no further.
fn said(bytes: &[u8]) -> Option<(String, u64, u32)> {
    let header: Header = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Header>())?);
    let count = header.sections.min(MAX_SECTIONS) as usize;
    let table = bytes.get(size_of::<Header>()..)?;
    let table = table.get(..count * size_of::<Entry>())?;
    let entries = table.chunks_exact(size_of::<Entry>());
    let table: Vec<Entry> = entries.map(bytemuck::pod_read_unaligned).collect();
    let part = |entry: &Entry| {
        let start = usize::try_from(entry.start).ok()?;
        let end = start.checked_add(usize::try_from(entry.bytes).ok()?)?;
        Some(bytes.get(start..end)?.to_vec())
    };
    let parts: Vec<Vec<u8>> = table.iter().map(|e| part(e).unwrap_or_default()).collect();
    let owner = table.iter().position(|entry| entry.kind == kind::OWNER)?;
    let owner = String::from_utf8(parts[owner].clone()).ok()?;
    Some((owner, header.generation, dim(&table, &parts)))
}

/// Everything that is done with a segment.
fn use_segment(segment: Segment, dim: usize) {
    let blocks = segment.rows.blocks().cloned();
    let rows = segment.len();
    let mut shard = Shard::loaded(segment, Standing::default());
    search(&shard.view, dim);
    for row in (0..rows).step_by(3) {
        let id = shard.view.id(row).to_owned();
        assert_eq!(shard.view.find_sealed(&id), Some(row), "ids are found");
        shard.remove(&id);
    }
    search(&shard.view, dim);
    let (ids, stamps, live) = shard.view.live_rows();
    assert_eq!((ids.len(), stamps.len()), (live.len(), live.len()));
    let (mut from, mut buffer) = (0, Vec::new());
    while let Some(next) = blocks
        .as_ref()
        .and_then(|b| b.check_next(from, &mut buffer))
    {
        from = next;
    }
    let bad = shard.view.bad_rows().count();
    assert!(bad <= rows, "{bad} of {rows} rows are bad");
}

fn search(view: &View, dim: usize) {
    let mut query = vec![1.0; dim];
    query[0] = 3.0;
    let query = Embedding::normalized(query).expect("it has a direction");
    let params = SearchParams { ef_search: 4 };
    let stamps = view.sealed_stamps().map(|stamp| stamp.ordinal);
    let some: RoaringBitmap = stamps.step_by(2).collect();
    for k in [1, 5, view.rows() + 1] {
        let k = k.try_into().expect("not zero");
        for exact in [true, false] {
            check(view, &view.search(&query, k, params, exact), k.get());
            let wanted = shard::Wanted {
                query: &query,
                k,
                params,
                exact,
                matching: &some,
                explain: true,
            };
            for plan in [Plan::ScanMatching, Plan::Graph, Plan::ScanAll] {
                let by = |estimate: &Estimate| estimate.by(plan);
                let answer = view.search_matching_by(&wanted, String::new(), by);
                check(view, &answer.found, k.get());
            }
        }
        for found in view.search_batch(&[&query, &query], k) {
            check(view, &found, k.get());
        }
    }
}

/// Whatever the file says, a search finds rows that there are, each once, and not too many.
fn check(view: &View, found: &[Found<String>], k: usize) {
    assert!(found.len() <= k, "{} of {k}", found.len());
    let mut rows: Vec<usize> = found.iter().map(|found| found.row).collect();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), found.len(), "each row once");
    for found in found {
        assert!(view.is_alive(found.row), "only rows that are alive");
        assert_eq!(view.id(found.row), found.id);
    }
}

/// Small files, of a graph, one with short codes, and of a scan, whose rows count as good and as
/// they are.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (segment, hashes_rows) in [
        (segment(24, 4), HASH_ROWS),
        (segment(9, 100), HASH_ROWS),
        (segment(9, 4), 0),
        (with_short_codes(segment(24, 4)), HASH_ROWS),
    ] {
        let file = NamedTempFile::new().expect("a temporary file");
        let wanted = Wanted {
            owner: "0/text-0-shared/00",
            generation: 1,
            dim: 3,
        };
        write(file.path(), &wanted, &segment).expect("writes");
        let mut bytes = fs_err::read(file.path()).expect("reads");
        bytes[size_of::<Header>() + 4] = hashes_rows as u8;
        seeds.push(bytes);
    }
    seeds
}

/// Rows of so few numbers have none by themselves.
fn with_short_codes(segment: Segment) -> Segment {
    let graph = segment.graph().expect("there are enough rows");
    let (nodes, dim) = (graph.coded().codes().len(), segment.rows.dim());
    let line = graph.coded().codes().rows.stride();
    let mut directions = vec![0; line * line];
    (0..dim).for_each(|i| directions[i * line + i] = 127);
    let short = graph.coded().codes().rows.data().to_vec();
    assert_eq!(short.len(), nodes * line);
    let units = vec![1.0 / 127.0; line];
    let short = ShortCodes::from_parts(dim, directions.into(), &units, short.into());
    let coded = Arc::clone(graph.coded());
    let graph = Hnsw::from_graph(Arc::clone(&coded), short, graph.graph().clone());
    Segment::new(segment.ids, segment.stamps, coded, graph)
}

fn segment(len: usize, graph_rows: usize) -> Segment {
    let (mut ids, mut rows) = (Ids::new(), Rows::new(3));
    for i in 0..len {
        ids.push(&format!("{i:02}"));
        // Some rows are equal.
        let angle = (i / 2) as f32;
        rows.push(&[angle.cos(), angle.sin(), 0.0]);
    }
    let stamp = |i: usize| Stamp {
        embeddings: (i as u64).to_le_bytes(),
        ordinal: (len - i) as u32,
    };
    let stamps: Vec<Stamp> = (0..len).map(stamp).collect();
    let mut config = EngineConfig {
        graph_rows,
        ..EngineConfig::default()
    };
    (config.hnsw.m, config.hnsw.ef_construction) = (2, 8);
    Segment::build((ids, stamps.into(), rows), &config, &|| false).expect("nobody stops it")
}
