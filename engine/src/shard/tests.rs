use std::num::NonZeroUsize;

use super::*;
use crate::{
    Score,
    index::{SearchParams, dot},
};

/// A stamp that differs for every number.
fn stamp(number: u32) -> Stamp {
    Stamp {
        embeddings: u64::from(number).to_le_bytes(),
        ordinal: number,
    }
}

fn unit(angle: f32) -> Embedding {
    Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("has a direction")
}

fn built(taken: &View) -> Segment {
    let config = EngineConfig {
        graph_rows: 0,
        ..EngineConfig::default()
    };
    Segment::build(taken.live_rows(), &config, &|| false).expect("nobody stops it")
}

fn ids(shard: &Shard) -> Vec<String> {
    let k = NonZeroUsize::new(100).expect("not zero");
    let params = SearchParams { ef_search: 8 };
    let mut ids: Vec<String> = shard
        .view
        .search(&unit(0.0), k, params, false)
        .into_iter()
        .map(|f| f.id)
        .collect();
    ids.sort();
    ids
}

#[test]
fn writes_during_a_seal_are_there_after_it() {
    let mut shard = Shard::loaded(Segment::empty(2), Standing::default());
    for (i, id) in ["e", "d", "c", "b", "a"].into_iter().enumerate() {
        shard.insert(id, stamp(i as u32), &unit(i as f32));
    }
    shard.remove("e");
    let first = shard.begin_seal();
    let first_segment = built(&first);
    shard.remove("d");
    shard.insert("c", stamp(12), &unit(2.5));
    shard.insert("f", stamp(13), &unit(0.5));
    shard.insert("g", stamp(14), &unit(0.6));
    shard.remove("g");
    shard.insert("e", stamp(15), &unit(0.7));
    let before = ids(&shard);
    assert_eq!(before, ["a", "b", "c", "e", "f"]);
    let held = shard.view.clone();
    shard.end_seal(&first, Some((first_segment, Standing::default())));
    assert_eq!(ids(&shard), before);
    assert_eq!((shard.view.sealed.len(), shard.live()), (4, 5));
    assert_eq!(
        held.rows(),
        9,
        "a search under way keeps what it began with"
    );

    shard.insert("b", stamp(16), &unit(1.0));
    shard.remove("f");
    let second = shard.begin_seal();
    shard.end_seal(&second, None);
    assert_eq!(
        ids(&shard),
        ["a", "b", "c", "e"],
        "a seal that came to nothing changes nothing"
    );
    let second = shard.begin_seal();
    shard.end_seal(&second, Some((built(&second), Standing::default())));
    assert!(shard.is_sealed());
    assert_eq!(ids(&shard), ["a", "b", "c", "e"]);
    let row = shard.find("c").expect("is there");
    assert_eq!(
        (shard.view.stamp(row), shard.view.row(row)),
        (stamp(12), unit(2.5).as_slice())
    );
}

#[test]
fn an_unchanged_item_keeps_its_row_and_a_changed_one_leaves_a_tombstone() {
    let mut shard = Shard::loaded(Segment::empty(2), Standing::default());
    shard.insert("a", stamp(1), &unit(1.0));
    shard.insert("a", stamp(1), &unit(1.0));
    assert_eq!((shard.view.rows(), shard.view.dead.ones()), (1, 0));
    shard.insert("a", stamp(2), &unit(2.0));
    assert_eq!((shard.view.rows(), shard.view.dead.ones()), (2, 1));
    assert_eq!(ids(&shard), ["a"]);
}

#[test]
fn only_rows_that_the_store_still_holds_come_alive_from_a_file() {
    let mut shard = Shard::loaded(Segment::empty(2), Standing::default());
    for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
        shard.insert(id, stamp(i as u32), &unit(i as f32));
    }
    let mut stale = Shard::loaded(built(&shard.begin_seal()), Standing::default());
    stale.distrust();
    let unread = || -> Result<Embedding, ()> { Err(()) };
    stale
        .restore("a", stamp(0), unread)
        .expect("its row is in the file");
    stale
        .restore("b", stamp(9), || Ok::<_, ()>(unit(9.0)))
        .expect("comes from the store");
    stale
        .restore("d", stamp(4), || Ok::<_, ()>(unit(4.0)))
        .expect("comes from the store");
    assert_eq!(ids(&stale), ["a", "b", "d"]);
    assert_eq!(
        (stale.view.sealed.len(), stale.view.rows(), stale.live()),
        (3, 5, 3)
    );
}

