//! Inputs through the towers, in bounded memory.

use anyhow::Result;
use embedding::Encoded;
use encoders::{Model, Pixels};

/// How many inputs go to a text tower, or items to a store, at once.
pub const BATCH: usize = 32;

/// Prepares and encodes every input on all cores; calls `take` with each input's index and
/// embeddings, some at a time, on this thread and in the order in which they are ready.
///
/// # Errors
/// The first error of `prepare`, the tower or `take`; nothing is taken after it.
pub fn pictures<I: Sync>(
    inputs: &[I],
    model: &Model,
    prepare: impl Fn(&I) -> Result<Pixels> + Sync,
    mut take: impl FnMut(Vec<(usize, Encoded)>) -> Result<()>,
) -> Result<()> {
    let prepare = |input: &I| prepare(input).map(|pixels| ((), Some(pixels)));
    encoders::encode_all(inputs, model.image().as_ref(), prepare, |done| {
        let encoded = done.into_iter();
        take(
            encoded
                .filter_map(|one| Some((one.index, one.encoded?)))
                .collect(),
        )
    })
}
