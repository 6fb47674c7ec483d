//! `POST /knn-service`

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use engine::Hit;
use serde_json::Value;

use super::picture;
use crate::{
    access::Grant,
    body,
    doors::knn::{KnnHitOut, KnnIn},
    openapi::examples::PICTURE,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::Client,
    wire::parse,
};

/// Searches, as the client of clip-retrieval asks.
///
/// The body is read as JSON whatever its content type says: that client says none. Hits are not
/// filtered for what they show.
#[utoipa::path(
    post,
    path = "/knn-service",
    operation_id = "clip_retrieval",
    tag = "Doors",
    request_body(content = KnnIn, examples(
        ("words" = (summary = "By words", value = json!({
            "text": "rainbow", "modality": "image", "num_images": 3, "indice_name": "demo",
        }))),
        ("picture" = (summary = "By a picture, without near duplicates", value = json!({
            "image": PICTURE, "modality": "image", "num_images": 3, "num_result_ids": 9,
            "indice_name": "demo", "deduplicate": true,
        }))),
    )),
    responses((status = 200, description = "Hits, the best first.", body = Vec<KnnHitOut>)),
)]
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
                    KnnHitOut {
                        id: hit.id,
                        similarity: hit.score,
                        caption: None,
                        url: None,
                        rest: engine::Payload::new(),
                    }
                }
            })
            .collect::<Vec<_>>())
    })
    .await?;
    Ok(HttpResponse::Ok().json(hits))
}

/// All of the payload, as clip-retrieval tells all columns, with a caption and an address where
/// there are any.
fn describe(hit: Hit, shown: Option<String>) -> KnnHitOut {
    let mut rest = hit.payload;
    // What these are called is taken.
    rest.remove("id");
    rest.remove("similarity");
    let text = hit.text.map(Value::String);
    let caption = rest.remove("caption").or(text);
    let caption = caption.or_else(|| rest.get("name").cloned());
    KnnHitOut {
        id: hit.id,
        similarity: hit.score,
        caption: Some(caption.unwrap_or_default()),
        url: rest.remove("url").or(shown.map(Value::String)),
        rest,
    }
}
