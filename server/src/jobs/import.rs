//! Items added from the lines of a file, a window at a time.

use std::{
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use bytes::Bytes;
use engine::Durability;
use fs_err::File;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    apply::read,
    run::{Ended, Running},
    spool,
};
use crate::{
    reply::ApiError,
    routes::{Destination, Line, answer},
    state::block,
    tower::Client,
};

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    file: String,
}

/// Where to go on.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct At {
    offset: u64,
    /// Lines before it.
    line: usize,
    inserted: u64,
    updated: u64,
}

pub(super) async fn run(running: &mut Running) -> Result<Ended, ApiError> {
    let Spec { file } = read(&running.job.spec)?;
    let mut at: At = read(&running.job.checkpoint).unwrap_or_default();
    let state = running.state.clone();
    let path = spool::path(&state.jobs, &file).ok_or(ApiError::NoJobs)?;
    let into = Destination {
        collection: state.collection_of_model(&running.job.collection)?,
        durability: Durability::Flushed,
        client: Client::own(),
    };
    loop {
        if let Some(ended) = running.is_to_end() {
            return Ok(ended);
        }
        let (path, limits) = (
            path.clone(),
            (state.limits.window(), state.limits.body_bytes),
        );
        let (lines, offset, line) =
            block("reading lines", move || window(path, at, limits)).await?;
        if lines.is_empty() && offset == at.offset {
            break;
        }
        for mut result in answer(&state, &into, lines).await? {
            running.job.done += 1;
            let line = result["line"].take();
            match result["status"].as_str() {
                Some("inserted") => at.inserted += 1,
                Some(_) => at.updated += 1,
                None => {
                    if is_of_the_server(&result) {
                        let message = result["error"]["message"].as_str().unwrap_or("");
                        let message = format!("line {line}: {message}");
                        return Ok(Ended::Failed(message, json!({ "errors": running.named })));
                    }
                    running.fail_with("line", &line, &result["error"]);
                }
            }
        }
        (at.offset, at.line) = (offset, line);
        running.checkpoint(json!(at)).await?;
    }
    Ok(Ended::Done(json!({
        "inserted": at.inserted,
        "updated": at.updated,
        "errors": running.named,
    })))
}

/// Whether a line failed for a reason that all others would fail for, too.
fn is_of_the_server(result: &Value) -> bool {
    let code = result["error"]["code"].as_str().unwrap_or_default();
    [
        "internal",
        "collection_not_found",
        "unavailable",
        "storage_full",
    ]
    .contains(&code)
}

/// The next lines that are not blank, where the one after them begins, and its number less one.
fn window(
    path: PathBuf,
    at: At,
    (most, line_bytes): (usize, usize),
) -> Result<(Vec<Line>, u64, usize), ApiError> {
    let failed = |e| ApiError::internal("reading what is imported", e);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(at.offset)).map_err(failed)?;
    let mut file = BufReader::new(file);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let (mut offset, mut number) = (at.offset, at.line);
    while lines.len() < most && bytes < line_bytes {
        let mut line = Vec::new();
        let mut part = file.by_ref().take(line_bytes as u64 + 1);
        let read = part.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break;
        }
        offset += read as u64;
        number += 1;
        if line.len() > line_bytes && line.last() != Some(&b'\n') {
            // Read to its end, and nothing of it kept.
            loop {
                let buffer = file.fill_buf().map_err(failed)?;
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let used = end.map_or(buffer.len(), |end| end + 1);
                let ended = end.is_some() || buffer.is_empty();
                file.consume(used);
                offset += used as u64;
                if ended {
                    break;
                }
            }
            let message = format!("the line has more than {line_bytes} bytes");
            lines.push(Line {
                number,
                bytes: Err(ApiError::TooLarge {
                    field: None,
                    message,
                }),
            });
        } else if !line.trim_ascii().is_empty() {
            bytes += line.len();
            lines.push(Line {
                number,
                bytes: Ok(Bytes::from(line)),
            });
        }
    }
    Ok((lines, offset, number))
}
