//! What a search may ask for beside its nearest items.
//!
//! Over 400 lines: the tests share one small collection and the requests to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::{Cursor, GroupBy, Hit, Mix, Page, Part};

/// A row that follows from `content`, drawn towards another one.
fn near(content: &str, other: &str, share: f32) -> Embedding {
    let row = |content| item("x", Modality::Image, content).shared.into_vec();
    let rows = row(content).into_iter().zip(row(other));
    let mixed = rows.map(|(a, b)| (1.0 - share) * a + share * b);
    Embedding::normalized(mixed.collect()).expect("has a direction")
}

fn direction(i: usize) -> Embedding {
    along(&[(i, 1.0)])
}

/// A row with these numbers at these places.
fn along(numbers: &[(usize, f32)]) -> Embedding {
    let mut row = vec![0.0; DIM];
    for (i, x) in numbers {
        row[*i] = *x;
    }
    Embedding::normalized(row).expect("has a direction")
}

fn image(name: &str, shared: Embedding) -> Item {
    Item::new(id(name), Modality::Image, shared)
}

fn part(embedding: &Embedding, weight: f32) -> Part {
    Part {
        weight,
        ..Part::new(shared(embedding), None)
    }
}

fn filled(items: Vec<Item>) -> (Engine, std::sync::Arc<Collection>) {
    let engine = Engine::in_memory(small());
    let photos = engine.create("photos", &spaces()).expect("creates");
    photos.upsert(items).expect("upserts");
    (engine, photos)
}

fn images(n: usize) -> Vec<Item> {
    let name = |i| format!("{i:03}");
    (0..n)
        .map(|i| item(&name(i), Modality::Image, &name(i)))
        .collect()
}

fn request(content: &str, target: Target, k: usize) -> SearchRequest {
    let query = shared(&item("q", Modality::Image, content).shared);
    SearchRequest::new(query, target, count(k))
}

fn hits(collection: &Collection, request: &SearchRequest) -> Vec<Hit> {
    collection.search(request).expect("searches").hits
}

/// Ids on every page, page after page; `between` runs after each.
fn pages(
    collection: &Collection,
    mut request: SearchRequest,
    between: &dyn Fn(usize),
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let answer = collection.search(&request).expect("searches");
        let ids = answer.hits.iter().map(|hit| hit.id.to_string());
        pages.push(ids.collect());
        let Some(next) = answer.next else {
            return pages;
        };
        // A cursor comes back from a client.
        let sent = serde_json::to_string(&next).expect("writes");
        request.page = Page::After(serde_json::from_str::<Cursor>(&sent).expect("reads"));
        between(pages.len());
        assert!(pages.len() < 500, "the pages do not end");
    }
}

#[test]
fn an_item_that_is_like_both_parts_comes_before_those_that_are_like_one() {
    let items = vec![
        image("a", along(&[(0, 1.0), (5, 0.1)])),
        image("b", along(&[(1, 1.0), (6, 0.1)])),
        image("both", along(&[(0, 1.0), (1, 1.0), (7, 0.1)])),
        image("a, not c", along(&[(0, 1.0), (8, 0.5)])),
        image("a and c", along(&[(0, 1.0), (2, 0.8)])),
    ];
    let (_engine, photos) = filled(items);
    let search = |parts| ids(&photos, &SearchRequest::of(parts, Target::Image, count(9)));
    let (a, b, c) = (direction(0), direction(1), direction(2));
    let found = search(vec![part(&a, 1.0), part(&b, 1.0)]);
    assert_eq!(found[0], "both");
    let found = search(vec![part(&a, 1.0), part(&c, -0.5)]);
    let place = |id: &str| found.iter().position(|found| found == id);
    assert!(place("a, not c") < place("a and c"), "{found:?}");
    let alone = search(vec![part(&a, 7.0)]);
    assert_eq!(alone, search(vec![part(&a, 1.0)]), "one part has no weight");
}

#[test]
fn equal_weights_mean_equal_influence_however_wide_the_scores_of_a_part_spread() {
    // The cosines with the first direction spread ten times as wide as those with the second.
    let row = |i: usize| {
        let (wide, narrow) = ((i % 8) as f32 / 8.0, (i / 8) as f32 / 80.0);
        along(&[(0, wide), (1, narrow), (2 + i % 16, 1.0)])
    };
    let items = (0..64).map(|i| image(&format!("{i:02}"), row(i))).collect();
    let (_engine, photos) = filled(items);
    let parts = vec![part(&direction(0), 1.0), part(&direction(1), 1.0)];
    let found = ids(&photos, &SearchRequest::of(parts, Target::Image, count(8)));
    let narrow = found
        .iter()
        .map(|id| id.parse::<usize>().expect("a number") / 8);
    let mean = narrow.sum::<usize>() as f32 / 8.0;
    assert!(mean > 5.0, "the narrow part counts for little: {found:?}");
}

