//! What is served where. Routes are thin: they read, call, and answer.

mod classify;
mod collections;
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

use actix_web::{
    HttpRequest, HttpResponse, Resource, Route,
    web::{self, ServiceConfig},
};

pub(crate) use self::{
    lines::Line,
    picture::file as picture_file,
    stream::{Destination, answer},
};
use crate::reply::ApiError;

/// Adds every route.
pub(crate) fn configure(config: &mut ServiceConfig) {
    let get = |path, handler: Route| only(path, "GET", [handler]);
    config
        .service(get("/", web::get().to(page::index)))
        .service(get("/page/{file}", web::get().to(page::part)))
        .service(get("/healthz", web::get().to(status::alive)))
        .service(get("/readyz", web::get().to(status::ready)))
        .service(get("/metrics", web::get().to(status::metrics)))
        .service(get("/v1/model", web::get().to(status::model)))
        .service(only(
            "/v1/classify",
            "POST",
            [web::post().to(classify::classify)],
        ))
        .service(get("/v1/collections", web::get().to(collections::list)))
        .service(only(
            "/v1/collections/{collection}",
            "GET, PUT, DELETE",
            [
                web::get().to(collections::get),
                web::put().to(collections::put),
                web::delete().to(collections::delete),
            ],
        ))
        .service(only(
            "/v1/collections/{collection}/search",
            "POST",
            [web::post().to(search::search)],
        ))
        .service(only(
            "/v1/collections/{collection}/explain",
            "POST",
            [web::post().to(explain::explain)],
        ))
        .service(get(
            "/v1/collections/{collection}/map",
            web::get().to(map::map),
        ))
        .service(only(
            "/v1/collections/{collection}/calibrate",
            "POST",
            [web::post().to(collections::calibrate)],
        ))
        .service(only(
            "/v1/collections/{collection}/snapshots",
            "GET, POST",
            [
                web::get().to(snapshots::list),
                web::post().to(snapshots::create),
            ],
        ))
        .service(only(
            "/v1/collections/{collection}/snapshots/{snapshot}",
            "GET, DELETE",
            [
                web::get().to(snapshots::get),
                web::delete().to(snapshots::delete),
            ],
        ))
        .service(only(
            "/v1/collections/{collection}/snapshots/{snapshot}/restore",
            "POST",
            [web::post().to(snapshots::restore)],
        ))
        .service(only(
            "/v1/collections/{collection}/items",
            "POST",
            [web::post().to(items::post)],
        ))
        .service(only(
            "/v1/collections/{collection}/items/{id}",
            "GET, PATCH, DELETE",
            [
                web::get().to(items::get),
                web::patch().to(items::patch),
                web::delete().to(items::delete),
            ],
        ))
        .service(get(
            "/v1/collections/{collection}/items/{id}/image",
            web::get().to(picture::picture),
        ));
    configure_heads(config);
    configure_jobs(config);
    configure_doors(config);
}

/// Adds the routes of classifiers.
fn configure_heads(config: &mut ServiceConfig) {
    const HEAD: &str = "/v1/collections/{collection}/heads/{head}";
    let get = |path: &str, handler: Route| only(&format!("{HEAD}{path}"), "GET", [handler]);
    let post = |path: &str, handler: Route| only(&format!("{HEAD}{path}"), "POST", [handler]);
    config
        .service(only(
            "/v1/collections/{collection}/heads",
            "GET",
            [web::get().to(heads::list)],
        ))
        .service(only(
            HEAD,
            "GET, PUT, DELETE",
            [
                web::get().to(heads::get),
                web::put().to(heads::put),
                web::delete().to(heads::delete),
            ],
        ))
        .service(get("/versions", web::get().to(heads::versions)))
        .service(get("/export", web::get().to(heads::export)))
        .service(post("/rollback", web::post().to(heads::roll_back)))
        .service(post("/predict", web::post().to(heads::predict)))
        .service(post("/suggest", web::post().to(heads::suggest)))
        .service(only(
            &format!("{HEAD}/import"),
            "PUT",
            [web::put().to(heads::import)],
        ));
}

/// Adds the routes of long work.
fn configure_jobs(config: &mut ServiceConfig) {
    let get = |path, handler: Route| only(path, "GET", [handler]);
    let post = |path, handler: Route| only(path, "POST", [handler]);
    config
        .service(get("/v1/jobs", web::get().to(jobs::list)))
        .service(only(
            "/v1/jobs/{id}",
            "GET, DELETE",
            [web::get().to(jobs::get), web::delete().to(jobs::delete)],
        ))
        .service(post(
            "/v1/collections/{collection}/heads/{head}/apply",
            web::post().to(jobs::apply),
        ))
        .service(post(
            "/v1/collections/{collection}/import",
            web::post().to(jobs::import),
        ))
        .service(post(
            "/v1/collections/{collection}/reencode",
            web::post().to(jobs::reencode),
        ));
}

/// Adds the routes of other services.
fn configure_doors(config: &mut ServiceConfig) {
    let get = |path, handler: Route| only(path, "GET", [handler]);
    let post = |path, handler: Route| only(path, "POST", [handler]);
    config
        .service(get("/v1/models", web::get().to(doors::models)))
        .service(get("/v1/models/{model:.+}", web::get().to(doors::model)))
        .service(post("/v1/embeddings", web::post().to(doors::embeddings)))
        .service(get("/health", web::get().to(doors::health)))
        .service(get("/info", web::get().to(doors::info)))
        .service(post("/embed", web::post().to(doors::embed)))
        .service(post(
            "/zero-shot-image-classification",
            web::post().to(doors::zero_shot),
        ))
        .service(post("/knn-service", web::post().to(knn::search)));
}

/// A resource that answers any other method with what it allows.
fn only<const N: usize>(path: &str, allowed: &'static str, routes: [Route; N]) -> Resource {
    #[cfg(test)]
    registered::add(path, allowed);
    let resource = routes
        .into_iter()
        .fold(web::resource(path), Resource::route);
    resource.default_service(web::to(move |request: HttpRequest| async move {
        let method = request.method().to_string();
        Err::<HttpResponse, _>(ApiError::Method { method, allowed })
    }))
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

/// What was registered on this thread, for the test of the table of who may do what.
#[cfg(test)]
pub(crate) mod registered {
    use std::cell::RefCell;

    thread_local! {
        static ALL: RefCell<Vec<(String, &'static str)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn add(path: &str, allowed: &'static str) {
        ALL.with_borrow_mut(|all| all.push((path.to_owned(), allowed)));
    }

    pub(crate) fn clear() {
        ALL.take();
    }

    /// Paths with the methods that they allow.
    pub(crate) fn take() -> Vec<(String, &'static str)> {
        ALL.take()
    }
}
