//! The page at `/`: three files inside the binary.

use actix_web::{HttpResponse, http::header};

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

/// Its script.
#[utoipa::path(
    get,
    path = "/app.js",
    operation_id = "page_script",
    tag = "Page",
    responses((status = 200, description = "A script.", body = String, content_type = "text/javascript; charset=utf-8")),
)]
pub(crate) async fn script() -> HttpResponse {
    file(
        "text/javascript; charset=utf-8",
        include_str!("../../assets/app.js"),
    )
}

/// Its style.
#[utoipa::path(
    get,
    path = "/style.css",
    operation_id = "page_style",
    tag = "Page",
    responses((status = 200, description = "A style sheet.", body = String, content_type = "text/css; charset=utf-8")),
)]
pub(crate) async fn style() -> HttpResponse {
    file(
        "text/css; charset=utf-8",
        include_str!("../../assets/style.css"),
    )
}

pub(super) fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
