//! What can be said of the description without a server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::routes;

fn description() -> Value {
    describe(&routes::all())
}

#[test]
fn a_path_is_shown_without_what_its_braces_match() {
    let paths = &description()["paths"];
    assert!(paths["/v1/models/{model}"]["get"].is_object());
    let odd = paths.as_object().expect("paths").keys();
    assert_eq!(odd.filter(|path| path.contains(':')).count(), 0);
}

#[test]
fn every_route_has_a_name_of_its_own_a_summary_and_an_answer() {
    let entries = routes::all();
    let mut names = BTreeSet::new();
    for entry in &entries {
        let said = entry.describe();
        let name = said["operationId"].as_str().expect("a name").to_owned();
        assert!(names.insert(name.clone()), "{name} is there twice");
        let summary = said["summary"].as_str().unwrap_or_default();
        assert!(summary.ends_with('.'), "{name}: {summary:?}");
        let tag = said["tags"][0].as_str().unwrap_or_default();
        assert!(TAGS.iter().any(|(known, _)| *known == tag), "{name}: {tag}");
        let body = &said["requestBody"];
        assert!(body.is_null() || body["content"].is_object(), "{name}");
        let responses = said["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|s| s.starts_with('2')), "{name}");
        let braces = entry.path().matches('{').count();
        let params = said["parameters"].as_array().map_or(0, |params| {
            params.iter().filter(|p| p["in"] == "path").count()
        });
        assert_eq!(params, braces, "{name}");
    }
    assert_eq!(names.len(), entries.len());
}

#[test]
fn a_name_stands_for_one_schema() {
    let mut known = BTreeMap::new();
    for (name, schema) in routes::all().into_iter().flat_map(|entry| entry.schemas) {
        let schema = json!(schema);
        let before = known.entry(name.clone()).or_insert_with(|| schema.clone());
        assert_eq!(*before, schema, "{name}");
    }
    assert!(known.len() > 60, "{} schemas", known.len());
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.push(to.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let description = description();
    let mut found = Vec::new();
    references(&description, &mut found);
    assert!(found.len() > 100);
    for to in found {
        let at = to.trim_start_matches('#');
        assert!(description.pointer(at).is_some(), "{to}");
    }
}

/// Attributes can only have literals, and the server has its limits elsewhere.
#[test]
fn the_bounds_that_are_documented_are_the_default_limits() {
    let schemas = &description()["components"]["schemas"];
    let limits = Limits::default();
    let at = |path: &str| {
        let found = schemas.pointer(path).unwrap_or_else(|| panic!("no {path}"));
        found.as_u64().expect("a number") as usize
    };
    assert_eq!(at("/SearchIn/properties/k/maximum"), limits.k);
    assert_eq!(at("/ClassifyIn/properties/labels/maxItems"), limits.labels);
    assert_eq!(at("/ClassifyIn/properties/ids/maxItems"), limits.items);
    assert_eq!(at("/ClassifyIn/properties/k/maximum"), limits.labels);
    assert_eq!(at("/KnnIn/properties/num_images/maximum"), limits.k);
    assert_eq!(at("/KnnIn/properties/num_result_ids/maximum"), limits.k);
    assert_eq!(at("/SearchIn/properties/parts/maxItems"), engine::MAX_PARTS);
    for text in ["SearchIn", "PartIn", "ItemIn", "ClassifyIn"] {
        let longest = at(&format!("/{text}/properties/text/maxLength"));
        assert_eq!(longest, limits.text_bytes, "{text}");
    }
    let many = |schema: &str| {
        let any = schemas[schema]["oneOf"].as_array().expect("a choice");
        let most = any.iter().find_map(|one| one["maxItems"].as_u64());
        most.expect("a bound") as usize
    };
    assert_eq!(many("ItemsIn"), limits.items);
    assert_eq!(many("TemplatesIn"), limits.prompts);
    assert_eq!(
        schemas["Filter"]["properties"]["must"]["maxItems"],
        json!(engine::MAX_CLAUSES)
    );
}
