//! One file, whole or not at all.

use std::{
    io::{ErrorKind, Read, Write},
    thread,
    time::Duration,
};

use fs_err as fs;
use ureq::http::{StatusCode, header};

use crate::{
    HubError, Settings,
    cache::Cache,
    name::Commit,
    wire::{About, Wire},
};

/// Attempts in a row that bring nothing.
const TRIES: u32 = 4;
/// Before the second of them; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);
/// Read at once.
const BUFFER: usize = 1 << 17;

/// A file that is wanted.
pub(crate) struct Wanted {
    pub name: String,
    pub about: About,
}

/// What happens to a file while it is downloaded.
pub(crate) enum Step {
    /// Another process downloads it.
    Waits,
    /// This many of its bytes are here.
    Has(u64),
    /// The connection broke, and the download goes on.
    GoesOn(u64),
}

/// From where to where.
pub(crate) struct Download<'a> {
    pub settings: &'a Settings,
    pub wire: &'a Wire<'a>,
    pub cache: &'a Cache,
    pub commit: &'a Commit,
}

impl Download<'_> {
    /// Bytes that are still to come.
    pub(crate) fn missing(&self, wanted: &Wanted) -> u64 {
        let size = wanted.about.size;
        if self.is_here(wanted) {
            return 0;
        }
        let incomplete = self.cache.incomplete(&wanted.about.etag);
        let have = fs::metadata(incomplete).map_or(0, |found| found.len());
        size.saturating_sub(have)
    }

    /// Puts the content into the cache and makes the snapshot lead to it.
    pub(crate) fn run(&self, wanted: &Wanted, step: &mut dyn FnMut(Step)) -> Result<(), HubError> {
        let Wanted { name, about } = wanted;
        let _lock = self.cache.lock(&about.etag, || step(Step::Waits))?;
        if !self.is_here(wanted) {
            self.fill(wanted, step)?;
            let incomplete = self.cache.incomplete(&about.etag);
            if let Some(found) = about.etag.mismatch(&incomplete)? {
                fs::remove_file(&incomplete)?;
                return Err(HubError::WrongChecksum {
                    file: name.clone(),
                    expected: about.etag.as_str().to_owned(),
                    found,
                    endpoint: self.settings.endpoint.to_string(),
                });
            }
            fs::File::open(&incomplete)?
                .sync_all()
                .map_err(|error| self.written(error))?;
            fs::rename(&incomplete, self.cache.blob(&about.etag))?;
        }
        step(Step::Has(about.size));
        self.cache.link(self.commit, name, &about.etag)?;
        Ok(())
    }

    /// Another size can only be left from a power cut.
    fn is_here(&self, wanted: &Wanted) -> bool {
        let blob = fs::metadata(self.cache.blob(&wanted.about.etag));
        blob.is_ok_and(|found| found.len() == wanted.about.size)
    }

    /// Goes on with what is there until all is there.
    fn fill(&self, wanted: &Wanted, step: &mut dyn FnMut(Step)) -> Result<(), HubError> {
        let size = wanted.about.size;
        let path = self.cache.incomplete(&wanted.about.etag);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        let mut tries = 0;
        // Else a hub that is wrong about the size would be asked for ever, from the beginning.
        let mut most = 0;
        loop {
            let before = file.metadata()?.len();
            if before > size {
                file.set_len(0)?;
                continue;
            }
            step(Step::Has(before));
            // An empty file needs no request.
            if before == size {
                return Ok(());
            }
            let problem = self.more(wanted, &mut file, before, step)?;
            let after = file.metadata()?.len();
            if after == size {
                return Ok(());
            }
            tries = if after > before.max(most) {
                1
            } else {
                tries + 1
            };
            most = most.max(before).max(after);
            if tries == TRIES {
                return Err(HubError::Interrupted {
                    file: wanted.name.clone(),
                    have_bytes: after,
                    size_bytes: size,
                    reason: problem,
                });
            }
            thread::sleep(PAUSE * 2_u32.pow(tries - 1));
            step(Step::GoesOn(after));
        }
    }

    /// One request; answers why it ended. What another request may mend is no error.
    fn more(
        &self,
        wanted: &Wanted,
        file: &mut fs::File,
        from: u64,
        step: &mut dyn FnMut(Step),
    ) -> Result<String, HubError> {
        let response = match self.wire.read(self.commit, &wanted.name, from) {
            Ok(response) => response,
            Err(HubError::Unreachable { reason, .. }) => return Ok(reason),
            Err(error) => return Err(error),
        };
        let range = response.headers().get(header::CONTENT_RANGE);
        let range = range
            .and_then(|range| range.to_str().ok())
            .unwrap_or_default();
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && range.starts_with(&format!("bytes {from}-"));
        let mut have = from;
        if !goes_on && from > 0 {
            // What came is the beginning, or nothing.
            file.set_len(0)?;
            have = 0;
        }
        if response.status() != StatusCode::OK && !goes_on {
            return Ok(format!(
                "HTTP {} for the bytes from {from} on",
                response.status().as_u16()
            ));
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => return Ok("the connection ended early".to_owned()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(error.to_string()),
            };
            let piece = buffer.get(..n).unwrap_or_default();
            file.write_all(piece).map_err(|error| self.written(error))?;
            have += n as u64;
            step(Step::Has(have));
            if have > wanted.about.size {
                file.set_len(0)?;
                return Ok(format!("more than {} bytes", wanted.about.size));
            }
        }
    }

    fn written(&self, error: std::io::Error) -> HubError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => HubError::DiskFull {
                folder: self.cache.folder().to_owned(),
            },
            _ => error.into(),
        }
    }
}
