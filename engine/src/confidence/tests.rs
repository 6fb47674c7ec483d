//! Confidence and fair lists on generated pairs: a picture and a text share what they show, and
//! each modality lies apart, as in a two-tower model.
//!
//! Over 400 lines: the tests share the pairs and the collections that are made of them here.

use std::{num::NonZeroUsize, sync::Arc};

use embedding::{Aspect, Embedding, Encoder, HashEncoder, Modality, Spaces, mix};

use super::{
    CalibrationKind,
    fair::Level,
    fitting::SELF_ITEMS,
    judge::{Asked, Candidate, Judge, views},
    keeping,
    sample::{LEAST_ROWS, SAMPLE_ROWS, Sample},
};
use crate::{
    Collection, Engine, EngineConfig, EngineError, Hit, Item, ItemId, Query, Score, SearchRequest,
    Target,
    catalog::calibration_key,
    index::{SearchParams, dot},
    metrics::roc_auc,
    shard::Found,
    store::Batch,
};

const DIM: usize = 32;
/// Pairs that are enough for a collection to calibrate itself.
const PAIRS: usize = 240;

fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// Nearly normal noise that depends on its arguments only.
fn noise(stream: u64, d: usize) -> f32 {
    let bits = mix(mix(stream) ^ d as u64);
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 - 131_070.0) / 37_837.0
}

fn letter(modality: Modality) -> u64 {
    match modality {
        Modality::Text => 1,
        Modality::Image => 2,
    }
}

/// What a tower might make of thing `n`.
fn embedding(modality: Modality, n: usize) -> Embedding {
    let (thing, own) = (1000 + n as u64, letter(modality) << 32 | n as u64);
    let row = (0..DIM).map(|d| noise(letter(modality), d) + noise(thing, d) + 0.45 * noise(own, d));
    Embedding::normalized(row.collect()).expect("noise has a direction")
}

fn id(modality: Modality, n: usize) -> ItemId {
    ItemId::new(format!("{modality}-{n}")).expect("an id")
}

fn item(modality: Modality, n: usize) -> Item {
    Item::new(id(modality, n), modality, embedding(modality, n))
}

fn things(modality: Modality, things: std::ops::Range<usize>) -> Vec<Item> {
    things.map(|n| item(modality, n)).collect()
}

fn filled(engine: &Engine, texts: std::ops::Range<usize>, images: usize) -> Arc<Collection> {
    let enough = texts.len().min(images) >= SELF_ITEMS;
    let collection = engine.create("c", &spaces()).expect("creates");
    for items in [
        things(Modality::Text, texts),
        things(Modality::Image, 0..images),
    ] {
        collection.upsert(items).expect("writes");
    }
    if enough {
        wait_for_fit(&collection);
    }
    collection
}

/// Until the collection has calibrated itself in the background.
fn wait_for_fit(collection: &Collection) {
    for _ in 0..60_000 {
        if collection.confidence.calibration.read().fitted_at.is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no calibration in the background");
}

fn asked(embedding: &Embedding) -> Asked<'_> {
    Asked {
        embedding,
        aspect: Aspect::Shared,
        modality: None,
    }
}

/// The `k` nearest of a modality, best first, each with its embedding.
fn nearest(
    collection: &Collection,
    query: &Embedding,
    to: Modality,
    k: usize,
) -> Vec<(Found<String>, Embedding)> {
    let params = SearchParams { ef_search: 64 };
    let k = NonZeroUsize::new(k).expect("not zero");
    let mut found: Vec<Found<String>> = views(collection, to)
        .iter()
        .flat_map(|view| view.search(query, k, params, true))
        .collect();
    found.sort_unstable_by(Found::rank);
    found.truncate(k.get());
    let with_embedding = |found: Found<String>| {
        let id = ItemId::new(found.id.as_str()).expect("an id");
        let item = collection.get(&id).expect("reads").expect("is there");
        (found, item.shared)
    };
    found.into_iter().map(with_embedding).collect()
}

