//! `POST /knn-service`

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use engine::Hit;
use serde_json::{Value, json};

use super::picture;
use crate::{
    access::Grant,
    body,
    doors::knn::KnnIn,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::parse,
};

/// Finds what is nearest. The client of clip-retrieval does not say that it sends JSON.
pub(crate) async fn search(
    state: Data<AppState>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    body::refuse_encoded(&request)?;
    let sent = body::read(&request, payload, &state).await?;
    let asked: KnnIn = parse(&sent.bytes)?;
    drop(sent.bytes);
    // What was asked may be a picture as large as the body.
    let room = sent.room;
    let caller = Caller {
        state: &state,
        client: Client::of(&request),
    };
    let found = asked.run(caller, &Grant::of(&request)).await?;
    drop(room);
    let base = {
        let connection = request.connection_info();
        format!("{}://{}", connection.scheme(), connection.host())
    };
    let hits = block("describing hits", move || {
        let hits = found.answer.hits.into_iter().enumerate();
        Ok(hits
            .map(|(i, hit)| {
                if i < found.whole {
                    let shown = picture::url_of(&state, &found.collection, &hit);
                    describe(hit, shown.map(|path| format!("{base}{path}")))
                } else {
                    json!({ "id": hit.id, "similarity": hit.score })
                }
            })
            .collect::<Vec<_>>())
    })
    .await?;
    Ok(HttpResponse::Ok().json(hits))
}

/// All of the payload, as clip-retrieval tells all columns, with a caption and an address where
/// there are any.
fn describe(hit: Hit, shown: Option<String>) -> Value {
    let mut out = hit.payload;
    let text = hit.text.map(Value::String);
    if !out.contains_key("caption") {
        let caption = text.or_else(|| out.get("name").cloned());
        out.insert("caption".into(), caption.unwrap_or_default());
    }
    if let (false, Some(url)) = (out.contains_key("url"), shown) {
        out.insert("url".into(), Value::String(url));
    }
    out.insert("id".into(), json!(hit.id));
    out.insert("similarity".into(), json!(hit.score));
    Value::Object(out)
}
