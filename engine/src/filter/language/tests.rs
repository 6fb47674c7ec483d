use super::*;

fn error(filter: &Value) -> String {
    Filter::from_json(filter)
        .expect_err("is refused")
        .to_string()
}

#[test]
fn a_filter_comes_back_as_the_json_that_it_was() {
    let filter = json!({
        "must": [
            { "field": "a", "eq": "x" },
            { "field": "b", "in": [1, 2.5, true] },
            { "should": [{ "field": "c", "gte": 1, "lt": 5 }, { "field": "c", "gt": 7 }] },
        ],
        "should": [{ "field": "d", "contains": "Bike" }],
        "must_not": [{ "field": "e", "exists": false }, { "field": "c", "lte": -1 }],
    });
    let read = Filter::from_json(&filter).expect("is one");
    assert_eq!(read.to_json(), filter);
    let text = serde_json::to_string(&read).expect("writes");
    assert_eq!(serde_json::from_str::<Filter>(&text).expect("reads"), read);
    assert_eq!(
        Filter::from_json(&json!({})).expect("is one"),
        Filter::default()
    );
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    for (filter, start) in [
        (json!(3), "the filter: got 3, expected an object"),
        (json!({ "maybe": [] }), "maybe: unknown key"),
        (json!({ "must": {} }), "must: got {}, expected an array"),
        (json!({ "must": ["a"] }), "must[0]: got \"a\", expected"),
        (
            json!({ "must": [{}] }),
            "must[0]: a condition needs a field",
        ),
        (
            json!({ "must": [{ "eq": 1 }] }),
            "must[0]: a condition needs a field",
        ),
        (
            json!({ "must": [{ "field": 1, "eq": 1 }] }),
            "must[0].field: got 1",
        ),
        (
            json!({ "must": [{ "field": "a" }] }),
            "must[0]: a condition needs exactly one",
        ),
        (
            json!({ "must": [{ "field": "a", "eq": 1, "gt": 0 }] }),
            "must[0]: a condition needs exactly one",
        ),
        (
            json!({ "must": [{ "field": "a", "gt": 1, "gte": 0 }] }),
            "must[0].gte: ",
        ),
        (
            json!({ "must": [{ "field": "a", "lt": 1, "lte": 0 }] }),
            "must[0].lte: ",
        ),
        (
            json!({ "must": [{ "field": "a", "eq": null }] }),
            "must[0].eq: got null",
        ),
        (
            json!({ "must": [{ "field": "a", "in": 1 }] }),
            "must[0].in: got 1",
        ),
        (
            json!({ "must": [{ "field": "a", "in": [1, []] }] }),
            "must[0].in[1]: got []",
        ),
        (
            json!({ "must": [{ "field": "a", "exists": 1 }] }),
            "must[0].exists: got 1",
        ),
        (
            json!({ "must": [{ "field": "a", "contains": 1 }] }),
            "must[0].contains: ",
        ),
        (
            json!({ "must": [{ "field": "a", "like": 1 }] }),
            "must[0].like: unknown key",
        ),
        (
            json!({ "should": [{ "must_not": [{ "must": 1 }] }] }),
            "should[0].must_not[0].must: got 1",
        ),
    ] {
        let message = error(&filter);
        assert!(message.starts_with(start), "{filter}: {message}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let condition = json!({ "field": "a", "eq": 1 });
    let nested = |depth: usize| {
        (1..depth).fold(
            json!({ "must": [condition] }),
            |inner, _| json!({ "must": [inner] }),
        )
    };
    assert!(Filter::from_json(&nested(MAX_FILTER_DEPTH)).is_ok());
    assert!(error(&nested(MAX_FILTER_DEPTH + 1)).contains("more than 8 deep"));
    let wide = |n: usize| json!({ "must": vec![condition.clone(); n] });
    assert!(Filter::from_json(&wide(MAX_CLAUSES)).is_ok());
    assert!(error(&wide(MAX_CLAUSES + 1)).starts_with("must[256]: more than 256"));
    let long = json!({ "must": [{ "field": "a", "in": vec![1; MAX_IN_VALUES + 1] }] });
    assert!(error(&long).starts_with("must[0].in: got 1025 values"));
}

/// Found by fuzzing: a filter inside another one may have no conditions, but was written as `{}`,
/// which reads as a condition without a field and was refused.
#[test]
fn a_filter_without_conditions_inside_another_comes_back() {
    let inner = Clause::Filter(Filter::default());
    let filter = Filter {
        must: vec![inner.clone()],
        must_not: vec![inner],
        ..Filter::default()
    };
    let written = filter.to_json();
    assert_eq!(Filter::from_json(&written).ok(), Some(filter), "{written}");
}
