//! The page at `/`: three files inside the binary.

use actix_web::{HttpResponse, http::header};

/// `GET /`
pub(crate) async fn index() -> HttpResponse {
    file(
        "text/html; charset=utf-8",
        include_str!("../../assets/index.html"),
    )
}

/// `GET /app.js`
pub(crate) async fn script() -> HttpResponse {
    file(
        "text/javascript; charset=utf-8",
        include_str!("../../assets/app.js"),
    )
}

/// `GET /style.css`
pub(crate) async fn style() -> HttpResponse {
    file(
        "text/css; charset=utf-8",
        include_str!("../../assets/style.css"),
    )
}

fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text)
}
