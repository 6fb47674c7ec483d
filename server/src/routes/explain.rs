//! `POST /v1/collections/{collection}/explain`: which parts of a picture are like a question.
//!
//! Windows of half the picture are laid over it, each is encoded as if it were a picture, and a cell of
//! the grid has the mean cosine of the windows that cover it. That is defined for every image tower, whatever
//! it does with its patches before it pools them, and it says what the tower would find there alone. The
//! hidden states of single patches say less: those of the last layer have seen the whole picture.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path, Payload},
};
use embedding::{Embedding, Modality};
use encoders::{DecodeLimits, Pixels};
use engine::{Collection, ItemId};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout_at;

use super::{items::item_id, picture, took_ms};
use crate::{
    body,
    content::{Content, encode_one},
    openapi::{learning::ExplainedOut, params::Demo},
    query,
    reply::ApiError,
    state::{AppState, Caller, block},
    tower::{Class, Client, Failed},
    wire::parse,
};

/// Cells along the side of a window.
const CELLS: usize = 4;
/// A window is half as wide as the short side of a picture, but no less than this part of the long one,
/// so that a panorama has no more windows than a square.
const PART: f64 = 3.0;

/// What is explained: an item, and exactly one of the others.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ExplainIn {
    id: String,
    text: Option<String>,
    image: Option<String>,
    /// Id of an item that is compared with.
    like: Option<String>,
}

/// Says which parts of an item's picture are like a text, a picture or another item.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/explain",
    operation_id = "explain",
    tag = "Search",
    params(Demo),
    request_body(content = ExplainIn, examples(
        ("text" = (summary = "Like words", value = json!({"id": "1f34e", "text": "a red apple"}))),
        ("like" = (summary = "Like another item", value = json!({"id": "1f34e", "like": "1f34e"}))),
    )),
    responses((status = 200, description = "A grid of cosines over the picture.", body = ExplainedOut)),
)]
pub(crate) async fn explain(
    state: Data<AppState>,
    name: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let started = Instant::now();
    let sent = body::read_json(&request, payload, &state).await?;
    let collection = state.collection_of_model(&name)?;
    let asked: ExplainIn = parse(&sent.bytes)?;
    // A few pictures' worth of pixels each: more at a time wait as they would for the tower.
    let turn = state.explaining.try_acquire();
    let _turn = turn.map_err(|_| ApiError::QueueFull)?;
    state.pools.query();
    let caller = Caller {
        state: &state,
        client: Client::of(&request),
    };
    let id = item_id(asked.id.clone())?;
    let query = question(caller, &collection, asked).await?;
    let (grid, pixels) = windows_of(&state, &name, &collection, id).await?;
    let rows = encode(caller, pixels).await?;
    let cosines: Vec<f32> = rows.iter().map(|row| row.cosine(&query)).collect();
    Ok(HttpResponse::Ok().json(json!({
        "rows": grid.y.cells(),
        "columns": grid.x.cells(),
        "cosines": grid.means(&cosines),
        "space": "shared",
        "took_ms": took_ms(started),
    })))
}

async fn question(
    caller: Caller<'_>,
    collection: &Arc<Collection>,
    asked: ExplainIn,
) -> Result<Embedding, ApiError> {
    let limits = &caller.state.limits;
    let content = match (asked.text, asked.image, asked.like) {
        (Some(text), None, None) => Content::text(text, limits)?,
        (None, Some(image), None) => Content::picture_from_base64(&image, limits)?,
        (None, None, Some(like)) => {
            let like = item_id(like).map_err(|error| error.at("like"))?;
            return Ok(query::get(collection, like).await?.0.shared);
        }
        _ => {
            let message = "send exactly one of text, image and like";
            return Err(ApiError::invalid("text", message));
        }
    };
    Ok(encode_one(caller, content).await?.encoded.shared)
}

/// The windows of an item's picture, as the tower wants to see them.
async fn windows_of(
    state: &Data<AppState>,
    name: &str,
    collection: &Arc<Collection>,
    id: ItemId,
) -> Result<(Grid, Vec<Pixels>), ApiError> {
    let (item, _) = query::get(collection, id).await?;
    if item.modality != Modality::Image {
        let message = format!(
            "item {} is a text: only pictures have parts to look at",
            item.id
        );
        return Err(ApiError::invalid("id", message));
    }
    let turn = state.decode_turn().await?;
    let (theirs, name) = (state.clone(), name.to_owned());
    block("explaining a picture", move || {
        let _turn = turn;
        let limits = DecodeLimits::default();
        let file = picture::file(&theirs, &name, &item.id, item.source.as_deref());
        let bytes = file.and_then(|file| picture::read(&file, limits.max_bytes));
        let decoded = bytes.and_then(|(_, bytes)| encoders::decode(&bytes, &limits).ok());
        let whole = decoded.ok_or_else(|| ApiError::NoPicture {
            id: item.id.to_string(),
        })?;
        let grid = Grid::over(whole.width(), whole.height());
        let windows = grid
            .windows()
            .map(|[corner, sides]| (theirs.model.prepare)(&whole.part(corner, sides)));
        let pixels = windows.collect();
        Ok((grid, pixels))
    })
    .await
}

