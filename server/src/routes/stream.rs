//! Items as NDJSON: one object per line in, one result per line out, while more comes in.
//!
//! Lines that have arrived are encoded together and kept together, a window at a time. A full
//! queue slows the stream down instead of ending it. A window is begun only when its results can
//! be taken, so that nothing is kept whose result is lost.

use std::{sync::Arc, time::Duration};

use actix_web::{
    Error, HttpResponse,
    web::{Data, Payload},
};
use bytes::Bytes;
use engine::{Collection, Durability};
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{Permit, Sender, channel},
    time::timeout,
};

use super::lines::{Line, Lines};
use crate::{
    answers::ChangedOut,
    body::BodyRoom,
    config::Limits,
    content::Patience,
    ingest::{NewItem, encode, keep_each},
    reply::ApiError,
    state::{AppState, Caller},
    tower::Client,
    trace::Trace,
    wire::parse,
};

/// Windows of results that wait for a client which sends everything before it reads.
const RESULTS: usize = 4_096;

/// Where the items of a stream go, when they are acknowledged, and who sends them.
pub(crate) struct Destination {
    pub(crate) collection: Arc<Collection>,
    pub(crate) durability: Durability,
    pub(crate) client: Client,
}

/// Answers at once and goes on in the background; ends with the body, or when the client is gone
/// and all that came from it is worked on.
pub(super) fn stream(state: Data<AppState>, into: Destination, payload: Payload) -> HttpResponse {
    let (send, receive) = channel::<Bytes>(RESULTS);
    let mut lines = Lines::new(payload, BodyRoom::new(&state));
    let run = async move {
        if let Err(error) = run(&state, &into, &mut lines, &send).await {
            tracing::warn!(%error, "a stream of items ended early");
            if !matches!(error, ApiError::Form { .. } | ApiError::Slow { .. }) {
                lines.skip_rest(&state.limits).await;
            }
            if let Ok(Some(slot)) = slot(&send, &state.limits).await {
                slot.send(line_of(&json!({ "error": error.to_json() })));
            }
        }
    };
    actix_web::rt::spawn(Trace::current().follow(run));
    let results = unfold(receive, |mut receive| async {
        receive
            .recv()
            .await
            .map(|bytes| (Ok::<_, Error>(bytes), receive))
    });
    HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .streaming(results)
}

async fn run(
    state: &Data<AppState>,
    into: &Destination,
    lines: &mut Lines,
    send: &Sender<Bytes>,
) -> Result<(), ApiError> {
    loop {
        let slot = slot(send, &state.limits).await?;
        let window = lines.window(&state.limits).await?;
        if window.is_empty() {
            return Ok(());
        }
        let results = answer(state, into, window).await?;
        let bytes: Vec<u8> = results.iter().flat_map(line_of).collect();
        if let Some(slot) = slot {
            slot.send(bytes.into());
        }
    }
}

/// A place for results, for which a client that does not read makes no room; `None` when the
/// client is gone.
async fn slot<'a>(
    send: &'a Sender<Bytes>,
    limits: &Limits,
) -> Result<Option<Permit<'a, Bytes>>, ApiError> {
    let pause_ms = limits.body_pause_ms;
    match timeout(Duration::from_millis(pause_ms), send.reserve()).await {
        Ok(slot) => Ok(slot.ok()),
        Err(_) => Err(ApiError::Unread { pause_ms }),
    }
}

/// Results in the order of the lines.
pub(crate) async fn answer(
    state: &Data<AppState>,
    into: &Destination,
    lines: Vec<Line>,
) -> Result<Vec<Value>, ApiError> {
    let limits = state.limits.clone();
    let read = move || {
        let item = |line: Line| {
            (
                line.number,
                line.bytes
                    .and_then(|b| NewItem::from_wire(parse(&b)?, &limits)),
            )
        };
        Ok(lines.into_iter().map(item).collect::<Vec<_>>())
    };
    let read = state.pools.read("reading lines", read).await?;
    let (mut results, mut numbers, mut items) = (Vec::new(), Vec::new(), Vec::new());
    for (number, item) in read {
        match item {
            Ok(item) => {
                numbers.push(number);
                items.push(item);
            }
            Err(error) => results.push((number, json!({ "error": error.to_json() }))),
        }
    }
    let caller = Caller {
        state,
        client: into.client,
    };
    let (mut kept_numbers, mut encoded) = (Vec::new(), Vec::new());
    for (number, item) in numbers
        .into_iter()
        .zip(encode(caller, items, Patience::Wait).await?)
    {
        match item {
            Ok(item) => {
                kept_numbers.push(number);
                encoded.push(item);
            }
            Err(error) => results.push((number, json!({ "error": error.to_json() }))),
        }
    }
    let collection = Arc::clone(&into.collection);
    match keep_each(state, collection, encoded, into.durability).await {
        Ok(written) => {
            let result = |stored| match stored {
                Ok(stored) => json!(ChangedOut::new(stored, written.durability)),
                Err(error) => json!({ "error": ApiError::to_json(&error) }),
            };
            results.extend(
                kept_numbers
                    .into_iter()
                    .zip(written.outcomes.into_iter().map(result)),
            );
        }
        Err(error) => {
            let error = error.to_json();
            results.extend(
                kept_numbers
                    .into_iter()
                    .map(|n| (n, json!({ "error": error }))),
            );
        }
    }
    results.sort_by_key(|(number, _)| *number);
    let numbered = results.into_iter().map(|(number, mut result)| {
        result["line"] = json!(number);
        result
    });
    Ok(numbered.collect())
}

fn line_of(value: &Value) -> Bytes {
    let mut line = value.to_string();
    line.push('\n');
    line.into()
}
