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
    let stamps: Vec<Stamp> = (0..60).map(stamp).collect();
    let config = EngineConfig {
        graph_rows,
        ..EngineConfig::default()
    };
    Segment::build((ids, stamps.into(), rows), &config, &|| false).expect("nobody stops it")
}

fn wanted(owner: &str, generation: u64, dim: usize) -> Wanted<'_> {
    Wanted {
        owner,
        generation,
        dim,
    }
}

fn open(path: &Path) -> io::Result<Segment> {
    Ok(read(path, &wanted("a", 1, 4))?.segment)
}

/// Reads every row; whether all are good.
fn rows_are_good(segment: &Segment) -> bool {
    (0..segment.len()).for_each(|i| {
        segment.rows.row(i);
    });
    segment.rows.bad().next().is_none()
}

#[test]
fn a_segment_comes_back_as_it_was_written_with_and_without_a_graph() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("made/for/it/a.idx");
    let missing = open(&path).expect_err("there is no file");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    for graph_rows in [0, 100] {
        let segment = segment(graph_rows);
        write(&path, &wanted("a", 1, 4), &segment).expect("writes");
        let back = open(&path).expect("reads");
        assert_eq!((&back.ids, &back.stamps), (&segment.ids, &segment.stamps));
        let all = (0..60).collect();
        assert!(back.by_ordinal().find(&all).into_iter().rev().eq(0..60));
        assert_eq!(back.rows, segment.rows);
        assert_eq!(
            back.graph().map(Hnsw::graph),
            segment.graph().map(Hnsw::graph)
        );
        assert_eq!(back.coded().codes(), segment.coded().codes());
        assert_eq!(back.coded().members(), segment.coded().members());
        assert_eq!(back.graph().is_some(), graph_rows == 0);
        assert!(rows_are_good(&back));
        assert!(read(&path, &wanted("b", 1, 4)).is_err(), "another shard");
        assert!(read(&path, &wanted("a", 2, 4)).is_err(), "another seal");
        assert!(read(&path, &wanted("a", 1, 5)).is_err(), "another dim");
    }
}

#[test]
fn a_segment_answers_alike_from_its_file_and_from_memory() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    write(&path, &wanted("a", 1, 4), &segment(0)).expect("writes");
    for limit in [None, Some(0)] {
        let back = open(&path).expect("reads");
        let settled = back.settled(&crate::budget::Budget::new(limit));
        let expected = segment(0);
        let graph = |segment: &Segment| segment.graph().map(Hnsw::graph).cloned();
        assert_eq!(graph(&settled), graph(&expected));
        assert_eq!(settled.coded().codes(), expected.coded().codes());
    }
}

#[test]
fn a_cut_file_is_refused_and_a_flipped_bit_too_or_it_is_noticed_when_rows_are_read() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    write(&path, &wanted("a", 1, 4), &segment(0)).expect("writes");
    let good = fs::read(&path).expect("reads");
    let mut noticed_later = 0;
    for i in (0..good.len()).step_by(7) {
        let mut flipped = good.clone();
        flipped[i] ^= 1 << (i % 8);
        fs::write(&path, flipped).expect("writes");
        if let Ok(segment) = open(&path) {
            assert!(!rows_are_good(&segment), "bit flipped in byte {i}");
            noticed_later += 7;
        }
        fs::write(&path, &good[..i]).expect("writes");
        assert!(open(&path).is_err(), "cut after byte {i}");
    }
    let rows = 60 * 4 * 4;
    assert!(
        (rows - 7..rows + 64 + 7).contains(&noticed_later),
        "only rows are checked later: {noticed_later} bytes"
    );
    fs::write(&path, [&good[..], &good[..]].concat()).expect("writes");
    assert!(open(&path).is_err(), "too long");
}

#[test]
fn blocks_of_any_dim_have_their_hashes_and_the_padding_belongs_to_the_last() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    // Rows of the second fill their blocks, but not a multiple of 64 bytes.
    for (dim, len) in [(3, 5), (2001, 8), (2001, 9), (700, 100), (4, 0)] {
        let (mut ids, mut rows) = (Ids::new(), Rows::new(dim));
        for i in 0..len {
            ids.push(&format!("{i:03}"));
            rows.push(&vec![1.0 / (i + 1) as f32; dim]);
        }
        let stamp = |ordinal| Stamp {
            embeddings: [0; 8],
            ordinal,
        };
        let stamps: Vec<Stamp> = (0..len as u32).map(stamp).collect();
        let config = EngineConfig::default();
        let segment = Segment::build((ids, stamps.into(), rows), &config, &|| false);
        let segment = segment.expect("nobody stops it");
        write(&path, &wanted("a", 1, dim), &segment).expect("writes");
        let back = read(&path, &wanted("a", 1, dim)).expect("reads").segment;
        assert!(rows_are_good(&back), "{len} rows of {dim}");
        assert_eq!(back.rows, segment.rows);
    }
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    // A folder in the way of the name: everything but the last step succeeds.
    fs::create_dir_all(path.join("full")).expect("makes it");
    assert!(write(&path, &wanted("a", 1, 4), &segment(0)).is_err());
    let left: Vec<_> = fs::read_dir(dir.path()).expect("lists").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn short_codes_come_back_and_a_file_with_a_wrong_number_of_them_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    let rows = crate::index::along_few(300, 128, (10, 5), (1, 1));
    let mut ids = Ids::new();
    (0..300).for_each(|i| ids.push(&format!("{i:03}")));
    let stamps = vec![bytemuck::Zeroable::zeroed(); 300];
    let config = EngineConfig {
        graph_rows: 0,
        ..EngineConfig::default()
    };
    let segment =
        Segment::build((ids, stamps.into(), rows), &config, &|| false).expect("nobody stops it");
    let short = |segment: &Segment| segment.graph().and_then(Hnsw::short).cloned();
    assert!(short(&segment).is_some());
    write(&path, &wanted("a", 1, 128), &segment).expect("writes");
    let back = read(&path, &wanted("a", 1, 128)).expect("reads").segment;
    assert_eq!(short(&back), short(&segment));
    let (graph, coded) = (segment.graph().expect("there is one"), segment.coded());
    let fewer = short(&segment).map(|short| short.arranged(&[0, 1, 2]));
    let misfit = Hnsw::from_graph(Arc::new(coded.clone()), fewer, graph.graph().clone());
    assert!(misfit.is_none());
}
