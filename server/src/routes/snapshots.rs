//! Snapshots: made, listed, sent, removed, restored. A request names them; where they are is the
//! operator's choice. Those of a collection lie side by side, and outlive it.

use std::{io, ops::ControlFlow, path::PathBuf, sync::atomic::Ordering, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Path, Payload},
};
use bytes::Bytes;
use engine::{Done, EngineError, SnapshotError, SnapshotInfo, SnapshotOptions};
use futures_util::stream::unfold;
use tokio::{
    runtime::Handle,
    sync::mpsc::{Sender, channel},
    time::timeout,
};

use super::collections::describe;
use crate::{
    access::Grant,
    answers::{CollectionOut, SnapshotOut, SnapshotsOut},
    body,
    clock::now_ms,
    openapi::{
        params::{Mine, MySnapshot},
        twins,
    },
    reply::ApiError,
    state::{AppState, block},
    wire::{RestoreIn, SnapshotIn, parse},
};

/// Parts of a snapshot that wait for a client to read them.
const WAITING: usize = 4;

/// Lists the snapshots of a collection.
///
/// Also of one that is not there any more.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/snapshots",
    operation_id = "list_snapshots",
    tag = "Snapshots",
    params(Mine),
    responses((status = 200, description = "Its snapshots.", body = SnapshotsOut)),
)]
pub(crate) async fn list(
    state: Data<AppState>,
    collection: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let collection = collection.into_inner();
    let folder = folder(&state, &collection)?;
    let found = block("listing snapshots", move || {
        let failed = |error| failed("listing snapshots", (&collection, ""), error);
        let found = engine::list_snapshots(&folder).map_err(failed)?;
        if found.is_empty() {
            state.collection(&collection)?;
        }
        Ok(found)
    })
    .await?;
    let one = |(path, info): (PathBuf, SnapshotInfo)| {
        let name = path.file_name()?.to_str()?.to_owned();
        engine::is_name(&name).then(|| SnapshotOut::new(&name, info, None))
    };
    let snapshots = found.into_iter().filter_map(one).collect();
    Ok(HttpResponse::Ok().json(SnapshotsOut { snapshots }))
}

/// Makes a snapshot.
///
/// It has the collection as it was at one moment, whatever is written meanwhile, and takes room on
/// disk for what has changed since the last one. The answer comes when it is made.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/snapshots",
    operation_id = "create_snapshot",
    tag = "Snapshots",
    params(Mine),
    request_body(content = SnapshotIn, examples(
        ("plain" = (summary = "By name", value = json!({"name": "monday"}))),
        ("skip" = (summary = "Without items that are damaged",
            value = json!({"name": "tuesday", "skip_damaged": true}))),
    )),
    responses((status = 201, description = "It was made.", body = SnapshotOut)),
)]
pub(crate) async fn create(
    state: Data<AppState>,
    collection: Path<String>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let SnapshotIn { name, skip_damaged } = parse(&sent)?;
    if !engine::is_name(&name) {
        let what = "expected 1 to 64 of a-z, 0-9, _ and -, starting with a letter or a digit";
        return Err(ApiError::invalid("name", what));
    }
    let collection = state.collection(&collection)?;
    let path = folder(&state, collection.name())?.join(&name);
    let report = block("making a snapshot", move || {
        let options = SnapshotOptions {
            base: None,
            skip_damaged,
            made_at_ms: now_ms(),
        };
        let made = collection.snapshot(&path, &options, &told(&state));
        let report = made.map_err(|error| {
            let names = (collection.name(), name.as_str());
            failed_in_engine("making a snapshot", names, error)
        })?;
        Ok(SnapshotOut::new(&name, report.info, Some(report.new_bytes)))
    })
    .await?;
    Ok(HttpResponse::Created().json(report))
}

/// Sends a snapshot as a tar.
///
/// It is checked on the way; the connection breaks off where it is damaged.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/snapshots/{snapshot}",
    operation_id = "get_snapshot",
    tag = "Snapshots",
    params(MySnapshot),
    responses((status = 200, description = "The snapshot.", body = twins::Bytes, content_type = "application/x-tar",
        headers(("content-disposition" = String, description = "A name for the file.")))),
)]
pub(crate) async fn get(
    state: Data<AppState>,
    names: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (collection, name) = names.into_inner();
    let path = path(&state, &collection, &name)?;
    let file = format!("attachment; filename=\"{collection}-{name}.tar\"");
    let looked_at = path.clone();
    block("reading a snapshot", move || {
        let read = engine::read_snapshot(&looked_at);
        read.map_err(|error| failed("reading a snapshot", (&collection, &name), error))
    })
    .await?;
    let (send, receive) = channel::<io::Result<Bytes>>(WAITING);
    let mut to = Sending {
        send: send.clone(),
        runtime: Handle::current(),
        pause: Duration::from_millis(state.limits.body_pause_ms),
    };
    actix_web::rt::spawn(async move {
        let packed = block("sending a snapshot", move || {
            Ok(engine::pack_snapshot(&path, &mut to))
        });
        let error = match packed.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => io::Error::other(error),
            Err(error) => io::Error::other(error.to_string()),
        };
        tracing::warn!(%error, "a snapshot was not sent to its end");
        // Nobody hears of it when the client is gone.
        let _ = send.send(Err(error)).await;
    });
    let parts = unfold(receive, |mut receive| async {
        receive.recv().await.map(|part| (part, receive))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/x-tar")
        .insert_header((header::CONTENT_DISPOSITION, file))
        .streaming(parts))
}

