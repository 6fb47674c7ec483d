//! Latent modality structures: losses that keep more in two towers than telling pairs apart needs
//! (Jiang et al., "Understanding and Constructing Latent Modality Structures in Multi-modal
//! Representation Learning", CVPR 2023; the terms bear the paper's names).
//!
//! Every item has a shared embedding and, where features are separated, a specific one of the same
//! dim from a head of its own. All rows here have unit length.

mod terms;
#[cfg(test)]
mod tests;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

pub use self::terms::{
    brownian_bridge, cross_modal, geometric_consistency, geometric_consistency_of_views, in_modal,
    orthogonality, uniformity,
};
use crate::TrainingError;

/// Embeddings of one batch of pairs, `[n, dim]` each, rows of unit length.
#[derive(Debug, Clone)]
pub struct Views {
    /// Images.
    pub image: Tensor,
    /// Texts; row j belongs to image j.
    pub text: Tensor,
    /// The same images, augmented.
    pub image_augmented: Option<Tensor>,
    /// The same texts, augmented.
    pub text_augmented: Option<Tensor>,
}

/// What is true of what in a batch, `[n, n]` each: 1 for a positive, 0 for a negative. Positives of
/// a row share its mass; every row needs one.
#[derive(Debug, Clone)]
pub struct Positives {
    /// Where the text (column) is true of the image (row).
    pub cross: Tensor,
    /// Where an augmented image (column) shows what the image (row) shows.
    pub images: Tensor,
    /// Where an augmented text (column) says what the text (row) says.
    pub texts: Tensor,
}

/// What a loss is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Latent<'a> {
    /// Shared embeddings.
    pub shared: &'a Views,
    /// Specific embeddings, for [`LatentWeights::separation`].
    pub specific: Option<&'a Views>,
    /// Logarithm of the factor from cosines to logits, a scalar.
    pub log_scale: &'a Tensor,
    /// Which items are positives of which.
    pub positives: &'a Positives,
}

/// How much every structure counts; 0 leaves it out, and then it costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatentWeights {
    /// Of the in-modal terms beside the cross-modal ones: 0 gives `InfoNCE`, 1 the paper's `L_Con`.
    pub in_modal: f64,
    /// Of deep feature separation, `L_Sep`.
    pub separation: f64,
    /// Of the Brownian bridge, `L_Br`.
    pub bridge: f64,
    /// Where on the bridge the augmented image is, from 0 (the text) to 1 (the image).
    pub bridge_t: f64,
    /// Of geometric consistency within and between modalities, `L_GC`.
    pub geometric: f64,
    /// Of geometric consistency between views, `L_GC^a`.
    pub geometric_views: f64,
}

impl Default for LatentWeights {
    /// Plain `InfoNCE`; t is that of all experiments of the paper.
    fn default() -> Self {
        Self {
            in_modal: 0.0,
            separation: 0.0,
            bridge: 0.0,
            bridge_t: 0.25,
            geometric: 0.0,
            geometric_views: 0.0,
        }
    }
}

impl LatentWeights {
    /// # Errors
    /// When a weight is negative or no number, or t is outside 0 to 1; the message names its key.
    pub fn check(&self) -> Result<(), TrainingError> {
        for (key, weight) in [
            ("objective.latent.in_modal", self.in_modal),
            ("objective.latent.separation", self.separation),
            ("objective.latent.bridge", self.bridge),
            ("objective.latent.geometric", self.geometric),
            ("objective.latent.geometric_views", self.geometric_views),
        ] {
            if !(weight.is_finite() && weight >= 0.0) {
                let expected = "a number of at least 0";
                return Err(TrainingError::Value { key, expected });
            }
        }
        if !(0.0..=1.0).contains(&self.bridge_t) {
            let (key, expected) = ("objective.latent.bridge_t", "between 0 and 1");
            return Err(TrainingError::Value { key, expected });
        }
        Ok(())
    }
}

/// Values of the terms before they are weighted; those that are off are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LatentReport {
    /// [`cross_modal`] or what stands for it, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_modal: Option<f32>,
    /// [`in_modal`] of the shared embeddings, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_modal: Option<f32>,
    /// [`orthogonality`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orthogonality: Option<f32>,
    /// Twice [`in_modal`] of the specific embeddings, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specific_in_modal: Option<f32>,
    /// [`uniformity`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniformity: Option<f32>,
    /// [`brownian_bridge`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<f32>,
    /// [`geometric_consistency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geometric: Option<f32>,
    /// [`geometric_consistency_of_views`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geometric_views: Option<f32>,
}

