//! One pass through a tower: how much it takes, and what each of its inputs gets.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use embedding::{EncodeError, Encoded, Encoder};

use super::Failed;

/// A pass takes about this long, so that an input that comes in between does not wait for long.
const TARGET_S: f64 = 0.05;
/// Part of the last pass in what is known of the pace, if it was slower: others may have had the
/// processor.
const SLOWER: f64 = 0.2;
/// The same, if it was faster, which says what the tower can do.
const FASTER: f64 = 0.8;

/// How much a tower does in which time, as far as its passes tell.
pub(super) struct Pace {
    /// Seconds for one token or patch.
    each_s: Option<f64>,
    most: usize,
}

impl Pace {
    /// Nothing is known yet; a pass never takes more than `most` tokens or patches.
    pub(super) fn new(most: usize) -> Self {
        Self { each_s: None, most }
    }

    /// Tokens or patches of the next pass; the first one has a single input.
    pub(super) fn budget(&self) -> usize {
        let fits = |each_s: f64| (TARGET_S / each_s) as usize;
        self.each_s.map_or(1, fits).clamp(1, self.most.max(1))
    }

    /// How long so many tokens or patches take.
    pub(super) fn time(&self, cost: usize) -> Duration {
        let seconds = self.each_s.unwrap_or(0.0) * cost as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Remembers what a pass took.
    pub(super) fn learn(&mut self, cost: usize, took: Duration) {
        let latest = (took.as_secs_f64() / cost.max(1) as f64).max(1e-9);
        let each_s = self.each_s.unwrap_or(latest);
        let part = if latest > each_s { SLOWER } else { FASTER };
        self.each_s = Some(each_s + part * (latest - each_s));
    }
}

/// What an input costs. One on which the encoder fails does so again, alone, when it is encoded.
pub(super) fn cost_of<I>(encoder: &dyn Encoder<I>, input: &I) -> usize {
    catch_unwind(AssertUnwindSafe(|| encoder.cost(input))).unwrap_or(1)
}

/// Encodes so that one bad input fails alone: an error that names its input costs only that one,
/// any other error is narrowed down by halves.
pub(super) fn encode_each<I>(
    encoder: &dyn Encoder<I>,
    inputs: &[I],
) -> Vec<Result<Encoded, Failed>> {
    if inputs.is_empty() {
        return Vec::new();
    }
    let run = catch_unwind(AssertUnwindSafe(|| encoder.encode(inputs)));
    match run {
        Ok(Ok(outputs)) if outputs.len() == inputs.len() => outputs.into_iter().map(Ok).collect(),
        Ok(Err(EncodeError::BadInput { position, reason })) if position < inputs.len() => {
            let mut all = encode_each(encoder, &inputs[..position]);
            all.push(Err(Failed::BadInput(reason)));
            all.extend(encode_each(encoder, &inputs[position + 1..]));
            all
        }
        other => {
            if let [_] = inputs {
                match other {
                    Ok(Err(error)) => tracing::error!(error = ?error, "a tower failed"),
                    Ok(Ok(_)) => tracing::error!("a tower broke its contract"),
                    Err(_) => tracing::error!("a tower panicked"),
                }
                return vec![Err(Failed::Tower)];
            }
            let (left, right) = inputs.split_at(inputs.len() / 2);
            let mut all = encode_each(encoder, left);
            all.extend(encode_each(encoder, right));
            all
        }
    }
}