/// Removes a snapshot.
///
/// What others share with it stays.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/snapshots/{snapshot}",
    operation_id = "delete_snapshot",
    tag = "Snapshots",
    params(MySnapshot),
    responses((status = 204, description = "It is gone.")),
)]
pub(crate) async fn delete(
    state: Data<AppState>,
    names: Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (collection, name) = names.into_inner();
    let path = path(&state, &collection, &name)?;
    block("removing a snapshot", move || {
        let failed = |error| failed("removing a snapshot", (&collection, &name), error);
        engine::remove_snapshot(&path).map_err(failed)
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Makes a new collection of a snapshot.
///
/// It is checked first. The answer comes when the collection can be searched; its indexes are built
/// in the background.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/snapshots/{snapshot}/restore",
    operation_id = "restore_snapshot",
    tag = "Snapshots",
    params(MySnapshot),
    request_body(content = RestoreIn, examples(
        ("again" = (summary = "Beside the first", value = json!({"into": "mine-again"}))),
    )),
    responses((status = 201, description = "The new collection.", body = CollectionOut)),
)]
pub(crate) async fn restore(
    state: Data<AppState>,
    names: Path<(String, String)>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let sent = body::read_json(&request, payload, &state).await?.bytes;
    let RestoreIn { into } = parse(&sent)?;
    Grant::of(&request).check(&into)?;
    let (collection, name) = names.into_inner();
    let path = path(&state, &collection, &name)?;
    let restored = block("restoring a snapshot", move || {
        let restored = state.engine.restore(&path, &into, &told(&state));
        restored.map_err(|error| match error {
            error @ EngineError::BadName { .. } => ApiError::invalid("into", error.to_string()),
            error => failed_in_engine("restoring a snapshot", (&collection, &name), error),
        })
    })
    .await?;
    Ok(HttpResponse::Created().json(describe(&restored)))
}

/// Goes on until the server stops.
fn told(state: &AppState) -> impl Fn(Done) -> ControlFlow<()> + '_ {
    |_| {
        if state.stopping.load(Ordering::Acquire) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Where the snapshots of a collection are, which need not be there any more.
fn folder(state: &AppState, collection: &str) -> Result<PathBuf, ApiError> {
    let root = state.snapshots.as_ref().ok_or(ApiError::NoSnapshots)?;
    if engine::is_name(collection) {
        return Ok(root.join(collection));
    }
    Err(ApiError::NoCollection {
        name: collection.to_owned(),
    })
}

fn path(state: &AppState, collection: &str, name: &str) -> Result<PathBuf, ApiError> {
    let folder = folder(state, collection)?;
    if engine::is_name(name) {
        return Ok(folder.join(name));
    }
    Err(no_snapshot((collection, name)))
}

fn no_snapshot((collection, name): (&str, &str)) -> ApiError {
    ApiError::NoSnapshot {
        collection: collection.to_owned(),
        name: name.to_owned(),
    }
}

fn failed_in_engine(doing: &'static str, names: (&str, &str), error: EngineError) -> ApiError {
    match error {
        EngineError::Snapshot(error) => failed(doing, names, error),
        EngineError::DamagedItem { .. } => ApiError::Damaged {
            code: "damaged_item",
            message: error.to_string(),
        },
        error => ApiError::engine(doing, error),
    }
}

/// What is wrong with a snapshot, in the names of the request: no path leaves the machine.
fn failed(doing: &'static str, names: (&str, &str), error: SnapshotError) -> ApiError {
    let (collection, name) = (names.0.to_owned(), names.1.to_owned());
    match error {
        SnapshotError::None { .. } => no_snapshot(names),
        SnapshotError::Damaged { what, reason, .. } => ApiError::Damaged {
            code: "damaged_snapshot",
            message: format!("snapshot {name:?} is damaged: {what}: {reason}"),
        },
        SnapshotError::Exists { .. } => ApiError::SnapshotExists { collection, name },
        SnapshotError::Busy { .. } | SnapshotError::InUse { .. } => {
            ApiError::SnapshotBusy { collection }
        }
        SnapshotError::GivenUp => ApiError::Unavailable {
            reason: "the server is stopping",
        },
        SnapshotError::Stopped { collection } => ApiError::NoCollection { name: collection },
        error => ApiError::internal(doing, error),
    }
}

/// Sends what is written to a client, and gives up one that does not read.
struct Sending {
    send: Sender<io::Result<Bytes>>,
    runtime: Handle,
    pause: Duration,
}

impl io::Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Ok(Bytes::copy_from_slice(bytes));
        let sent = timeout(self.pause, self.send.send(part));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
