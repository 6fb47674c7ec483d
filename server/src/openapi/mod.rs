//! The description of this server, made of the same list as its routes.
//!
//! `#[utoipa::path]` at a handler says its method, path and answers, and `routes` registers what it
//! says: there is no route without a description, and none is described that is not served. Errors
//! are added here, from one table.

pub(crate) mod errors;
pub(crate) mod examples;
pub(crate) mod learning;
pub(crate) mod params;
pub(crate) mod twins;

use std::collections::BTreeSet;

use actix_web::{Route, http::Method};
use serde_json::{Map, Value, json};
use utoipa::{
    __dev::{SchemaReferences, Tags},
    PartialSchema, ToSchema,
    openapi::{RefOr, path::HttpMethod, path::Operation, schema::Schema},
};

use crate::{config::Limits, doors::Dialect, observe::REQUEST_ID};
use errors::Codes;

/// A route and what is said of it.
pub(crate) struct Entry {
    /// As `actix_web` reads it: braces may say what they match.
    pub(crate) pattern: String,
    pub(crate) method: Method,
    pub(crate) route: Route,
    operation: Operation,
    schemas: Vec<(String, RefOr<Schema>)>,
    codes: BTreeSet<&'static str>,
}

impl Entry {
    /// What `P` says, answered by `route`; `codes` are the errors that it may end in.
    pub(crate) fn new<P>(route: Route, codes: &[Codes]) -> Self
    where
        P: utoipa::Path + SchemaReferences + for<'t> Tags<'t>,
    {
        let method = method(P::methods().first());
        let pattern = P::path();
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        let mut all: BTreeSet<_> = codes.iter().copied().flatten().copied().collect();
        all.extend(errors::ANY);
        if !method.is_safe() {
            all.extend(errors::UNSAFE);
        }
        if pattern.contains('{') {
            all.extend(errors::PATH);
        }
        Self {
            route: route.method(method.clone()),
            pattern,
            method,
            operation,
            schemas,
            codes: all,
        }
    }

    /// The path as a client reads it.
    fn path(&self) -> String {
        let mut path = String::new();
        let mut rest = self.pattern.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, after) = after.split_once('}').unwrap_or((after, ""));
            let name = inside.split(':').next().unwrap_or_default();
            path = format!("{path}{before}{{{name}}}");
            rest = after;
        }
        path + rest
    }

    fn describe(&self) -> Value {
        let mut operation = json!(self.operation);
        // A body that may be left out may not be `null`.
        let content = operation.pointer_mut("/requestBody/content");
        let content = content.and_then(Value::as_object_mut);
        for (_, content) in content.into_iter().flatten() {
            let schema = &mut content["schema"];
            if schema["oneOf"][0]["type"] == "null" {
                *schema = schema["oneOf"][1].take();
            }
        }
        let responses = &mut operation["responses"];
        let codes: Vec<_> = self.codes.iter().copied().collect();
        for (status, response) in errors::responses(&codes, Dialect::of(&self.pattern)) {
            responses[status.to_string()] = response;
        }
        for (_, response) in responses.as_object_mut().into_iter().flatten() {
            response["headers"][REQUEST_ID.as_str()] =
                json!({ "$ref": "#/components/headers/RequestId" });
        }
        operation
    }
}

fn method(method: Option<&HttpMethod>) -> Method {
    match method {
        Some(HttpMethod::Post) => Method::POST,
        Some(HttpMethod::Put) => Method::PUT,
        Some(HttpMethod::Patch) => Method::PATCH,
        Some(HttpMethod::Delete) => Method::DELETE,
        Some(HttpMethod::Head) => Method::HEAD,
        Some(HttpMethod::Options) => Method::OPTIONS,
        Some(HttpMethod::Trace) => Method::TRACE,
        Some(HttpMethod::Get) | None => Method::GET,
    }
}

