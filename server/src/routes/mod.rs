//! What is served where. Routes are thin: they read, call, and answer.

mod classify;
mod collections;
mod docs;
mod doors;
mod explain;
mod form;
mod heads;
mod items;
mod jobs;
mod knn;
mod lines;
mod map;
mod page;
mod picture;
mod search;
mod snapshots;
mod status;
mod stream;

use std::sync::LazyLock;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};

pub(crate) use self::{
    lines::Line,
    picture::file as picture_file,
    stream::{Destination, answer},
};
use crate::{
    openapi::{self, Entry, errors},
    reply::ApiError,
};

/// Lists handlers with the errors that each may end in. The method and the path of a handler are what
/// its `#[utoipa::path]` says.
macro_rules! routes {
    ($($module:ident::$handler:ident [$($codes:ident)*])+) => {
        pastey::paste! {
            vec![$(
                Entry::new::<$module::[<__path_ $handler>]>(
                    web::to($module::$handler),
                    &[$(errors::$codes),*],
                ),
            )+]
        }
    };
}

/// Every route, in the order of the description.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<Entry> {
    routes! {
        search::search [BODY KIND JSON ENCODE COLLECTION OF_MODEL ITEM]
        classify::classify [BODY KIND JSON ENCODE COLLECTION OF_MODEL]

        items::post [QUERY BODY KIND JSON ENCODE COLLECTION OF_MODEL WRITE]
        items::list [QUERY COLLECTION TURN]
        items::get [QUERY COLLECTION ITEM]
        items::patch [QUERY BODY KIND JSON COLLECTION ITEM WRITE]
        items::delete [QUERY COLLECTION ITEM WRITE]
        picture::picture [COLLECTION ITEM PICTURE]

        collections::list []
        collections::get [COLLECTION]
        collections::put [BODY KIND JSON COLLECTION OF_MODEL]
        collections::delete [COLLECTION]
        collections::calibrate [BODY KIND JSON COLLECTION]

        map::map [QUERY COLLECTION ENCODE]
        explain::explain [BODY KIND JSON ENCODE COLLECTION OF_MODEL ITEM PICTURE]

        heads::list [COLLECTION HEADS]
        heads::put [BODY KIND JSON ENCODE COLLECTION OF_MODEL MAKE_HEAD]
        heads::get [QUERY COLLECTION HEAD]
        heads::delete [COLLECTION HEAD]
        heads::versions [COLLECTION HEAD]
        heads::roll_back [BODY KIND JSON COLLECTION HEAD]
        heads::predict [BODY KIND JSON ENCODE COLLECTION OF_MODEL HEAD]
        heads::suggest [BODY KIND JSON COLLECTION HEAD]
        heads::export [QUERY COLLECTION HEAD]
        heads::import [BODY KIND JSON COLLECTION MAKE_HEAD]

        jobs::list [JOBS]
        jobs::get [JOBS JOB]
        jobs::delete [JOBS JOB]
        jobs::apply [BODY KIND JSON COLLECTION HEAD JOBS MAKE_JOB]
        jobs::import [BODY KIND COLLECTION OF_MODEL JOBS MAKE_JOB]
        jobs::reencode [BODY KIND JSON COLLECTION JOBS MAKE_JOB]

        snapshots::list [COLLECTION SNAPSHOTS]
        snapshots::create [BODY KIND JSON COLLECTION SNAPSHOTS MAKE_SNAPSHOT]
        snapshots::get [COLLECTION SNAPSHOTS SNAPSHOT]
        snapshots::delete [COLLECTION SNAPSHOTS SNAPSHOT]
        snapshots::restore [BODY KIND JSON COLLECTION SNAPSHOTS SNAPSHOT RESTORE]

        doors::embeddings [BODY KIND JSON ENCODE MODEL]
        doors::models []
        doors::model [MODEL]
        doors::embed [BODY KIND JSON ENCODE]
        doors::info []
        doors::health []
        doors::zero_shot [BODY KIND JSON ENCODE]
        knn::search [BODY KIND JSON ENCODE COLLECTION OF_MODEL]

        status::alive []
        status::ready []
        status::metrics []
        status::model []
        docs::openapi []

        page::index []
        page::part [FILE]
        docs::page []
        docs::file [FILE]
    }
}

/// Adds every route. A path answers other methods with what it allows.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let mut left = all();
    while let Some(first) = left.first() {
        let pattern = first.pattern.clone();
        let (same, others) = left.into_iter().partition(|e: &Entry| e.pattern == pattern);
        left = others;
        config.service(resource(&pattern, same));
    }
}

fn resource(pattern: &str, entries: Vec<Entry>) -> actix_web::Resource {
    let methods: Vec<_> = entries.iter().map(|entry| entry.method.as_str()).collect();
    let allowed = methods.join(", ");
    let mut resource = web::resource(pattern);
    for entry in entries {
        resource = resource.route(entry.route);
    }
    resource.default_service(web::to(move |request: HttpRequest| {
        let (method, allowed) = (request.method().to_string(), allowed.clone());
        async move { Err::<HttpResponse, _>(ApiError::Method { method, allowed }) }
    }))
}

/// The description of all routes as `OpenAPI` 3.1, as `GET /openapi.json` serves it.
pub fn openapi_json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let description = openapi::describe(&all());
        format!("{description:#}\n")
    });
    &JSON
}

/// The answer to every path that is not served.
pub(crate) async fn no_route(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::NoRoute {
        path: request.path().to_owned(),
    })
}

/// Milliseconds since `started`, to a microsecond.
fn took_ms(started: std::time::Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
