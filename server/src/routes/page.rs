//! The page at `/`: a few files inside the binary.

use actix_web::{HttpResponse, http::header, web::Path};

use crate::reply::ApiError;

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A table of files below `assets/`, each with its media type and text.
macro_rules! files {
    ($($name:literal $kind:ident),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../../assets/", $name)))),*]
    };
}

/// What is served below `/page/`.
const FILES: &[(&str, &str, &str)] = files![
    "api.js" SCRIPT, "app.js" SCRIPT, "bars.js" SCRIPT, "chart.js" SCRIPT, "classify.js" SCRIPT,
    "detail.js" SCRIPT, "dom.js" SCRIPT, "drop.js" SCRIPT, "filters.js" SCRIPT, "health.js" SCRIPT,
    "jobs.js" SCRIPT, "map.js" SCRIPT, "pictures.js" SCRIPT, "query.js" SCRIPT, "results.js" SCRIPT,
    "search.js" SCRIPT, "style.css" CSS, "teach.js" SCRIPT, "views.css" CSS,
];

/// The page to search with.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    tag = "Page",
    responses((status = 200, description = "HTML.", body = String, content_type = "text/html; charset=utf-8")),
)]
pub(crate) async fn index() -> HttpResponse {
    file(
        "text/html; charset=utf-8",
        include_str!("../../assets/index.html"),
    )
}

/// A script or a style sheet of the page.
#[utoipa::path(
    get,
    path = "/page/{file}",
    operation_id = "page_file",
    tag = "Page",
    params(("file" = String, Path, description = "A file that the page names.", example = "app.js")),
    responses((status = 200, description = "The file.", content(
        (String = "text/javascript; charset=utf-8"),
        (String = "text/css; charset=utf-8"),
    ))),
)]
pub(crate) async fn part(name: Path<String>) -> Result<HttpResponse, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name.as_str());
    let none = || ApiError::NoRoute {
        path: format!("/page/{name}"),
    };
    found
        .map(|(_, kind, text)| file(kind, text))
        .ok_or_else(none)
}

pub(super) fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
