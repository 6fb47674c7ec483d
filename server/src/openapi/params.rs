//! What the braces of a path stand for. The examples name what `diptych demo` has (`demo`), or what
//! the examples of other routes make (`mine`), so that nobody deletes the demo by trying things out.

#![expect(dead_code, reason = "only their descriptions are used")]

use utoipa::IntoParams;

/// A collection to search.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Demo {
    /// Name of a collection.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "demo")]
    collection: String,
}

/// A collection to change.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Mine {
    /// Name of a collection: 1 to 64 of a-z, 0-9, _ and -, starting with a letter or a digit.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "mine")]
    collection: String,
}

/// An item to read.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct DemoItem {
    /// Name of a collection.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "demo")]
    collection: String,
    /// Id of an item.
    #[param(min_length = 1, max_length = 512, example = "1f34e")]
    id: String,
}

/// An item to change.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MyItem {
    /// Name of a collection.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "mine")]
    collection: String,
    /// Id of an item.
    #[param(min_length = 1, max_length = 512, example = "a")]
    id: String,
}

/// A snapshot.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MySnapshot {
    /// Name of the collection that it was made of, which need not be there any more.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "mine")]
    collection: String,
    /// Name of the snapshot.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "monday")]
    snapshot: String,
}

/// A head.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MyHead {
    /// Name of a collection.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "mine")]
    collection: String,
    /// Name of the head.
    #[param(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$", example = "kinds")]
    head: String,
}

/// Which version of a head.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfVersion {
    /// The current one where it is left out.
    #[param(minimum = 1)]
    version: Option<u32>,
}

/// A job.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MyJob {
    /// Its id.
    #[param(minimum = 0, example = 1)]
    id: u64,
}
