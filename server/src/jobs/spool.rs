//! Bodies that are imported lie in files until their job has ended.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use actix_web::web::{Data, Payload};
use engine::Job;
use fs_err as fs;

use super::Jobs;
use crate::{
    body,
    clock::now_ms,
    reply::ApiError,
    state::{AppState, block},
};

/// What files are called whose body has arrived.
const WHOLE: &str = "ndjson";
/// What files are called whose body arrives.
const PART: &str = "part";

/// Tells bodies apart that arrive at the same moment.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A body that has arrived.
pub(crate) struct Spooled {
    /// Its name in the folder.
    pub(crate) file: String,
    /// Lines that are not blank.
    pub(crate) lines: u64,
}

/// A body that is on its way; nothing is left of it unless it is whole.
struct Arriving(Option<PathBuf>);

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(%error, "a body that was given up is left over");
        }
    }
}

/// Writes a body to a file of the folder, durably. All files together have at most
/// [`crate::Limits::import_bytes`].
pub(crate) async fn spool(
    state: &Data<AppState>,
    mut payload: Payload,
) -> Result<Spooled, ApiError> {
    let folder = state.jobs.folder.clone().ok_or(ApiError::NoJobs)?;
    let most = state.limits.import_bytes;
    let number = NEXT.fetch_add(1, SeqCst);
    let name = format!("{}-{number}", now_ms().unwrap_or(0));
    let path = folder.join(format!("{name}.{PART}"));
    let (theirs, in_folder) = (path.clone(), folder.clone());
    let failed = |e| ApiError::internal("keeping a body", e);
    let mut file = block("keeping a body", move || {
        fs::create_dir_all(&in_folder).map_err(failed)?;
        fs::File::create_new(&theirs).map_err(failed)
    })
    .await?;
    let mut arriving = Arriving(Some(path.clone()));
    let (mut lines, mut is_blank) = (0_u64, true);
    while let Some(chunk) = body::next_chunk(&mut payload, &state.limits).await? {
        for byte in &chunk {
            match byte {
                b'\n' => is_blank = true,
                byte if is_blank && !byte.is_ascii_whitespace() => {
                    is_blank = false;
                    lines += 1;
                }
                _ => {}
            }
        }
        let in_folder = folder.clone();
        let written = block("keeping a body", move || {
            std::io::Write::write_all(&mut file, &chunk).map_err(failed)?;
            Ok((file, bytes_in(&in_folder)))
        });
        let all;
        (file, all) = written.await?;
        if all > most {
            let message = format!(
                "all bodies that are being imported have more than {most} bytes: send less, or try \
                 again when an import has ended"
            );
            let answer = ApiError::TooLarge {
                field: None,
                message,
            };
            return Err(body::refuse_rest(payload, answer).await);
        }
    }
    if lines == 0 {
        return Err(ApiError::invalid(
            "body",
            "it has no line, expected one item a line",
        ));
    }
    let whole = folder.join(format!("{name}.{WHOLE}"));
    block("keeping a body", move || {
        file.sync_all().map_err(failed)?;
        fs::rename(&path, &whole).map_err(failed)?;
        fs::File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    })
    .await?;
    arriving.0 = None;
    Ok(Spooled {
        file: format!("{name}.{WHOLE}"),
        lines,
    })
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}

/// Where a body lies.
pub(super) fn path(jobs: &Jobs, file: &str) -> Option<PathBuf> {
    let is_plain = !file.contains(['/', '\\']) && file.ends_with(WHOLE);
    Some(jobs.folder.as_ref()?.join(file)).filter(|_| is_plain)
}

/// Removes the body of a job that has ended.
pub(super) fn remove(jobs: &Jobs, job: &Job) {
    let path = job.spec["file"].as_str().and_then(|file| path(jobs, file));
    if let Some(path) = path
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(%error, "a body that was imported is left over");
    }
}

/// Removes bodies that no job needs that has not ended. What just arrived is older than its job only for a
/// moment, in which its name says so.
pub(super) fn sweep(jobs: &Jobs, open: &[Job]) {
    /// So long may a job be later than its body.
    const LATER_MS: u64 = 60_000;
    let Some(folder) = &jobs.folder else { return };
    let needed: HashSet<&str> = open
        .iter()
        .filter_map(|job| job.spec["file"].as_str())
        .collect();
    let now = now_ms().unwrap_or(0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !needed.contains(name)) else {
            continue;
        };
        let since = name.split('-').next().and_then(|ms| ms.parse::<u64>().ok());
        let is_whole = name.ends_with(WHOLE);
        let is_old = since.is_none_or(|since| now.saturating_sub(since) > LATER_MS);
        let was_needed = is_whole && is_old;
        let is_left_over = name.ends_with(PART) && since.is_none_or(|since| since < jobs.since_ms);
        if (was_needed || is_left_over)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "a body that was imported is left over");
        }
    }
}
