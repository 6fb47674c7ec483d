//! How sure a hit is, and how images and texts stand in one list.
//!
//! A cosine alone says little: texts lie nearer to texts than to images (the modality gap), some
//! queries are near to everything, and a collection without an answer still has a nearest item. So
//! a score is seen among others: how far it stands out among the scores of the same query with a
//! [`sample`] of the collection, and whether the hit fits another stored item of the *query's*
//! modality better than the query (its rival: the picture of another text). A logistic regression
//! over these ([`fit`], [`calibration`]) gives the probability that query and hit are a true pair.
//!
//! Confidence is the probability of a true pair where the true item is in the collection for half
//! of the queries; whoever expects otherwise cuts elsewhere. Between items of one modality there
//! are no true pairs to learn from: there it says how far the hit stands out of what the best of so
//! many unrelated items would reach, it never rises while the score falls, and it is 1 for an
//! identical embedding.
//!
//! [`judge`] is what a search calls, [`fair`] is the order of a mixed list, [`fitting`] gathers
//! what a calibration is fitted on, [`learning`] fits and tries it, [`keeping`] keeps it in the
//! store.

pub(crate) mod calibration;
pub(crate) mod fair;
mod fit;
mod fitting;
pub(crate) mod judge;
pub(crate) mod keeping;
mod learning;
pub(crate) mod sample;
mod sampling;

#[cfg(test)]
mod tests;

pub use calibration::{CalibrationKind, CalibrationReport, DirectionReport};
pub(crate) use fitting::fit_if_due;
pub(crate) use sampling::Confidence;
