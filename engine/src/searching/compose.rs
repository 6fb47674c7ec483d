//! Several embeddings made into one.

use embedding::Embedding;

use super::check::bad;
use crate::{
    EngineError, Part,
    index::dot,
    shard::{ShardKey, View},
};

/// Rows that say how wide the cosines of a part spread.
const SAMPLE_ROWS: usize = 256;
/// Fewer rows say nothing.
const MIN_SAMPLE_ROWS: usize = 8;
/// Smallest standard deviation that is divided by; less is rounding.
const MIN_SPREAD: f64 = 1e-4;

/// The sum of the parts, each divided by the spread of its cosines, and what the parts were
/// multiplied with: nothing for a single part, which is taken as it is.
///
/// Dividing the *scores* of each part by their deviation over the items is the same as dividing
/// the part's embedding, since a cosine is linear in it; their means move all scores alike.
pub(super) fn compose(
    parts: &[Part],
    views: &[(ShardKey, View)],
    known: Option<&[f32]>,
) -> Result<(Embedding, Vec<f32>), EngineError> {
    if let [part] = parts {
        return Ok((part.query.embedding.clone(), Vec::new()));
    }
    let factors: Vec<f32> = match known {
        Some(known) => known.to_vec(),
        None => {
            let sample = sample(views);
            let factor = |part: &Part| {
                let spread = spread(part.query.embedding.as_slice(), &sample);
                part.weight / spread.unwrap_or(1.0) as f32
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

/// Live rows at even distances.
fn sample(views: &[(ShardKey, View)]) -> Vec<&[f32]> {
    let rows: usize = views.iter().map(|(_, view)| view.rows()).sum();
    let step = rows.div_ceil(SAMPLE_ROWS).max(1);
    let of_view = |(_, view): &'_ (ShardKey, View)| (0..view.rows()).step_by(step);
    let all = views
        .iter()
        .flat_map(|view| of_view(view).map(move |row| (&view.1, row)));
    let live = all.filter(|(view, row)| view.is_alive(*row));
    live.map(|(view, row)| view.row(row)).collect()
}

fn spread(query: &[f32], sample: &[&[f32]]) -> Option<f64> {
    if sample.len() < MIN_SAMPLE_ROWS {
        return None;
    }
    let scores: Vec<f64> = sample
        .iter()
        .map(|row| f64::from(dot(query, row)))
        .collect();
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let squares = scores.iter().map(|score| (score - mean).powi(2));
    let deviation = (squares.sum::<f64>() / scores.len() as f64).sqrt();
    Some(deviation.max(MIN_SPREAD))
}
