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
        assert!(read(&path, "b", 4).is_err(), "another shard");
        assert!(read(&path, "a", 5).is_err(), "another dim");
    }
}

#[test]
fn a_segment_answers_alike_from_its_file_and_from_memory() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    write(&path, "a", &segment(0)).expect("writes");
    for limit in [None, Some(0)] {
        let back = read(&path, "a", 4).expect("reads").expect("is there");
        let settled = back.settled(&crate::budget::Budget::new(limit));
        let expected = segment(0);
        let graph = |segment: &Segment| segment.graph().map(Hnsw::graph).cloned();
        assert_eq!(graph(&settled), graph(&expected));
        assert_eq!(settled.coded().codes(), expected.coded().codes());
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

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.idx");
    // A folder in the way of the name: everything but the last step succeeds.
    fs::create_dir_all(path.join("full")).expect("makes it");
    assert!(write(&path, "a", &segment(0)).is_err());
    let left: Vec<_> = fs::read_dir(dir.path()).expect("lists").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
