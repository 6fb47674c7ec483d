//! What training minimises.

pub mod attention;
mod contrastive;
pub mod distillation;
#[cfg(test)]
mod gradients;
pub mod latent;

pub use contrastive::{MAX_LOGIT_SCALE, contrast, info_nce, logits};