/// The whole description of these routes.
pub(crate) fn describe(entries: &[Entry]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for entry in entries {
        let path = paths.entry(entry.path()).or_insert_with(|| json!({}));
        path[entry.method.as_str().to_ascii_lowercase()] = entry.describe();
        let used = entry.schemas.iter();
        schemas.extend(used.map(|(name, schema)| (name.clone(), json!(schema))));
    }
    add::<errors::ErrorOut>(&mut schemas);
    add::<errors::OpenAiErrorOut>(&mut schemas);
    add::<errors::HuggingFaceErrorOut>(&mut schemas);
    bound_choices(&mut schemas, &Limits::default());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Diptych",
            "version": env!("CARGO_PKG_VERSION"),
            "description": introduction(&Limits::default()),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": TAGS.map(|(name, description)| json!({ "name": name, "description": description })),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                "RequestId": {
                    "description": "Names the request in the server's log: the one that was sent, \
                                    where it has 1 to 128 letters, digits, `-`, `_` and `.`, \
                                    otherwise a new one.",
                    "required": true,
                    "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
                },
            },
        },
    })
}

fn add<T: ToSchema>(schemas: &mut Map<String, Value>) {
    let mut used = vec![(T::name().into_owned(), <T as PartialSchema>::schema())];
    T::schemas(&mut used);
    schemas.extend(used.into_iter().map(|(name, schema)| (name, json!(schema))));
}

/// Says how many there may be where one or many may come: attributes of a variant cannot.
fn bound_choices(schemas: &mut Map<String, Value>, limits: &Limits) {
    for (name, schema) in schemas {
        let most = match name.as_str() {
            "TemplatesIn" => limits.prompts,
            "ItemsIn" => limits.items,
            name if name.starts_with("OneOrMany") => limits.items,
            _ => continue,
        };
        let any = schema["oneOf"].as_array_mut();
        for many in any
            .into_iter()
            .flatten()
            .filter(|one| one["type"] == "array")
        {
            many["minItems"] = json!(1);
            many["maxItems"] = json!(most);
        }
    }
}

const TAGS: [(&str, &str); 9] = [
    ("Search", "Find and classify."),
    (
        "Heads",
        "Classifiers learned from a few examples, or made of words: docs/heads.md.",
    ),
    ("Jobs", "Long work in the background: docs/jobs.md."),
    ("Items", "What a collection holds."),
    ("Collections", "Make, look at and remove collections."),
    (
        "Snapshots",
        "Copies of a collection as it was at one moment.",
    ),
    (
        "Doors",
        "What clients of other services ask for: docs/doors.md.",
    ),
    ("Server", "Its health, its figures, its model."),
    ("Page", "The pages that a browser shows."),
];

/// What holds for all routes, with the limits that a server has unless its operator says otherwise.
fn introduction(limits: &Limits) -> String {
    let Limits {
        body_bytes,
        items,
        k,
        labels,
        prompts,
        text_bytes,
        payload_bytes,
        picture_bytes,
        picture_pixels,
        picture_side,
        query_deadline_ms,
        ingest_deadline_ms,
        body_pause_ms,
        ..
    } = limits;
    format!(
        "Pictures and words in one searchable space. The examples can be sent as they are to \
         `diptych demo`, in the order of the collection `mine`: make it, add to it, change it.\n\n\
         Scores are cosines, higher is better. Times are in milliseconds (`_ms`), sizes in bytes \
         (`_bytes`). Unknown fields are refused by name. An answer may gain fields in later \
         versions.\n\n\
         Every error is `{{\"error\": {{\"code\", \"message\", \"field\"}}}}`, except at the doors of \
         other services; each route lists its codes. 429 and 503 say in `Retry-After` when to try \
         again.\n\n\
         | limit | default |\n|---|---|\n\
         | `body_bytes`: one body, or one line of a stream | {body_bytes} |\n\
         | `items`: items or inputs of one request | {items} |\n\
         | `k`: hits of one search | {k} |\n\
         | `labels` of one classification | {labels} |\n\
         | `prompts`: labels times templates | {prompts} |\n\
         | `text_bytes`: one text | {text_bytes} |\n\
         | `payload_bytes`: the payload of one item as JSON | {payload_bytes} |\n\
         | `picture_bytes`: one picture file | {picture_bytes} |\n\
         | `picture_pixels`: width times height | {picture_pixels} |\n\
         | `picture_side`: width or height | {picture_side} |\n\
         | `query_deadline_ms`: how long a query may wait for the model | {query_deadline_ms} |\n\
         | `ingest_deadline_ms`: the same of what is added | {ingest_deadline_ms} |\n\
         | `body_pause_ms`: how long a body may pause | {body_pause_ms} |\n"
    )
}

#[cfg(test)]
mod tests;