/// The shared embeddings of all of them, a part of the queue at a time.
async fn encode(caller: Caller<'_>, pixels: Vec<Pixels>) -> Result<Vec<Embedding>, ApiError> {
    let Caller { state, client } = caller;
    let mut rows = Vec::with_capacity(pixels.len());
    let mut pixels = pixels.into_iter().peekable();
    while pixels.peek().is_some() {
        let some: Vec<Pixels> = pixels.by_ref().take(state.limits.window()).collect();
        let mut room = if rows.is_empty() {
            state.images.try_room(client, Class::Ask, some.len())?
        } else {
            state
                .images
                .wait_room(client, Class::Ask, some.len())
                .await?
        };
        let deadline = room.deadline().into();
        let mut asked = Vec::with_capacity(some.len());
        for pixels in some {
            let room = room.one().ok_or(ApiError::QueueFull)?;
            asked.push(state.images.encode(pixels, room));
        }
        let late = || ApiError::Late {
            deadline_ms: state.limits.deadline_ms(Class::Ask),
        };
        let done = timeout_at(deadline, try_join_all(asked)).await;
        let done = done.map_err(|_| late())?.map_err(|failed| match failed {
            Failed::Late => late(),
            Failed::BadInput(_) | Failed::Tower => ApiError::Internal {
                doing: "explaining a picture",
                source: None,
            },
        })?;
        rows.extend(done.into_iter().map(|done| done.encoded.shared));
    }
    Ok(rows)
}

/// Windows along one side of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    side: u32,
    window: u32,
    windows: usize,
}

impl Line {
    fn new(side: u32, window: u32) -> Self {
        let window = window.clamp(1, side);
        let step = f64::from(window) / CELLS as f64;
        let windows = (f64::from(side - window) / step).round() as usize + 1;
        Self {
            side,
            window,
            windows,
        }
    }

    /// Where a window begins.
    fn start(self, i: usize) -> u32 {
        let last = (self.windows - 1).max(1) as f64;
        (f64::from(self.side - self.window) * i as f64 / last).round() as u32
    }

    /// A window covers [`CELLS`], the next one begins a cell farther.
    fn cells(self) -> usize {
        self.windows - 1 + CELLS
    }
}

/// Windows over a picture, and the cells that they cover.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    x: Line,
    y: Line,
}

/// `[left, top]` and `[width, height]` in pixels.
type Place = [[u32; 2]; 2];

impl Grid {
    fn over(width: u32, height: u32) -> Self {
        let (short, long) = (width.min(height), width.max(height));
        let window = (f64::from(short) / 2.0).max(f64::from(long) / PART);
        let window = window.ceil() as u32;
        Self {
            x: Line::new(width, window),
            y: Line::new(height, window),
        }
    }

    /// Row by row.
    fn windows(self) -> impl Iterator<Item = Place> {
        let Self { x, y } = self;
        (0..y.windows).flat_map(move |row| {
            (0..x.windows)
                .map(move |column| [[x.start(column), y.start(row)], [x.window, y.window]])
        })
    }

    /// What windows say, `[windows]`, for the cells, `[rows, columns]`: the mean of all that cover one.
    fn means(self, of_windows: &[f32]) -> Vec<f32> {
        let covering = |cell: usize, line: Line| {
            let first = (cell + 1).saturating_sub(CELLS);
            first..(cell + 1).min(line.windows)
        };
        let mut cells = Vec::with_capacity(self.x.cells() * self.y.cells());
        for row in 0..self.y.cells() {
            for column in 0..self.x.cells() {
                let (mut sum, mut count) = (0.0, 0.0);
                for y in covering(row, self.y) {
                    for x in covering(column, self.x) {
                        let said = of_windows.get(y * self.x.windows + x);
                        sum += said.copied().unwrap_or(0.0);
                        count += 1.0;
                    }
                }
                cells.push(sum / count);
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_picture_of_any_shape_and_are_few() {
        for (width, height) in [
            (64, 64),
            (1, 1),
            (2, 1),
            (200, 100),
            (90, 300),
            (10_000, 3),
            (3, 5),
        ] {
            let grid = Grid::over(width, height);
            let windows: Vec<Place> = grid.windows().collect();
            assert!(windows.len() <= 32, "{width} x {height}: {}", windows.len());
            assert!(
                windows
                    .iter()
                    .all(|[[l, t], [w, h]]| l + w <= width && t + h <= height)
            );
            assert_eq!(windows[0][0], [0, 0]);
            let [[l, t], [w, h]] = windows[windows.len() - 1];
            assert_eq!((l + w, t + h), (width, height));
            let ones = grid.means(&vec![1.0; windows.len()]);
            assert_eq!(ones.len(), grid.x.cells() * grid.y.cells());
            assert!(ones.iter().all(|one| (*one - 1.0).abs() < 1e-6));
        }
        assert_eq!(Grid::over(64, 64).windows().count(), 25);
        assert_eq!(
            (Grid::over(64, 64).x.cells(), Grid::over(200, 100).x.cells()),
            (8, 12)
        );
    }

    #[test]
    fn a_cell_has_the_mean_of_the_windows_that_cover_it() {
        let grid = Grid::over(64, 64);
        // Only the window in the corner says anything.
        let mut said = vec![0.0; 25];
        said[0] = 1.0;
        let cells = grid.means(&said);
        assert_eq!(
            (cells[0], cells[1], cells[9], cells[4]),
            (1.0, 0.5, 0.25, 0.0)
        );
    }
}
