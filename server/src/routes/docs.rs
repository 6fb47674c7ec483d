//! The description of all routes, and the page at `/docs` that shows it: Swagger UI, which the binary
//! brings along, so that nothing is loaded from elsewhere.

use actix_web::{
    HttpResponse,
    http::header::{self, ContentEncoding},
    web::Path,
};

use super::page;
use crate::reply::ApiError;

/// `swagger-ui.css` and `swagger-ui-bundle.js`, packed as `build.rs` found them.
const SWAGGER_STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
const SWAGGER_SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));

/// The description of all routes.
///
/// As `OpenAPI` 3.1. `docs/openapi.json` is a copy of it.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Server",
    responses((status = 200, description = "This document.", body = Object)),
)]
pub(crate) async fn openapi() -> HttpResponse {
    page::file("application/json", super::openapi_json())
}

/// The page that shows the description of all routes.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "Page",
    responses((status = 200, description = "HTML.", body = String, content_type = "text/html; charset=utf-8")),
)]
pub(crate) async fn page() -> HttpResponse {
    page::file(
        "text/html; charset=utf-8",
        include_str!("../../assets/docs.html"),
    )
}

/// A file of that page.
///
/// Those of Swagger UI are packed with gzip, whatever the request accepts.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "docs_file",
    tag = "Page",
    params(("file" = String, Path, description = "Its name.", example = "start.js")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/css; charset=utf-8"),
            (String = "text/javascript; charset=utf-8"),
        )),
    ),
)]
pub(crate) async fn file(name: Path<String>) -> Result<HttpResponse, ApiError> {
    const STYLE: &str = "text/css; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    match name.as_str() {
        "docs.css" => Ok(page::file(STYLE, include_str!("../../assets/docs.css"))),
        "start.js" => Ok(page::file(SCRIPT, include_str!("../../assets/docs.js"))),
        "swagger-ui.css" => Ok(packed(STYLE, SWAGGER_STYLE)),
        "swagger-ui-bundle.js" => Ok(packed(SCRIPT, SWAGGER_SCRIPT)),
        name => Err(ApiError::NoRoute {
            path: format!("/docs/{name}"),
        }),
    }
}

fn packed(kind: &'static str, bytes: &'static [u8]) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header(ContentEncoding::Gzip)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(bytes)
}