fn confidences(
    collection: &Collection,
    query: &Embedding,
    to: Modality,
    k: usize,
) -> Vec<(String, f32, Option<f32>)> {
    let hits = nearest(collection, query, to, k);
    let candidates: Vec<Candidate<'_>> = hits
        .iter()
        .map(|(found, embedding)| Candidate {
            score: found.score,
            embedding: Some(embedding),
        })
        .collect();
    let judge = Judge::new(collection, asked(query));
    let confidences = judge.confidences(to, &candidates);
    let hits = hits.into_iter().zip(confidences);
    hits.map(|((found, _), sure)| (found.id, found.score.0, sure))
        .collect()
}

fn kind(collection: &Collection, from: Modality) -> CalibrationKind {
    let report = collection.calibration();
    let direction = report
        .directions
        .iter()
        .find(|direction| direction.from == from);
    direction.expect("both directions are told").calibration
}

/// The sample's rows, as bits so that they compare.
fn bits(sample: &Sample) -> Vec<u32> {
    let rows = (0..sample.len()).flat_map(|i| sample.row(i).iter().map(|x| x.to_bits()));
    rows.collect()
}

#[test]
fn a_sample_follows_from_the_items_and_not_from_their_order() {
    let many = SAMPLE_ROWS + 200;
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = engine.create("c", &spaces()).expect("creates");
    let sample = || {
        collection
            .confidence
            .sample(&collection, (Modality::Text, Aspect::Shared))
    };
    assert_eq!(sample().len(), 0);
    collection
        .upsert(things(Modality::Text, 0..many))
        .expect("writes");
    let first = sample();
    assert_eq!((first.len(), first.population), (SAMPLE_ROWS, many));

    let other = engine.create("d", &spaces()).expect("creates");
    for n in (0..many).rev() {
        other.upsert(vec![item(Modality::Text, n)]).expect("writes");
        if n == many / 2 {
            other.seal().expect("seals");
            other
                .confidence
                .sample(&other, (Modality::Text, Aspect::Shared));
        }
    }
    let again = other
        .confidence
        .sample(&other, (Modality::Text, Aspect::Shared));
    assert_eq!(bits(&first), bits(&again));
}

/// The sample is kept while no change can touch it, so each kind of change must be noticed.
#[test]
fn a_sample_is_that_of_the_items_as_they_are_now() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..SAMPLE_ROWS + 100, 0);
    let of = (Modality::Text, Aspect::Shared);
    for n in 0..60 {
        // Read before and after: what was kept must not survive the change.
        collection.confidence.sample(&collection, of);
        match n % 3 {
            0 => collection.delete(&[id(Modality::Text, n)]).map(|_| ()),
            1 => {
                let mut other = item(Modality::Text, n);
                other.shared = embedding(Modality::Text, 5000 + n);
                collection.upsert(vec![other]).map(|_| ())
            }
            _ => collection
                .upsert(vec![item(Modality::Text, 9000 + n)])
                .map(|_| ()),
        }
        .expect("writes");
        let kept = collection.confidence.sample(&collection, of);
        let fresh = Sample::take(&views(&collection, Modality::Text), DIM);
        assert_eq!(bits(&kept), bits(&fresh), "after change {n}");
    }
}

#[test]
fn few_items_give_no_confidence_and_nothing_that_is_not_a_number() {
    for few in [0, 1, 5, LEAST_ROWS - 1] {
        let engine = Engine::in_memory(EngineConfig::default());
        let collection = filled(&engine, 0..few, few);
        for query in [embedding(Modality::Text, 0), embedding(Modality::Text, 77)] {
            for (name, _, sure) in confidences(&collection, &query, Modality::Image, 5) {
                assert_eq!(sure, None, "{few} items, {name}");
            }
            for (name, score, sure) in confidences(&collection, &query, Modality::Text, 5) {
                let expected = (score > 0.9999).then_some(1.0);
                assert_eq!(sure, expected, "{few} items, {name}");
            }
            let judge = Judge::new(&collection, asked(&query));
            for to in Modality::ALL {
                let found = nearest(&collection, &query, to, 5);
                let scores = found.iter().map(|(found, _)| found.score);
                let key = Level::new(scores, judge.spread(to)).key(Score(0.5));
                assert!(key.is_finite(), "{few} items");
            }
        }
    }
}

