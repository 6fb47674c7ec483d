//! What training minimises.

pub mod bank;
mod contrastive;
pub mod gamma;

pub use contrastive::{MAX_LOGIT_SCALE, info_nce, logits};