#[test]
#[allow(
    clippy::too_many_lines,
    reason = "one list of everything that is refused"
)]
fn what_cannot_be_searched_for_is_refused_with_the_value() {
    let (_engine, photos) = filled(images(9));
    let a = direction(0);
    let base = || request("0", Target::Image, 3);
    let specific = || {
        let space = spaces().specific(Modality::Image).expect("has one");
        Part::new(
            Query {
                embedding: item("x", Modality::Image, "x").specific.expect("has one"),
                space,
            },
            None,
        )
    };
    let of = |parts| SearchRequest::of(parts, Target::Image, count(3));
    let cursor = |target| {
        let answer = photos.search(&request("0", target, 1)).expect("searches");
        Page::After(answer.next.expect("there is more"))
    };
    let refused = [
        (of(vec![]), "parts: 0 parts, expected 1 to 32"),
        (
            of(vec![part(&a, 1.0); 33]),
            "parts: 33 parts, expected 1 to 32",
        ),
        (
            of(vec![part(&a, f32::NAN)]),
            "weight: weight is NaN, expected a finite number that",
        ),
        (of(vec![part(&a, 0.0)]), "weight: weight is 0, expected"),
        (of(vec![part(&a, -1.0)]), "weight: all weights are negative"),
        (
            of(vec![part(&a, 1.0), part(&a, -1.0)]),
            "parts: they cancel out",
        ),
        (of(vec![part(&a, 1.0), specific()]), "parts: parts of the"),
        (
            SearchRequest {
                min_score: Some(Score(1.5)),
                ..base()
            },
            "min_score: min_score is 1.5, expected -1 to 1",
        ),
        (
            SearchRequest {
                collapse: Some(Score(f32::NAN)),
                ..base()
            },
            "collapse: collapse is NaN, expected -1 to 1",
        ),
        (
            SearchRequest {
                diversity: Some(0.0),
                ..base()
            },
            "diversity: diversity is 0, expected more than 0",
        ),
        (
            SearchRequest {
                diversity: Some(0.5),
                page: Page::Offset(3),
                ..base()
            },
            "diversity: it chooses among the best items as a whole",
        ),
        (
            SearchRequest {
                diversity: Some(0.5),
                k: count(2000),
                ..base()
            },
            "diversity: it chooses at most 1024 hits, but k is 2000",
        ),
        (
            SearchRequest {
                mix: Some(Mix {
                    parts: vec![specific()],
                    share: 1.0,
                }),
                ..base()
            },
            "mix: mix is 1, expected more than 0 and less than 1",
        ),
        (
            SearchRequest {
                mix: Some(Mix {
                    parts: vec![specific()],
                    share: 0.5,
                }),
                target: Target::Both,
                ..base()
            },
            "mix: the shared space is mixed with",
        ),
        (
            SearchRequest {
                page: cursor(Target::Both),
                ..base()
            },
            "cursor: it is of another search",
        ),
        (
            SearchRequest {
                page: cursor(Target::Image),
                ..of(vec![part(&a, 1.0), part(&direction(1), 1.0)])
            },
            "cursor: it is of another search",
        ),
    ];
    for (request, start) in refused {
        let error = photos.search(&request).expect_err(start);
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn pages_put_together_are_what_one_long_search_finds() {
    let mut items = images(40);
    items.extend((0..25).map(|i| item(&format!("t{i:02}"), Modality::Text, &format!("{i}"))));
    let (_engine, photos) = filled(items);
    photos.seal().expect("seals");
    photos
        .upsert(vec![item("later", Modality::Image, "later")])
        .expect("upserts");
    let two = vec![
        part(&item("q", Modality::Image, "1").shared, 1.0),
        part(&item("q", Modality::Image, "2").shared, -0.7),
    ];
    for target in [Target::Image, Target::Text, Target::Both] {
        for parts in [request("0", target, 1).parts, two.clone()] {
            let all = ids(
                &photos,
                &SearchRequest::of(parts.clone(), target, count(99)),
            );
            for k in [1, 3, 7, 66] {
                let request = SearchRequest::of(parts.clone(), target, count(k));
                let paged = pages(&photos, request.clone(), &|_| {});
                assert_eq!(paged.concat(), all, "{target}, pages of {k}");
                let offset = SearchRequest {
                    page: Page::Offset(5),
                    ..request
                };
                let expected = all.iter().skip(5).take(k).cloned();
                assert_eq!(ids(&photos, &offset), expected.collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn no_item_comes_twice_or_is_left_out_while_others_are_written_between_pages() {
    for target in [Target::Image, Target::Both] {
        let mut items = images(40);
        items.extend((0..20).map(|i| item(&format!("t{i:02}"), Modality::Text, &format!("{i}"))));
        let (_engine, photos) = filled(items);
        let request = request("0", target, 6);
        let lasting: BTreeSet<String> = ids(
            &photos,
            &SearchRequest {
                k: count(99),
                ..request.clone()
            },
        )
        .into_iter()
        .filter(|id| !id.ends_with('3'))
        .collect();
        let write = |page: usize| {
            // What is nearer than all before, what is far away, and what goes.
            let best = near("0", &format!("{page}"), 0.01);
            photos
                .upsert(vec![image(&format!("best {page}"), best)])
                .expect("upserts");
            let far = item(
                &format!("far {page}"),
                Modality::Image,
                &format!("far {page}"),
            );
            photos.upsert(vec![far]).expect("upserts");
            photos
                .delete(&[id(&format!("{page}03")), id(&format!("0{page}3"))])
                .expect("deletes");
            photos.seal().expect("seals");
        };
        let found = pages(&photos, request, &write).concat();
        let once: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(once.len(), found.len(), "an item came twice: {found:?}");
        assert!(
            lasting.is_subset(&once),
            "left out: {:?}",
            lasting.difference(&once)
        );
        assert!(!found.iter().any(|id| id.starts_with("best")), "{found:?}");
    }
}

#[test]
fn groups_come_in_the_order_of_their_best_hit_and_an_item_without_a_value_stands_alone() {
    let mut items = images(30);
    for (i, item) in items.iter_mut().enumerate() {
        let album = match i % 5 {
            0 => continue,
            1 => json!([null, 1]),
            2 => json!("x"),
            3 => json!(true),
            _ => json!(1),
        };
        item.payload.insert("album".into(), album);
    }
    let (_engine, photos) = filled(items.clone());
    let plain = hits(&photos, &request("0", Target::Image, 99));
    let value = |hit: &Hit| match hit.payload.get("album") {
        Some(serde_json::Value::Array(values)) => Some(values[1].clone()),
        other => other.cloned(),
    };
    for per_group in [1, 2, 4] {
        let mut groups: Vec<(Option<serde_json::Value>, Vec<String>)> = Vec::new();
        for hit in &plain {
            let (value, id) = (value(hit), hit.id.to_string());
            match groups
                .iter_mut()
                .find(|(of, _)| of.is_some() && *of == value)
            {
                Some((_, ids)) if ids.len() < per_group => ids.push(id),
                Some(_) => {}
                None => groups.push((value, vec![id])),
            }
        }
        let by = GroupBy {
            field: "album".into(),
            hits: count(per_group),
        };
        for k in [1, 3, 50] {
            let request = SearchRequest {
                group_by: Some(by.clone()),
                ..request("0", Target::Image, k)
            };
            let expected = groups.iter().take(k).flat_map(|(_, ids)| ids.clone());
            assert_eq!(ids(&photos, &request), expected.collect::<Vec<_>>());
            for hit in hits(&photos, &request) {
                assert_eq!(hit.group, value(&hit));
            }
            let paged = pages(&photos, request, &|_| {}).concat();
            let expected = groups.iter().flat_map(|(_, ids)| ids.clone());
            assert_eq!(paged, expected.collect::<Vec<_>>(), "pages of {k} groups");
        }
    }
}

#[test]
fn items_that_are_nearly_the_same_are_named_with_the_best_of_them() {
    let rows = (0..8).flat_map(|i| {
        let content = format!("{i}");
        let copy = move |copy: usize| {
            let row = near(&content, &format!("other {copy}"), 0.02 * copy as f32);
            image(&format!("{content}.{copy}"), row)
        };
        (0..4).map(copy)
    });
    let (_engine, photos) = filled(rows.collect());
    let collapsed = |k| SearchRequest {
        collapse: Some(Score(0.98)),
        ..request("3", Target::Image, k)
    };
    let all = hits(&photos, &collapsed(99));
    assert_eq!(all.len(), 8);
    let first = &all[0];
    assert_eq!(first.id, id("3.0"));
    assert_eq!(first.duplicates, [id("3.1"), id("3.2"), id("3.3")]);
    let mut named: Vec<String> = all
        .iter()
        .flat_map(|hit| std::iter::once(&hit.id).chain(&hit.duplicates))
        .map(ToString::to_string)
        .collect();
    named.sort();
    assert_eq!(named.len(), 32, "each item is named once");
    named.dedup();
    assert_eq!(named.len(), 32);
    for k in [1, 3] {
        let paged = pages(&photos, collapsed(k), &|_| {}).concat();
        let expected: Vec<String> = all.iter().map(|hit| hit.id.to_string()).collect();
        assert_eq!(paged, expected);
    }
}

#[test]
fn diverse_hits_are_less_alike_and_the_best_one_stays() {
    let items = (0..60).map(|i| {
        let cluster = format!("cluster {}", i % 6);
        image(&format!("{i:02}"), near(&cluster, &format!("{i}"), 0.2))
    });
    let (_engine, photos) = filled(items.collect());
    let query = near("cluster 0", "cluster 1", 0.4);
    let plain = SearchRequest::new(shared(&query), Target::Image, count(6));
    let clusters = |request: &SearchRequest| {
        let found = ids(&photos, request);
        assert_eq!(found.len(), 6);
        let cluster = |id: &String| id.parse::<usize>().expect("a number") % 6;
        (
            found[0].clone(),
            found.iter().map(cluster).collect::<BTreeSet<_>>().len(),
        )
    };
    let (best, few) = clusters(&plain);
    let (first, many) = clusters(&SearchRequest {
        diversity: Some(0.5),
        ..plain
    });
    assert_eq!(best, first);
    assert!(
        many > few,
        "{many} clusters among diverse hits, {few} among plain ones"
    );
}

#[test]
fn no_hit_scores_less_than_asked_for_and_none_that_scores_as_much_is_missing() {
    let (_engine, photos) = filled(images(50));
    let all = hits(&photos, &request("7", Target::Image, 99));
    for hit in &all {
        let above = SearchRequest {
            min_score: Some(hit.score),
            ..request("7", Target::Image, 99)
        };
        let expected: Vec<&Hit> = all
            .iter()
            .filter(|other| other.score >= hit.score)
            .collect();
        assert_eq!(hits(&photos, &above).iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_search_in_both_spaces_ranks_by_the_weighted_mean_of_both_cosines() {
    let mut items = images(70);
    // One item has nothing specific.
    items[9].specific = None;
    let (_engine, photos) = filled(items.clone());
    photos.seal().expect("seals");
    let more: Vec<Item> = (70..80)
        .map(|i| item(&format!("{i:03}"), Modality::Image, &format!("{i}")))
        .collect();
    photos.upsert(more.clone()).expect("upserts");
    items.extend(more);
    let asked = item("q", Modality::Image, "4");
    let specific = asked.specific.clone().expect("has one");
    let space = spaces().specific(Modality::Image).expect("has one");
    for share in [0.1, 0.5, 0.9] {
        let mut expected: BTreeMap<ItemId, f32> = BTreeMap::new();
        for item in &items {
            let of_specific = item
                .specific
                .as_ref()
                .map_or(0.0, |row| row.cosine(&specific));
            let score = (1.0 - share) * item.shared.cosine(&asked.shared) + share * of_specific;
            expected.insert(item.id.clone(), score);
        }
        let mut order: Vec<(&ItemId, f32)> = expected.iter().map(|(id, s)| (id, *s)).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        for k in [1, 5, 80] {
            let query = Query {
                embedding: specific.clone(),
                space: space.clone(),
            };
            let request = SearchRequest {
                mix: Some(Mix {
                    parts: vec![Part::new(query, None)],
                    share,
                }),
                ..request("4", Target::Image, k)
            };
            let found = hits(&photos, &request);
            let ids: Vec<&ItemId> = found.iter().map(|hit| &hit.id).collect();
            assert_eq!(
                ids,
                order.iter().take(k).map(|(id, _)| *id).collect::<Vec<_>>()
            );
            for hit in &found {
                assert!((hit.score.0 - expected[&hit.id]).abs() < 1e-5);
            }
        }
    }
}
