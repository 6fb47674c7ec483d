//! Classifiers that a collection keeps: learned from a few examples, or made of words alone.
//!
//! [`Inputs`] say which embeddings a [`Head`](crate::Head) reads. [`teach`] learns one from a
//! [`Lesson`] and says how well it does on examples that it did not see ([`HeldOut`]); [`Likeness`]
//! tells what is like none of the examples. A [`KeptHead`] is all that is kept of one, in the form of
//! [`KeptHead::to_file`]; `keeping` is how a collection keeps its versions, `reading` how labels and
//! items are read from it, `suggesting` which items to label next,
//! `words` whether any label fits an item where there are no examples.

mod file;
mod held_out;
mod inputs;
mod keeping;
mod likeness;
mod one_against_rest;
mod reading;
mod suggesting;
mod teaching;
#[cfg(test)]
mod tests;
mod words;
mod zero;

pub(crate) use keeping::{Index, Recent, brief, head_prefix, put_index, put_version};

pub use file::{About, HeadKind, KeptHead, MAX_HEAD_BYTES};
pub use held_out::{HeldOut, LabelRecall};
pub use inputs::{HeadAspect, Inputs};
pub use keeping::{HeadBrief, HeadEntry, MAX_HEADS, MAX_VERSIONS, VersionEntry};
pub use likeness::Likeness;
pub use reading::{Labeled, LabeledField};
pub use suggesting::{Strategy, SuggestRequest, Suggested, Suggestion};
pub use teaching::{Lesson, Taught, TeachOptions, teach};
pub use words::LabelSpreads;