/// The weighted loss, a scalar, and the value of each of its terms: `L_Con` with `in_modal` at 1,
/// plus separation, bridge and geometric consistency by their weights.
///
/// # Errors
/// When a weight is out of range, a term lacks the view that it needs, or shapes do not fit.
pub fn latent_loss(
    of: &Latent<'_>,
    weights: &LatentWeights,
) -> Result<(Tensor, LatentReport), TrainingError> {
    let base = cross_modal(of.shared, of.log_scale, &of.positives.cross)?;
    with_structures(&base, of, weights)
}

/// The same around another cross-modal term.
///
/// # Errors
/// As [`latent_loss`].
pub fn with_structures(
    base: &Tensor,
    of: &Latent<'_>,
    weights: &LatentWeights,
) -> Result<(Tensor, LatentReport), TrainingError> {
    weights.check()?;
    // The base is a mean, so that the other weights mean the same with and without in-modal terms.
    let share = 1.0 / (1.0 + weights.in_modal);
    let mut terms = Terms::default();
    terms.add(|r| &mut r.cross_modal, base, share)?;
    if weights.in_modal > 0.0 {
        let term = in_modal(of.shared, of.log_scale, of.positives)?;
        terms.add(|r| &mut r.in_modal, &term, weights.in_modal * share)?;
    }
    if weights.separation > 0.0 {
        let (term, view) = ("separation", "specific embeddings");
        let specific = of.specific.ok_or(TrainingError::View { term, view })?;
        let weight = weights.separation;
        let contrasted = (in_modal(specific, of.log_scale, of.positives)? * 2.0)?;
        let orthogonal = orthogonality(of.shared, specific)?;
        terms.add(|r| &mut r.orthogonality, &orthogonal, weight)?;
        terms.add(|r| &mut r.specific_in_modal, &contrasted, weight)?;
        terms.add(|r| &mut r.uniformity, &uniformity(specific)?, weight)?;
    }
    if weights.bridge > 0.0 {
        let middle = view(
            of.shared.image_augmented.as_ref(),
            "bridge",
            "augmented images",
        )?;
        let term = brownian_bridge(&of.shared.image, &of.shared.text, middle, weights.bridge_t)?;
        terms.add(|r| &mut r.bridge, &term, weights.bridge)?;
    }
    if weights.geometric > 0.0 {
        let term = geometric_consistency(&of.shared.image, &of.shared.text)?;
        terms.add(|r| &mut r.geometric, &term, weights.geometric)?;
    }
    if weights.geometric_views > 0.0 {
        let term = geometric_consistency_of_views(of.shared)?;
        terms.add(|r| &mut r.geometric_views, &term, weights.geometric_views)?;
    }
    terms.total()
}

/// Where a report keeps a term.
type Place = fn(&mut LatentReport) -> &mut Option<f32>;

/// Terms that are added up.
#[derive(Default)]
struct Terms {
    total: Option<Tensor>,
    values: Vec<(Place, Tensor)>,
}

impl Terms {
    fn add(&mut self, place: Place, term: &Tensor, weight: f64) -> candle_core::Result<()> {
        let weighted = (term * weight)?;
        self.total = Some(match &self.total {
            Some(total) => (total + weighted)?,
            None => weighted,
        });
        self.values.push((place, term.detach()));
        Ok(())
    }

    /// The sum and the report.
    fn total(self) -> Result<(Tensor, LatentReport), TrainingError> {
        let (places, values): (Vec<Place>, Vec<Tensor>) = self.values.into_iter().unzip();
        // One transfer for all: each waits for everything that a device has in hand.
        let values = Tensor::stack(&values, 0)?.to_dtype(DType::F32)?.to_vec1()?;
        let mut report = LatentReport::default();
        for (place, value) in places.into_iter().zip(values) {
            *place(&mut report) = Some(value);
        }
        let total = self
            .total
            .ok_or(candle_core::Error::Msg("a loss without terms".into()))?;
        Ok((total, report))
    }
}

impl Views {
    /// Both augmented views.
    fn augmented(&self, term: &'static str) -> Result<(&Tensor, &Tensor), TrainingError> {
        let images = view(self.image_augmented.as_ref(), term, "augmented images")?;
        Ok((
            images,
            view(self.text_augmented.as_ref(), term, "augmented texts")?,
        ))
    }
}

fn view<'a>(
    of: Option<&'a Tensor>,
    term: &'static str,
    view: &'static str,
) -> Result<&'a Tensor, TrainingError> {
    of.ok_or(TrainingError::View { term, view })
}
