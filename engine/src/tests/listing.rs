//! Items a page at a time.

use serde_json::json;

use super::*;
use crate::{
    FieldKind, Fields, Filter, ListRequest, catalog,
    store::{Batch, Store as _},
};

/// Items `000` to `249`, every third a picture, with `n` from 0 to 4 in turn.
fn filled(engine: &Engine) -> std::sync::Arc<Collection> {
    let fields = Fields::new([("n", FieldKind::Integer)]).expect("fields");
    let all = engine.create_with_fields("all", &spaces(), &fields);
    let all = all.expect("creates");
    let items = (0..250).map(|i| {
        let modality = if i % 3 == 0 {
            Modality::Image
        } else {
            Modality::Text
        };
        let mut item = item(&format!("{i:03}"), modality, &i.to_string());
        item.payload.insert("n".into(), json!(i % 5));
        item
    });
    all.upsert(items.collect()).expect("upserts");
    all
}

/// All ids, page after page of `limit`.
fn pages(all: &Collection, mut request: ListRequest, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = all.list(&request, count(limit)).expect("lists");
        assert!(page.items.len() <= limit);
        found.extend(page.items.iter().map(|item| item.id.to_string()));
        match page.next {
            Some(next) => request.after = Some(next),
            None => return found,
        }
    }
}

#[test]
fn pages_hold_every_item_once_and_a_filter_leaves_out_the_others() {
    let engine = Engine::in_memory(small());
    let all = filled(&engine);
    // Neighbors in the store are of another collection.
    for name in ["a", "b"] {
        let other = engine.create(name, &spaces()).expect("creates");
        other
            .upsert(vec![item("120x", Modality::Text, "x")])
            .expect("upserts");
    }
    let named = |is_in: &dyn Fn(usize) -> bool| -> Vec<String> {
        let named = (0..250).filter(|i| is_in(*i));
        named.map(|i| format!("{i:03}")).collect()
    };
    for limit in [1, 7, 250, 1000] {
        assert_eq!(pages(&all, ListRequest::default(), limit), named(&|_| true));
    }
    let filter = Filter::from_json(&json!({"must": [{"field": "n", "in": [1, 4]}]}));
    let request = ListRequest {
        filter: Some(filter.expect("a filter")),
        modality: Some(Modality::Image),
        ..ListRequest::default()
    };
    let expected = named(&|i| i % 3 == 0 && (i % 5 == 1 || i % 5 == 4));
    assert_eq!(pages(&all, request.clone(), 10), expected);
    let behind = ListRequest {
        after: Some(id("0999")),
        ..request
    };
    let expected: Vec<String> = expected
        .into_iter()
        .filter(|id| id.as_str() > "0999")
        .collect();
    assert_eq!(pages(&all, behind, 10), expected);

    let whole = all.list(&ListRequest::default(), count(250));
    assert_eq!(whole.expect("lists").next, None, "nothing follows");

    let filter = Filter::from_json(&json!({"must": [{"field": "m", "eq": 1}]}));
    let refused = ListRequest {
        filter: Some(filter.expect("a filter")),
        ..ListRequest::default()
    };
    let refused = all.list(&refused, count(1)).expect_err("no such field");
    assert!(
        refused.to_string().contains("not a declared field"),
        "{refused}"
    );
}

#[test]
fn a_page_ends_early_where_it_has_looked_at_enough_and_damaged_items_count() {
    let store = model::Kept(std::sync::Arc::new(crate::store::MemoryStore::new()));
    let engine = Engine::with_store(Box::new(store.clone()), None, small()).expect("opens");
    let all = filled(&engine);
    let mut batch = Batch::default();
    for i in 100..130 {
        let key = catalog::item_key(0, &id(&format!("{i:03}")));
        batch.put(key, b"damaged".to_vec());
    }
    store.commit(batch).expect("writes");
    let filter = Filter::from_json(&json!({"must": [{"field": "n", "eq": 9}]}));
    let mut request = ListRequest {
        filter: Some(filter.expect("a filter")),
        ..ListRequest::default()
    };
    // Nothing passes.
    let mut behind = Vec::new();
    loop {
        let page = all.list_within(&request, count(5), 40).expect("lists");
        assert_eq!(page.items, []);
        let Some(next) = page.next else { break };
        behind.push(next.to_string());
        request.after = Some(next);
    }
    assert_eq!(behind, ["039", "079", "119", "159", "199", "239"]);
    let found = pages(&all, ListRequest::default(), 7);
    assert_eq!(found.len(), 220);
    assert!(!found.contains(&"115".to_owned()));
}
