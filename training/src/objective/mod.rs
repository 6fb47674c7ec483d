//! What training minimises.

mod contrastive;
#[cfg(test)]
mod gradients;
pub mod latent;

pub use contrastive::{MAX_LOGIT_SCALE, contrast, info_nce};
