//! Several embeddings made into one.

use std::sync::Arc;

use embedding::Embedding;

use super::check::bad;
use crate::{
    EngineError, Part,
    confidence::sample::{Sample, Spread},
};

/// Where the factors of parts come from.
#[derive(Clone, Copy)]
pub(super) enum Factors<'a> {
    /// An earlier page of the same search.
    Known(&'a [f32]),
    /// How wide the cosines of each part spread over a sample of the items. It is taken when it is
    /// needed.
    Of(&'a dyn Fn() -> Arc<Sample>),
}

/// The sum of the parts, each divided by the spread of its cosines, and what the parts were
/// multiplied with: nothing for a single part, which is taken as it is.
///
/// Dividing the *scores* of each part by their deviation over the items is the same as dividing
/// the part's embedding, since a cosine is linear in it; their means move all scores alike.
pub(super) fn compose(
    parts: &[Part],
    factors: Factors<'_>,
) -> Result<(Embedding, Vec<f32>), EngineError> {
    if let [part] = parts {
        return Ok((part.query.embedding.clone(), Vec::new()));
    }
    let factors: Vec<f32> = match factors {
        Factors::Known(known) => known.to_vec(),
        Factors::Of(sample) => {
            let sample = sample();
            let factor = |part: &Part| {
                let cosines = sample.cosines(part.query.embedding.as_slice());
                // Of too few items nothing is known: then all parts count alike as they are.
                let spread = Spread::of(&cosines).map_or(1.0, |spread| spread.deviation);
                part.weight / spread
            };
            parts.iter().map(factor).collect()
        }
    };
    let mut sum = vec![0.0; parts[0].query.embedding.dim()];
    for (part, factor) in parts.iter().zip(&factors) {
        for (sum, x) in sum.iter_mut().zip(part.query.embedding.as_slice()) {
            *sum += x * factor;
        }
    }
    let whole = Embedding::normalized(sum);
    let whole = whole.map_err(|error| bad("parts", format!("they cancel out: {error}")))?;
    Ok((whole, factors))
}
