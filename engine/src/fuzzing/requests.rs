//! Filters and cursors made of any bytes.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock},
};

use embedding::{Encoder, HashEncoder, Modality};
use serde_json::{Value, json};

use crate::{
    Collection, Cursor, Engine, EngineConfig, FieldKind, Fields, Filter, Item, ItemId, Page, Part,
    Query, SearchRequest, Target,
};

pub(super) const DIM: usize = 8;
/// Items, every second one an image.
const ITEMS: usize = 40;
const K: NonZeroUsize = NonZeroUsize::new(3).expect("not zero");

/// A small collection with values of every kind.
pub(super) fn filled(engine: &Engine) -> Arc<Collection> {
    let encoder = HashEncoder::new(Modality::Text, DIM);
    let spaces = Encoder::<&str>::spaces(&encoder).clone();
    let fields = Fields::new([
        ("color", FieldKind::Keyword),
        ("size", FieldKind::Integer),
        ("weight", FieldKind::Float),
        ("sold", FieldKind::Bool),
        ("made", FieldKind::Datetime),
    ]);
    let fields = fields.expect("good fields");
    let created = engine.create_with_fields("c", &spaces, &fields);
    let collection = created.expect("creates");
    collection
        .upsert((0..ITEMS).map(item).collect())
        .expect("upserts");
    collection
}

pub(super) fn item(i: usize) -> Item {
    let modality = Modality::ALL[i % 2];
    let encoded = HashEncoder::new(modality, DIM).encode(&[&i.to_string()]);
    let encoded = encoded.expect("encodes").remove(0);
    let id = ItemId::new(format!("{i:02}")).expect("an id");
    let mut item = Item::new(id, modality, encoded.shared);
    item.specific = encoded.specific;
    let colors = [["red"], ["blue"], ["dark red"]];
    let payload = json!({
        "color": colors[i % 3],
        "size": i as i64 - 20,
        "weight": i as f64 / 4.0,
        "sold": i.is_multiple_of(3),
        "made": format!("2024-01-{:02}T12:00:00Z", 1 + i % 28),
    });
    if let (true, Value::Object(payload)) = (!i.is_multiple_of(5), payload) {
        item.payload = payload;
    }
    item
}

static COLLECTION: LazyLock<(Engine, Arc<Collection>)> = LazyLock::new(|| {
    let engine = Engine::in_memory(EngineConfig {
        graph_rows: 8,
        shards: NonZeroUsize::new(2),
        audit_share: 0.0,
        ..EngineConfig::default()
    });
    let collection = filled(&engine);
    collection.seal().expect("seals");
    // Some of it sealed, some not, some gone.
    let ids = [3, 7].map(|i| item(i).id);
    collection.delete(&ids).expect("deletes");
    let changed = (10..14).map(|i| Item {
        id: item(i).id,
        ..item(i + 1)
    });
    collection.upsert(changed.collect()).expect("upserts");
    (engine, collection)
});

fn query(i: usize) -> Query {
    let space = COLLECTION.1.spaces().shared();
    let embedding = item(i).shared;
    Query { embedding, space }
}

/// A filter as JSON: it comes back as it is, and the indexes find exactly the items whose payloads
/// pass.
pub(super) fn filter(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let parsed = Filter::from_json(&value);
    let direct = serde_json::from_slice::<Filter>(bytes);
    let Ok(filter) = parsed else {
        assert!(direct.is_err());
        return;
    };
    assert_eq!(direct.ok().as_ref(), Some(&filter));
    let again = Filter::from_json(&filter.to_json());
    assert_eq!(again.ok().as_ref(), Some(&filter));
    let collection = &COLLECTION.1;
    let Ok(checked) = collection.check_filter(&filter) else {
        return;
    };
    let metas = collection.metas().expect("it is there");
    let metas = metas.map(|meta| meta.expect("reads"));
    let passing = metas.filter(|meta| checked.passes(&meta.payload));
    let expected: Vec<ItemId> = passing.map(|meta| meta.id).collect();
    let matching = collection.matching(&checked).expect("reads");
    assert_eq!(matching.len(), expected.len() as u64, "{value}");
    let all = NonZeroUsize::new(ITEMS).expect("not zero");
    let mut request = SearchRequest::new(query(1), Target::Both, all);
    request.filter = Some(filter);
    let answer = collection.search(&request).expect("searches");
    let mut found: Vec<ItemId> = answer.hits.into_iter().map(|hit| hit.id).collect();
    found.sort();
    assert_eq!(found, expected, "{value}");
}

/// A cursor as JSON: no search fails on it otherwise than by refusing it.
pub(super) fn cursor(bytes: &[u8]) {
    let Ok(cursor) = serde_json::from_slice::<Cursor>(bytes) else {
        return;
    };
    let parts = |n: usize| (0..n).map(|i| Part::new(query(i), None)).collect();
    for target in [Target::Both, Target::Image, Target::Text] {
        for n in [1, 2] {
            let mut request = SearchRequest::of(parts(n), target, K);
            request.page = Page::After(cursor.clone());
            page(&request);
            request.collapse = Some(crate::Score(0.5));
            page(&request);
        }
    }
}

fn page(request: &SearchRequest) {
    let Ok(answer) = COLLECTION.1.search(request) else {
        return;
    };
    assert!(answer.hits.len() <= K.get());
    let Some(next) = answer.next else {
        return;
    };
    let text = serde_json::to_string(&next).expect("a cursor writes");
    let read: Cursor = serde_json::from_str(&text).expect("and reads");
    assert_eq!(read, next);
    let mut following = request.clone();
    following.page = Page::After(next);
    let following = COLLECTION.1.search(&following).expect("a page follows");
    let came_again = following
        .hits
        .iter()
        .any(|hit| answer.hits.iter().any(|before| before.id == hit.id));
    assert!(!came_again, "no hit comes twice");
}