#[test]
fn equal_rows_give_numbers_too() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = engine.create("c", &spaces()).expect("creates");
    for modality in Modality::ALL {
        let same = (0..40).map(|n| {
            let mut item = item(modality, n);
            item.shared = embedding(modality, 0);
            item
        });
        collection.upsert(same.collect()).expect("writes");
    }
    let query = embedding(Modality::Text, 0);
    for to in Modality::ALL {
        for (_, _, sure) in confidences(&collection, &query, to, 20) {
            let sure = sure.expect("there are enough items");
            assert!((0.0..=1.0).contains(&sure), "{sure}");
        }
    }
}

/// The area under the curve of the surest of ten hits, true picture there or not, for texts that
/// the collection has never seen; and that of the best cosine.
fn no_match(collection: &Arc<Collection>) -> (f64, f64) {
    let mut sure = [Vec::new(), Vec::new()];
    let mut cosines = [Vec::new(), Vec::new()];
    for n in 0..PAIRS / 2 {
        let text = id(Modality::Text, n);
        collection.delete(&[text]).expect("deletes");
        let query = embedding(Modality::Text, n);
        for present in [true, false] {
            let picture = id(Modality::Image, n);
            if !present {
                collection.delete(&[picture]).expect("deletes");
            }
            let hits = confidences(collection, &query, Modality::Image, 10);
            let most = hits.iter().filter_map(|hit| hit.2).fold(0.0, f32::max);
            sure[usize::from(present)].push(f64::from(most));
            cosines[usize::from(present)].push(f64::from(hits[0].1));
        }
        let back = vec![item(Modality::Text, n), item(Modality::Image, n)];
        collection.upsert(back).expect("writes");
    }
    (
        roc_auc(&sure[1], &sure[0]),
        roc_auc(&cosines[1], &cosines[0]),
    )
}

#[test]
fn confidence_tells_whether_the_true_item_is_there_better_than_the_cosine() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..PAIRS, PAIRS);
    collection.calibrate(None).expect("there are enough items");
    let (auc, cosine) = no_match(&collection);
    assert!(auc > 0.93 && auc > cosine + 0.02, "{auc}, cosine {cosine}");
}

#[test]
fn a_collection_with_enough_of_both_calibrates_itself_in_the_background() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..PAIRS, PAIRS - 100);
    assert_eq!(kind(&collection, Modality::Text), CalibrationKind::Default);
    let few = collection.calibrate(None);
    assert!(matches!(few, Err(EngineError::CannotCalibrate { .. })));
    collection
        .upsert(things(Modality::Image, PAIRS - 100..PAIRS))
        .expect("writes");
    wait_for_fit(&collection);
    for from in Modality::ALL {
        assert_eq!(kind(&collection, from), CalibrationKind::SelfFitted);
    }
    let report = collection.calibration();
    for direction in &report.directions {
        let auc = direction.roc_auc.expect("was measured");
        let cosine = direction.cosine_roc_auc.expect("was measured");
        let error = direction.calibration_error.expect("was measured");
        assert!(auc > cosine && error < 0.1, "{direction:?}");
        assert!(direction.pairs > 150, "{direction:?}");
    }
    assert!(!collection.wants_fit());
}

#[test]
fn texts_that_have_nothing_to_do_with_the_pictures_teach_nothing() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 10_000..10_000 + PAIRS, PAIRS);
    let report = collection.calibrate(None).expect("there are enough items");
    for direction in &report.directions {
        assert_eq!(
            direction.calibration,
            CalibrationKind::Default,
            "{direction:?}"
        );
        assert!(direction.roc_auc.is_some(), "it was tried");
    }
}

