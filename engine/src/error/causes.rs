//! What lies behind an error.

use std::io;

use crate::store::StoreError;

/// What an error and all its causes say, for where only a text is kept.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether something failed since a disk had no room, or no more than this process may use.
pub fn is_storage_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let of_io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            of_io,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) || matches!(
            cause.downcast_ref::<StoreError>(),
            Some(StoreError::Full { .. })
        )
    })
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}
