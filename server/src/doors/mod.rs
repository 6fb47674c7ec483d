//! Familiar doors: requests as clients of other services send them, answers as they read them.
//!
//! Each door only translates. Behind it are the queue, the limits, the searches and the table of
//! errors that the routes of this server use: there is no second way to the model.

mod dialect;
mod inputs;
pub(crate) mod knn;
pub(crate) mod openai;
pub(crate) mod tei;
pub(crate) mod zero_shot;

pub(crate) use dialect::Dialect;
