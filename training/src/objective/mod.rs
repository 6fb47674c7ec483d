//! What training minimises.

pub mod attention;
pub mod bank;
mod contrastive;
pub mod distillation;
pub mod gamma;
#[cfg(test)]
mod gradients;
pub mod latent;

pub use contrastive::{MAX_LOGIT_SCALE, contrast, info_nce, logits};
