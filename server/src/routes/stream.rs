//! Items as NDJSON: one object per line in, one result per line out, while more comes in.
//!
//! Lines that have arrived are encoded together and kept together, a window at a time. A full
//! queue slows the stream down instead of ending it.

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse,
    web::{Data, Payload},
};
use bytes::{Bytes, BytesMut};
use engine::Collection;
use futures_util::{FutureExt as _, StreamExt as _, stream::unfold};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};

use crate::{
    body,
    config::Limits,
    content::Patience,
    ingest::{NewItem, encode, keep},
    reply::ApiError,
    state::{AppState, block},
    wire::parse,
};

/// Windows of results that wait for a client which sends everything before it reads.
const RESULTS: usize = 4_096;

/// A line and its number, from 1.
struct Line {
    number: usize,
    bytes: Result<Bytes, ApiError>,
}

/// Answers at once and goes on in the background; ends when the client is gone.
pub(super) fn stream(
    state: Data<AppState>,
    collection: Arc<Collection>,
    payload: Payload,
) -> HttpResponse {
    let (send, receive) = channel::<Bytes>(RESULTS);
    actix_web::rt::spawn(async move {
        if let Err(error) = run(&state, &collection, payload, &send).await {
            // The client may be gone, which may be the error.
            let _ = send
                .send(line_of(&json!({ "error": error.to_json() })))
                .await;
        }
    });
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
    collection: &Arc<Collection>,
    payload: Payload,
    send: &Sender<Bytes>,
) -> Result<(), ApiError> {
    let mut lines = Lines {
        payload,
        buffer: BytesMut::new(),
        number: 0,
        skipping: false,
    };
    loop {
        let window = lines.window(&state.limits).await?;
        if window.is_empty() {
            return Ok(());
        }
        let results = answer(state, collection, window).await?;
        let bytes: Vec<u8> = results.iter().flat_map(line_of).collect();
        if send.send(bytes.into()).await.is_err() {
            return Ok(());
        }
    }
}

/// Results in the order of the lines.
async fn answer(
    state: &Data<AppState>,
    collection: &Arc<Collection>,
    lines: Vec<Line>,
) -> Result<Vec<Value>, ApiError> {
    let limits = state.limits.clone();
    let read = block("reading lines", move || {
        let item = |line: Line| {
            (
                line.number,
                line.bytes
                    .and_then(|b| NewItem::from_wire(parse(&b)?, &limits)),
            )
        };
        Ok(lines.into_iter().map(item).collect::<Vec<_>>())
    })
    .await?;
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
    let (mut kept_numbers, mut encoded) = (Vec::new(), Vec::new());
    for (number, item) in numbers
        .into_iter()
        .zip(encode(state, items, Patience::Wait).await?)
    {
        match item {
            Ok(item) => {
                kept_numbers.push(number);
                encoded.push(item);
            }
            Err(error) => results.push((number, json!({ "error": error.to_json() }))),
        }
    }
    match keep(state, Arc::clone(collection), encoded).await {
        Ok(stored) => {
            results.extend(
                kept_numbers
                    .into_iter()
                    .zip(stored.into_iter().map(|s| json!(s))),
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

/// Splits a body into lines of bounded length.
struct Lines {
    payload: Payload,
    buffer: BytesMut,
    number: usize,
    /// Inside a line that was too long and has been refused.
    skipping: bool,
}

impl Lines {
    /// The lines that have arrived, at least one unless the body has ended.
    async fn window(&mut self, limits: &Limits) -> Result<Vec<Line>, ApiError> {
        let (mut window, mut bytes) = (Vec::new(), 0);
        while window.len() < limits.window() && bytes < limits.body_bytes {
            if let Some(line) = self.buffered(limits) {
                bytes += line.bytes.as_ref().map_or(0, Bytes::len);
                window.push(line);
                continue;
            }
            let chunk = if window.is_empty() {
                body::next_chunk(&mut self.payload, limits).await?
            } else {
                // What has arrived is worked on before more is waited for. An error comes again.
                match self.payload.next().now_or_never() {
                    Some(chunk) => chunk.transpose().map_err(|error| ApiError::Form {
                        message: error.to_string(),
                    })?,
                    None => break,
                }
            };
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => break,
                // The last line may lack its end.
                None => self.buffer.extend_from_slice(b"\n"),
            }
        }
        Ok(window)
    }

    /// The next whole line in the buffer that is not blank.
    fn buffered(&mut self, limits: &Limits) -> Option<Line> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            let too_long = end.unwrap_or(self.buffer.len()) > limits.body_bytes;
            if let Some(end) = end {
                let line = self.buffer.split_to(end + 1).freeze();
                self.number += 1;
                let skipped = std::mem::take(&mut self.skipping);
                if skipped || line.trim_ascii().is_empty() {
                    continue;
                }
                if !too_long {
                    return Some(Line {
                        number: self.number,
                        bytes: Ok(line),
                    });
                }
            } else if self.skipping {
                self.buffer.clear();
                return None;
            } else if too_long {
                self.buffer.clear();
                self.skipping = true;
            } else {
                return None;
            }
            // A line that goes on is counted when its end comes.
            let number = self.number + usize::from(self.skipping);
            let message = format!("the line has more than {} bytes", limits.body_bytes);
            return Some(Line {
                number,
                bytes: Err(ApiError::TooLarge {
                    field: None,
                    message,
                }),
            });
        }
    }
}
