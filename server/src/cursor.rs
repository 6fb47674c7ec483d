//! Cursors as clients see them: text that they send back as it is.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use engine::Cursor;

use crate::{reply::ApiError, wire::SearchIn};

/// Stands for a search, whichever of its pages is asked for.
pub(crate) fn search_id(wire: &SearchIn) -> u64 {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, wire).expect("a request writes to memory");
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// A cursor of the search.
pub(crate) fn write(cursor: &Cursor, search_id: u64) -> String {
    let json = serde_json::to_vec(&(search_id, cursor)).expect("a cursor writes to memory");
    URL_SAFE_NO_PAD.encode(json)
}

/// Reads a cursor, which must be of this search.
pub(crate) fn read(text: &str, search_id: u64) -> Result<Cursor, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let read = bytes.and_then(|bytes| serde_json::from_slice::<(u64, Cursor)>(&bytes).ok());
    let (of, cursor) = read.ok_or_else(|| {
        let message = "this is no cursor: send the `next` of an answer as it is";
        ApiError::invalid("cursor", message)
    })?;
    if of != search_id {
        let message = "this cursor is of another search: only `k`, `cursor` and `explain` may \
                       differ from the request that it came from";
        return Err(ApiError::invalid("cursor", message));
    }
    Ok(cursor)
}
