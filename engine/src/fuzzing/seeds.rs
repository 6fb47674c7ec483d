//! What fuzzing starts from: small pieces of real data.

use std::num::NonZeroUsize;

use embedding::Scoring;
use serde_json::json;

use super::requests::{filled, item};
use crate::{
    About, Collection, Engine, EngineConfig, Head, HeadKind, HnswParams, Inputs, KeptHead, Page,
    Part, Query, SearchRequest, Target,
    catalog::{self, collection_key},
    confidence::calibration::{Calibration, CalibrationKind, DEFAULT, Direction, DirectionReport},
    record::{self, with_checksum},
    segment_file, snapshot,
};

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;

/// Whether the values under a key end with a checksum.
fn has_checksum(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'c' | b'e' | b'g' | b'h' | b'k' | b'i'))
}

/// A value with the checksum that belongs under its key.
pub(super) fn put_right(key: &[u8], value: Vec<u8>) -> Vec<u8> {
    if has_checksum(key) {
        with_checksum(key, value)
    } else {
        value
    }
}

/// Keys and values out of `(key length u8, value length u16, key, value)*`; what is cut is left out.
pub(super) fn entries_of(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    while let Some(([key, low, high], rest)) = bytes.split_first_chunk() {
        let value = usize::from(u16::from_le_bytes([*low, *high]));
        let Some((key, rest)) = rest.split_at_checked(usize::from(*key)) else {
            break;
        };
        let Some((value, rest)) = rest.split_at_checked(value) else {
            break;
        };
        entries.push((key.to_vec(), value.to_vec()));
        bytes = rest;
    }
    entries
}

/// Names of targets, and bytes for them.
///
/// # Panics
/// When something cannot be made.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for file in segment_file::fuzzing::seeds() {
        seeds.push(("segment_file", file));
    }
    let config = EngineConfig {
        shards: NonZeroUsize::new(1),
        audit_share: 0.0,
        hnsw: HnswParams::default(),
        ..EngineConfig::default()
    };
    let engine = Engine::in_memory(config);
    let collection = filled(&engine);
    let put = collection.put_head("kind", &head(&collection));
    put.expect("keeps a head");
    for bytes in snapshot::fuzzing::seeds(&collection) {
        seeds.push(("snapshot", bytes));
    }
    let store = &collection.core.store;
    let entries: Vec<(Vec<u8>, Vec<u8>)> = store
        .scan(b"")
        .map(|entry| entry.expect("reads"))
        .map(|(key, mut value)| {
            let end = value.len()
                - if has_checksum(&key) {
                    CHECKSUM_BYTES
                } else {
                    0
                };
            value.truncate(end);
            (key, value)
        })
        .collect();
    for (key, value) in &entries {
        match key.first() {
            Some(b'c') => seeds.push(("description", value.clone())),
            Some(b'f') => seeds.push((
                "page",
                [&[0, 0, 2, 0, 5, 0, 1, 9, 5, 0, 1], &**value].concat(),
            )),
            _ => {}
        }
    }
    let some = entries.iter().filter(|(key, _)| {
        let is_item = key.first() == Some(&b'i');
        !is_item || key.ends_with(b"1")
    });
    let dumped = some.flat_map(|(key, value)| {
        let head = [&[key.len() as u8][..], &(value.len() as u16).to_le_bytes()].concat();
        [head, key.clone(), value.clone()].concat()
    });
    seeds.push(("store", dumped.collect()));
    seeds.extend(records());
    seeds.push(("calibration", calibration()));
    seeds.extend(filters());
    // Pages of real searches.
    for (target, parts) in [(Target::Both, 1), (Target::Image, 1), (Target::Both, 2)] {
        let query = |i: usize| Query {
            embedding: item(i).shared,
            space: collection.spaces().shared(),
        };
        let parts = (0..parts).map(|i| Part::new(query(i), None)).collect();
        let k = NonZeroUsize::new(3).expect("not zero");
        let mut request = SearchRequest::of(parts, target, k);
        for _ in 0..2 {
            let next = collection.search(&request).expect("searches").next;
            let cursor = next.expect("there are more");
            let text = serde_json::to_vec(&cursor).expect("a cursor writes");
            seeds.push(("cursor", text));
            request.page = Page::After(cursor);
        }
    }
    assert!(entries.iter().any(|(key, _)| *key == collection_key("c")));
    assert!(
        entries
            .iter()
            .any(|(key, _)| *key == catalog::digests_key(0))
    );
    seeds
}

/// A head of two labels.
fn head(collection: &Collection) -> KeptHead {
    let space = collection.spaces().shared();
    let weights = (0..2 * space.dim).map(|i| i as f32).collect();
    KeptHead {
        head: Head {
            inputs: Inputs::one(space),
            labels: vec!["a".into(), "b".into()],
            weights,
            bias: vec![0.0, -1.0],
            scoring: Scoring::Softmax { logit_scale: 1.0 },
        },
        likeness: None,
        about: About {
            kind: HeadKind::FewShot,
            multi_label: false,
            made_at_ms: None,
            examples: 2,
            accuracy: Some(0.5),
            field: None,
            example_ids: Vec::new(),
            report: json!({}),
        },
    }
}

/// Records with all parts and with few.
fn records() -> Vec<(&'static str, Vec<u8>)> {
    let mut plain = item(5);
    plain.specific = None;
    let mut full = item(6);
    full.text = Some("words".into());
    full.source = Some("/photos/a.jpg".into());
    full.content_hash = Some([7; 32]);
    let key = b"key";
    let record = |item| {
        let stamp = record::Stamp::of(&item, 3);
        let value = record::encode(key, &item, stamp, 7);
        ("record", value[..value.len() - CHECKSUM_BYTES].to_vec())
    };
    vec![record(plain), record(full)]
}

fn calibration() -> Vec<u8> {
    let direction = |from, to| Direction {
        model: Some(DEFAULT),
        report: DirectionReport {
            from,
            to,
            calibration: CalibrationKind::Pairs,
            pairs: 100,
            roc_auc: Some(0.9),
            cosine_roc_auc: Some(0.8),
            calibration_error: None,
        },
    };
    let [text, image] = embedding::Modality::ALL;
    let calibration = Calibration {
        fingerprint: Some(embedding::Fingerprint([3; 16])),
        fitted_at: Some((20, 20)),
        directions: vec![direction(text, image), direction(image, text)],
        ..Calibration::default()
    };
    serde_json::to_vec(&calibration).expect("a calibration is plain JSON")
}

fn filters() -> Vec<(&'static str, Vec<u8>)> {
    let filters = [
        json!({ "must": [{ "field": "size", "gte": -3, "lt": 7 }] }),
        json!({ "should": [{ "field": "color", "eq": "red" }, { "field": "sold", "eq": true }] }),
        json!({ "must_not": [{ "field": "color", "in": ["blue", "red"] }] }),
        json!({ "must": [{ "field": "color", "contains": "RE" }, { "should": [
            { "field": "weight", "gt": 1.5, "lte": 7 },
            { "must_not": [{ "field": "weight", "exists": false }] },
        ] }] }),
        json!({ "must": [{ "field": "made", "gt": "2024-01-09T12:00:00+01:00" }] }),
    ];
    let text = |filter: &serde_json::Value| ("filter", filter.to_string().into_bytes());
    filters.iter().map(text).collect()
}