#[test]
fn given_pairs_stay_in_force_over_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::open(dir.path(), EngineConfig::default()).expect("opens");
    let collection = filled(&engine, 0..PAIRS, PAIRS);
    let pairs: Vec<(ItemId, ItemId)> = (0..PAIRS)
        .map(|n| (id(Modality::Text, n), id(Modality::Image, n)))
        .collect();
    let report = collection.calibrate(Some(&pairs)).expect("pairs are there");
    assert_eq!(report.directions[0].calibration, CalibrationKind::Pairs);
    assert_eq!(report.directions[0].pairs, PAIRS);
    let report = collection.calibrate(None).expect("there are enough items");
    assert_eq!(report.directions[0].calibration, CalibrationKind::Pairs);
    assert_eq!(
        report.directions[1].calibration,
        CalibrationKind::SelfFitted
    );
    let query = embedding(Modality::Text, 3);
    let before = confidences(&collection, &query, Modality::Image, 20);
    drop(collection);
    engine.close();
    let engine = Engine::open(dir.path(), EngineConfig::default()).expect("opens");
    let collection = engine.collection("c").expect("is there");
    assert_eq!(collection.calibration(), report);
    assert_eq!(
        confidences(&collection, &query, Modality::Image, 20),
        before
    );
}

#[test]
fn pairs_that_cannot_teach_are_refused_in_words() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..60, 60);
    let pair = |a: (Modality, usize), b: (Modality, usize)| vec![(id(a.0, a.1), id(b.0, b.1))];
    let (text, image) = (Modality::Text, Modality::Image);
    for (pairs, says) in [
        (pair((text, 1), (image, 99)), "there is no item image-99"),
        (pair((text, 1), (text, 2)), "both of modality text"),
        (
            pair((text, 1), (image, 1)),
            "1 pairs that start with a text",
        ),
    ] {
        let refused = collection.calibrate(Some(&pairs)).expect_err("is refused");
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[test]
fn a_damaged_calibration_or_one_of_another_model_is_none() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..PAIRS, PAIRS);
    collection.calibrate(None).expect("there are enough items");
    let store = collection.core.store.as_ref();
    let (number, fingerprint) = (collection.description.number, spaces().fingerprint);
    let of = ("c", number);
    let kept = keeping::read(store, of, fingerprint).expect("reads");
    assert_eq!(kept, **collection.confidence.calibration.read());
    let other = embedding::Fingerprint([7; 16]);
    assert_ne!(keeping::read(store, of, other).expect("reads"), kept);

    let key = calibration_key(number);
    let mut value = store.get(&key).expect("reads").expect("is there");
    value[20] ^= 1;
    let mut batch = Batch::default();
    batch.put(key.clone(), value);
    store.commit(batch).expect("writes");
    let damaged = keeping::read(store, of, fingerprint).expect("is no error");
    assert_eq!(damaged, super::calibration::Calibration::default());

    engine.delete("c").expect("deletes");
    assert_eq!(
        store.get(&key).expect("reads"),
        None,
        "it goes with its collection"
    );
}

#[test]
fn among_one_modality_confidence_never_rises_while_the_score_falls() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..100, 100);
    for n in [5, 500] {
        for modality in Modality::ALL {
            let query = embedding(modality, n);
            let hits = confidences(&collection, &query, modality, 50);
            let sure: Vec<f32> = hits.iter().filter_map(|hit| hit.2).collect();
            assert_eq!(sure.len(), 50);
            assert!(sure.is_sorted_by(|a, b| a >= b), "{sure:?}");
            assert_eq!(sure[0] >= 1.0, n == 5, "an identical item is certain");
        }
    }
}

#[test]
fn what_a_hit_gets_does_not_depend_on_those_after_it() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..100, 100);
    let query = embedding(Modality::Text, 400);
    let all = confidences(&collection, &query, Modality::Image, 40);
    for k in [1, 9, 10, 11, 39] {
        assert_eq!(
            confidences(&collection, &query, Modality::Image, k),
            all[..k]
        );
    }
    let least = all[..10].iter().filter_map(|hit| hit.2).fold(1.0, f32::min);
    assert!(
        all[10..]
            .iter()
            .all(|hit| hit.2.is_some_and(|sure| sure <= least))
    );
}

#[test]
fn a_query_is_told_by_where_it_lies() {
    let engine = Engine::in_memory(EngineConfig::default());
    let both = filled(&engine, 0..60, 60);
    let alone = engine.create("pictures", &spaces()).expect("creates");
    alone
        .upsert(things(Modality::Image, 0..60))
        .expect("writes");
    for modality in Modality::ALL {
        for n in 100..120 {
            let query = embedding(modality, n);
            assert_eq!(Judge::new(&both, asked(&query)).from(), modality);
            let said = Asked {
                modality: Some(Modality::Text),
                ..asked(&query)
            };
            assert_eq!(Judge::new(&both, said).from(), Modality::Text);
        }
    }
    let query = embedding(Modality::Image, 100);
    assert_eq!(Judge::new(&alone, asked(&query)).from(), Modality::Image);
}

