//! The networks, defined once. Every part can be built in two forms from the same weights (see
//! [`Form`]) and from two sources: a weights file, or a seed (see [`Source`]).

pub(crate) mod layers;
pub(crate) mod network;
pub(crate) mod ops;
mod positions;
mod residual;
mod sentence;
mod source;
mod text;
pub(crate) mod transformer;
pub(crate) mod vit;

pub use kernels::Activation;
pub use network::{ImageConfig, ImageTower, Network, NetworkConfig, beside, unit_rows};
pub use ops::{BatchStatistics, Elements, with_narrow_factors};
pub use residual::{ResidualConfig, ResidualTower};
pub use sentence::{DenseConfig, SentenceConfig, SentencePass, SentencePooling, SentenceTower};
pub use source::{FileSource, Init, Source};
pub use text::{Pooling, TextConfig, TextTower};
pub use transformer::{Transformer, TransformerConfig};
pub use vit::{Sizing, VitConfig, VitPooling, VitTower};

/// In which form a network is built. Both compute the same function within 1e-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For serving: fused kernels without a backward pass, normalisation folded into convolutions.
    Fused,
    /// For training: every operation has a backward pass. Batch normalisation uses the batch's own
    /// statistics where the flag is set, and the running ones otherwise.
    Differentiable {
        /// Whether batch normalisation uses (and records) the statistics of the batch.
        batch_statistics: bool,
    },
}