#[test]
fn a_long_tail_is_searched_exactly_around_its_dead_rows() {
    let rows = crate::index::clustered(700, 24, 9, 3, 5);
    let row = |i: usize| Embedding::new(rows.row(i).to_vec()).expect("rows are unit");
    let mut shard = Shard::loaded(Segment::empty(24), Standing::default());
    let insert = |shard: &mut Shard, i: usize| {
        shard.insert(&format!("{i:03}"), stamp(i as u32), &row(i));
    };
    // Two pieces are full; one of them has codes, which may come after rows were removed.
    (0..600).for_each(|i| insert(&mut shard, i));
    let full = shard.full_pieces();
    assert_eq!(full.len(), 2);
    (600..rows.len()).for_each(|i| insert(&mut shard, i));
    for i in (0..rows.len()).step_by(3) {
        shard.remove(&format!("{i:03}"));
    }
    for _ in 0..2 {
        // The second time nothing is left to do.
        shard.adopt_codes(&full[1], full[1].codes());
    }
    let coded = |piece: &&Piece| matches!(piece.chunk.rows, ChunkRows::Coded(_));
    assert_eq!(shard.view.tail.iter().filter(coded).count(), 1);
    assert_eq!(shard.full_pieces().len(), 1);
    assert!(shard.view.tail[1..].iter().any(|piece| coded(&piece)));
    let matching = |i: &usize| !i.is_multiple_of(5);
    let ordinals = (0..700_u32).filter(|i| !i.is_multiple_of(5)).collect();
    let alive: Vec<usize> = (0..rows.len()).filter(|i| i % 3 != 0).collect();
    let params = SearchParams { ef_search: 1 };
    for at in [1, 300, 555, 699] {
        let query = row(at);
        let mut expected: Vec<Found<String>> = alive
            .iter()
            .map(|i| Found {
                score: Score(dot(query.as_slice(), rows.row(*i))),
                id: format!("{i:03}"),
                row: *i,
            })
            .collect();
        expected.sort_by(Found::rank);
        for k in [1, 7, 300, 1000] {
            let count = NonZeroUsize::new(k).expect("not zero");
            let found = shard.view.search(&query, count, params, false);
            assert_eq!(found, expected[..k.min(expected.len())], "k = {k}");
            let wanted = Wanted {
                query: &query,
                k: count,
                params,
                exact: false,
                matching: &ordinals,
                explain: false,
            };
            let found = shard.view.search_matching(&wanted, String::new()).found;
            let passing = expected.iter().filter(|found| matching(&found.row));
            let passing: Vec<Found<String>> = passing.take(k).cloned().collect();
            assert_eq!(found, passing, "k = {k}, filtered");
        }
    }
}

#[test]
fn a_mark_is_needed_exactly_where_the_kept_segment_is_not_what_the_shard_holds() {
    let mut shard = Shard::loaded(Segment::empty(2), Standing::default());
    for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
        shard.insert(id, stamp(i as u32), &unit(i as f32));
    }
    assert!(shard.needs_mark("z"), "the store knows no segment");
    let taken = shard.begin_seal();
    let kept = Standing {
        generation: 1,
        kept: true,
    };
    shard.insert("b", stamp(7), &unit(0.7));
    shard.standing.kept = true;
    assert!(
        shard.needs_mark("z"),
        "what the seal took up is not known here"
    );
    shard.end_seal(&taken, Some((built(&taken), kept)));
    shard.remove("c");
    shard.insert("d", stamp(8), &unit(0.8));
    shard.insert("e", stamp(9), &unit(0.9));
    shard.remove("e");
    let needed = ["a", "b", "c", "d", "e"].map(|id| shard.needs_mark(id));
    assert_eq!(needed, [false, true, true, true, false]);
    let mut changed: Vec<&str> = shard.view.changed_ids().collect();
    changed.sort_unstable();
    assert_eq!(changed, ["b", "b", "c", "d", "e"]);
    let changes = |id, of: Option<u32>| shard.changes(id, of.map(stamp));
    assert!(!changes("a", Some(0)) && changes("a", Some(1)) && changes("a", None));
    assert!(!changes("z", None) && changes("z", Some(1)));
}
