//! The lines of an NDJSON body, a window at a time, as they arrive.

use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};

use crate::{
    body::{self, BodyRoom},
    config::Limits,
    reply::ApiError,
};

/// A line and its number, from 1.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) bytes: Result<Bytes, ApiError>,
}

/// Splits a body into lines of bounded length.
pub(super) struct Lines {
    payload: Payload,
    buffer: BytesMut,
    number: usize,
    /// Inside a line that was too long and has been refused.
    skipping: bool,
    /// Why the body broke, while lines that arrived before are worked on.
    broken: Option<ApiError>,
    /// For what is in the buffer and in the last window.
    room: BodyRoom,
}

impl Lines {
    /// Nothing has been read yet.
    pub(super) fn new(payload: Payload, room: BodyRoom) -> Self {
        Self {
            payload,
            buffer: BytesMut::new(),
            number: 0,
            skipping: false,
            broken: None,
            room,
        }
    }

    /// Reads on and keeps nothing: a client that sends all before it reads will then read.
    pub(super) async fn skip_rest(&mut self, limits: &Limits) {
        self.buffer.clear();
        self.room.shrink(0);
        while let Ok(Some(_)) = body::next_chunk(&mut self.payload, limits).await {}
    }

    /// The lines that have arrived, at least one unless the body has ended.
    pub(super) async fn window(&mut self, limits: &Limits) -> Result<Vec<Line>, ApiError> {
        let (mut window, mut bytes) = (Vec::new(), 0);
        // The last window has been worked on.
        self.room.shrink(self.buffer.len());
        while window.len() < limits.window() && bytes < limits.body_bytes {
            if let Some(line) = self.buffered(limits) {
                bytes += line.bytes.as_ref().map_or(0, Bytes::len);
                window.push(line);
                continue;
            }
            let chunk = if window.is_empty() {
                if let Some(error) = self.broken.take() {
                    return Err(error);
                }
                // Ends after a pause: streams may wait for the room that they hold themselves.
                self.room.wait(self.buffer.len(), limits).await?;
                body::next_chunk(&mut self.payload, limits).await?
            } else {
                // What has arrived is worked on before more is waited for.
                match self.payload.next().now_or_never().map(Option::transpose) {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => {
                        // It would not come again.
                        let message = error.to_string();
                        self.broken = Some(ApiError::Form { message });
                        break;
                    }
                    None => break,
                }
            };
            match chunk {
                Some(chunk) => {
                    self.buffer.extend_from_slice(&chunk);
                    // One chunk too many is little; a window that is begun waits for no room.
                    if self.room.take(chunk.len()).is_err() && !window.is_empty() {
                        break;
                    }
                }
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