#[test]
fn a_fair_list_brings_the_picture_that_raw_cosine_buries() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..PAIRS, PAIRS);
    wait_for_fit(&collection);
    let (mut fair_found, mut raw_found) = (0, 0);
    for n in 0..PAIRS {
        let query = embedding(Modality::Text, n);
        let list = |k: usize| {
            let space = collection.spaces().shared();
            let embedding = query.clone();
            let k = NonZeroUsize::new(k).expect("not zero");
            let request = SearchRequest::new(Query { embedding, space }, Target::Both, k);
            collection.search(&request).expect("searches").hits
        };
        let first = list(10);
        for to in Modality::ALL {
            let scores = first
                .iter()
                .filter(|hit| hit.modality == to)
                .map(|hit| hit.score.0);
            assert!(
                scores.is_sorted_by(|a, b| a >= b),
                "each modality keeps its order"
            );
        }
        if n % 20 == 0 {
            for k in [1, 5, 13] {
                assert_eq!(
                    list(k),
                    list(30)[..k],
                    "a list is the start of a longer one"
                );
            }
        }
        let picture = id(Modality::Image, n);
        fair_found += usize::from(first.iter().any(|hit| hit.id == picture));
        let score = dot(query.as_slice(), embedding(Modality::Image, n).as_slice());
        let better = |to, m: &usize| dot(query.as_slice(), embedding(to, *m).as_slice()) > score;
        let before = Modality::ALL
            .into_iter()
            .map(|to| (0..PAIRS).filter(|m| better(to, m)).count());
        raw_found += usize::from(before.sum::<usize>() < 10);
    }
    assert!(fair_found * 10 > PAIRS * 9, "{fair_found} of {PAIRS}");
    assert!(
        raw_found * 4 < PAIRS,
        "{raw_found} of {PAIRS}: the gap is there"
    );
}

#[test]
fn a_least_confidence_leaves_out_what_is_less_sure_and_nothing_else() {
    let engine = Engine::in_memory(EngineConfig::default());
    let collection = filled(&engine, 0..PAIRS, PAIRS);
    wait_for_fit(&collection);
    let request = |n, modality, target| {
        let space = collection.spaces().shared();
        let embedding = embedding(modality, n);
        let k = NonZeroUsize::new(2 * PAIRS).expect("not zero");
        SearchRequest::new(Query { embedding, space }, target, k)
    };
    for target in [Target::Image, Target::Text, Target::Both] {
        for (n, least) in [(3, 0.0), (50, 0.2), (300, 0.5), (301, 0.05), (7, 1.0)] {
            let mut request = request(n, Modality::Text, target);
            let all = collection.search(&request).expect("searches").hits;
            let sure = |hit: &Hit| hit.confidence.expect("there are enough items") >= least;
            let mut expected: Vec<Hit> = all.into_iter().filter(sure).collect();
            request.min_confidence = Some(least);
            for k in [2 * PAIRS, 3] {
                request.k = NonZeroUsize::new(k).expect("not zero");
                expected.truncate(k);
                let found = collection.search(&request).expect("searches").hits;
                assert_eq!(found, expected, "{target} {n} {least}, k {k}");
            }
        }
    }
    let mut unsure = request(3, Modality::Text, Target::Image);
    unsure.confidence = false;
    let answer = collection.search(&unsure).expect("searches");
    assert!(answer.calibration.is_none() && answer.hits.iter().all(|hit| hit.confidence.is_none()));
    unsure.parts.push(unsure.parts[0].clone());
    unsure.min_confidence = Some(0.5);
    let error = collection
        .search(&unsure)
        .expect_err("of two parts nothing can be told");
    assert!(
        error
            .to_string()
            .starts_with("min_confidence: how sure a hit is"),
        "{error}"
    );
}
