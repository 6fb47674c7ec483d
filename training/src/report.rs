//! What a run says about each step.

use std::collections::BTreeMap;

use engine::metrics::image_retrieval_recall;
use pairs::Skipped;
use serde::Serialize;

use crate::{
    evaluate::StyleRecall,
    objective::{gamma::GammaReport, latent::LatentReport},
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done.
    pub step: usize,
    /// Loss of the step in nats.
    pub loss: f32,
    /// Values of its terms before they were weighted.
    #[serde(flatten)]
    pub terms: LatentReport,
    /// What the gamma-augmented contrast saw, where it is used.
    #[serde(flatten)]
    pub gamma: Option<GammaReport>,
    /// Length of the gradient before clipping.
    pub gradient: f64,
    /// Factor from cosines to logits.
    pub logit_scale: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Pairs per second of the step.
    pub samples_per_second: f64,
    /// Recall by held-out style, where the step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<BTreeMap<String, StyleRecall>>,
    /// Distance between the mean of the evaluated pictures and that of their words, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modality_gap: Option<f64>,
    /// Recall on the validation pairs by name, where the step ended with an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<BTreeMap<String, f64>>,
    /// Bytes that such a step is thought to take, with all that is there before it: in the first step of a
    /// kind.
    #[serde(skip)]
    pub memory_estimate: Option<u64>,
    /// Most bytes of memory that the process has had so far, where the step ended with an evaluation and the
    /// system tells.
    #[serde(skip)]
    pub memory_peak: Option<u64>,
    /// Pictures that could not be read: others were seen in their places, or fewer where the step ended
    /// with an evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

impl StepReport {
    /// The figure to watch of an evaluation, and its name.
    pub fn recall(&self) -> Option<(String, f64)> {
        let of_pairs = || {
            let name = image_retrieval_recall(10);
            let value = *self.validation.as_ref()?.get(&name)?;
            Some((name, value))
        };
        let of_styles = || {
            let (style, found) = self.held_out.as_ref()?.first_key_value()?;
            Some((format!("{style} recall@10"), found.recall_at_10))
        };
        of_pairs().or_else(of_styles)
    }
}
