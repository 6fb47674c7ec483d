//! The terms, each a scalar of unit rows `[n, dim]`.

use candle_core::{Result, Tensor};
use encoders::nn::unit_rows;

use super::{Positives, Views};
use crate::{
    TrainingError,
    objective::contrastive::{both_ways, contrast, logits},
};

/// The paper's t of `G_t(u, v) = exp(-t |u - v|^2)`.
const UNIFORMITY_T: f64 = 2.0;

/// Mean of `L_V2T` and `L_T2V`: `InfoNCE` between images and texts in nats.
///
/// # Errors
/// When shapes do not fit.
pub fn cross_modal(views: &Views, log_scale: &Tensor, positives: &Tensor) -> Result<Tensor> {
    both_ways(&logits(&views.image, &views.text, log_scale)?, positives)
}

/// Mean of `L_V2V` and `L_T2T` in nats: items against the augmented items of their modality. The
/// paper prints keys that are not augmented in the denominator, with which it would be no softmax;
/// here, as in `CyCLIP` (Goel et al. 2022), numerator and denominator share the augmented keys.
///
/// # Errors
/// When an augmented view is absent, or shapes do not fit.
pub fn in_modal(
    views: &Views,
    log_scale: &Tensor,
    positives: &Positives,
) -> std::result::Result<Tensor, TrainingError> {
    let (image_augmented, text_augmented) = views.augmented("in_modal")?;
    let of_images = contrast(
        &logits(&views.image, image_augmented, log_scale)?,
        &positives.images,
    )?;
    let of_texts = logits(&views.text, text_augmented, log_scale)?;
    let of_texts = contrast(&of_texts, &positives.texts)?;
    Ok(((of_images + of_texts)? * 0.5)?)
}

/// `L_Ortho`: squared cosines of each item's shared and specific embedding, summed over the two
/// modalities, mean over items.
///
/// # Errors
/// When shapes do not fit.
pub fn orthogonality(shared: &Views, specific: &Views) -> Result<Tensor> {
    let of = |z: &Tensor, own: &Tensor| cosines_of_pairs(z, own)?.sqr()?.mean_all();
    of(&shared.image, &specific.image)? + of(&shared.text, &specific.text)?
}

/// `L_Uni`: logarithm of the sum of `exp(-2 |u - v|^2)` over all ordered pairs of images and all of
/// texts (an item with itself too), divided by the number of items. Smaller is more uniform.
///
/// # Errors
/// When shapes do not fit.
pub fn uniformity(specific: &Views) -> Result<Tensor> {
    let of = |z: &Tensor| {
        let squared_distances = ((cosines(z, z)? - 1.0)? * -2.0)?;
        (squared_distances * -UNIFORMITY_T)?.exp()?.sum_all()
    };
    let sum = (of(&specific.image)? + of(&specific.text)?)?;
    (sum / specific.image.dim(0)? as f64)?.log()
}

/// `L_Br`: mean squared distance of `middle` from the normalized `t start + (1 - t) end`. In the
/// paper images start, texts end, and the augmented image is between them at t = 1/4, so nearer to
/// the text. All are `[n, dim]` of unit rows.
///
/// # Errors
/// When shapes do not fit.
pub fn brownian_bridge(start: &Tensor, end: &Tensor, middle: &Tensor, t: f64) -> Result<Tensor> {
    let mean = unit_rows(&((start * t)? + (end * (1.0 - t))?)?)?;
    (middle - mean)?.sqr()?.sum(1)?.mean_all()
}

/// `L_GC`: of every two pairs, squared difference of the two cosines across modalities and of the
/// two within them, summed over the first and meant over the second. Images and texts are
/// `[n, dim]` of unit rows.
///
/// # Errors
/// When shapes do not fit.
pub fn geometric_consistency(images: &Tensor, texts: &Tensor) -> Result<Tensor> {
    let across = cosines(images, texts)?;
    let asymmetry = difference(&across, &across.t()?)?;
    asymmetry + difference(&cosines(images, images)?, &cosines(texts, texts)?)?
}

/// `L_GC^a`: squared differences between the cosines of items and of their augmented views, within
/// modalities (as in [`geometric_consistency`]) and of each image with its own text (mean).
///
/// # Errors
/// When an augmented view is absent, or shapes do not fit.
pub fn geometric_consistency_of_views(views: &Views) -> std::result::Result<Tensor, TrainingError> {
    let (image_augmented, text_augmented) = views.augmented("geometric_views")?;
    let within = |z: &Tensor, augmented: &Tensor| {
        difference(&cosines(z, z)?, &cosines(augmented, augmented)?)
    };
    let pairs = cosines_of_pairs(&views.image, &views.text)?;
    let augmented = cosines_of_pairs(image_augmented, text_augmented)?;
    let of_pairs = (pairs - augmented)?.sqr()?.mean_all()?;
    let of_images = within(&views.image, image_augmented)?;
    let of_texts = within(&views.text, text_augmented)?;
    Ok(((of_images + of_texts)? + of_pairs)?)
}

/// Of all rows with all keys, `[n, m]`.
fn cosines(rows: &Tensor, keys: &Tensor) -> Result<Tensor> {
    rows.matmul(&keys.t()?)
}

/// Of each row with the key at its place, `[n]`.
fn cosines_of_pairs(rows: &Tensor, keys: &Tensor) -> Result<Tensor> {
    (rows * keys)?.sum(1)
}

/// Sum of squared differences of two `[n, n]`, divided by n.
fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.sum_all()? / a.dim(0)? as f64
}
