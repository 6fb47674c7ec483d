//! What words alone say of an item: whether a label fits at all.
//!
//! A cosine with words says little by itself, so it is seen among those of the same words with a sample
//! of the collection. An item that none of the labels is about has cosines as any other item has; the
//! highest of `n` of them is expected `sqrt(2 ln n)` deviations above the mean, if they were normal. A
//! label fits where it stands out more than that.

use std::borrow::Cow;

use embedding::{Aspect, Modality, Scoring};

use super::KeptHead;
use crate::{
    EngineError, Head,
    collection::Collection,
    confidence::sample::{LEAST_ROWS, Spread},
    index::dot,
};

/// How the cosines of each label of a head lie among the items of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelSpreads(Vec<Spread>);

impl Collection {
    /// How the cosines of a zero-shot head's labels lie among the items of a modality; `None` where there
    /// are too few items to tell.
    ///
    /// # Errors
    /// [`EngineError::AnotherSpace`] when the head does not read shared embeddings of the collection's
    /// model.
    pub fn label_spreads(
        &self,
        head: &Head,
        of: Modality,
    ) -> Result<Option<LabelSpreads>, EngineError> {
        head.inputs.check(self.spaces())?;
        let dim = self.spaces().shared_dim;
        if head.inputs.space.aspect != Aspect::Shared || head.inputs.dim() != dim {
            return Err(EngineError::AnotherSpace {
                expected: head.inputs.to_string(),
                got: self.spaces().shared().to_string(),
            });
        }
        let sample = self.confidence.sample(self, (of, Aspect::Shared));
        let spread = |row: &[f32]| {
            let length = dot(row, row).sqrt().max(f32::MIN_POSITIVE);
            let cosines = sample.cosines(row).into_iter().map(|dot| dot / length);
            Spread::of(&cosines.collect::<Vec<f32>>())
        };
        let spreads: Option<Vec<Spread>> = head.weights.chunks_exact(dim).map(spread).collect();
        Ok(spreads.map(LabelSpreads))
    }

    /// The same labels, each told for itself: for a model that was trained to tell labels from each
    /// other, and says nothing of one alone. A label is as probable as not where it stands out as much as
    /// the best of all labels would of an item that has none of them; how fast its probability rises is
    /// what the calibration of the collection says. `None` where there are too few items to tell.
    ///
    /// # Errors
    /// As for [`Collection::label_spreads`].
    pub(crate) fn each_for_itself(
        &self,
        head: &Head,
        of: Modality,
    ) -> Result<Option<Head>, EngineError> {
        let Some(LabelSpreads(spreads)) = self.label_spreads(head, of)? else {
            return Ok(None);
        };
        let (model, _) = self.confidence.calibration.read().model(Modality::Text);
        let expected = expected(spreads.len());
        let mut each = head.clone();
        let rows = each.weights.chunks_exact_mut(head.inputs.dim());
        for ((row, bias), spread) in rows.zip(&mut each.bias).zip(spreads) {
            let [a, b, _] = model.lean;
            let by_cosine = a / f64::from(model.deviation);
            let slope = by_cosine + b / f64::from(spread.deviation);
            let half = spread.mean + expected * spread.deviation;
            let length = dot(row, row).sqrt().max(f32::MIN_POSITIVE);
            *bias = -(slope * f64::from(half)) as f32;
            for x in row {
                *x *= slope as f32 / length;
            }
        }
        each.scoring = Scoring::Sigmoid {
            logit_scale: 1.0,
            logit_bias: 0.0,
        };
        Ok(Some(each))
    }

    /// What a kept head is to things of a modality. Words that are told each for itself by a model that only
    /// compares them are seen among the items of that modality, since cosines of texts with words lie
    /// higher than those of pictures; where there are too few of these, among the others. Any other head
    /// is what it is.
    ///
    /// # Errors
    /// As for [`Collection::label_spreads`], and [`EngineError::BadLesson`] when there are too few items to
    /// tell.
    pub fn head_for<'k>(
        &self,
        kept: &'k KeptHead,
        of: Modality,
    ) -> Result<Cow<'k, Head>, EngineError> {
        if !(kept.about.multi_label && matches!(kept.head.scoring, Scoring::Softmax { .. })) {
            return Ok(Cow::Borrowed(&kept.head));
        }
        let others = Modality::ALL.into_iter().filter(|other| *other != of);
        for of in std::iter::once(of).chain(others) {
            if let Some(each) = self.each_for_itself(&kept.head, of)? {
                return Ok(Cow::Owned(each));
            }
        }
        Err(EngineError::BadLesson {
            field: "multi_label".into(),
            reason: format!(
                "the model says how labels compare, not whether one fits: that takes at least \
                 {LEAST_ROWS} items to compare with, and the collection has {}",
                self.stats().items
            ),
        })
    }
}

impl LabelSpreads {
    /// Whether an item is none of the labels, by its cosines with them in the order of the head.
    pub fn is_none_of_these(&self, cosines: &[f32]) -> bool {
        let standings = self
            .0
            .iter()
            .zip(cosines)
            .map(|(spread, x)| spread.standing(*x));
        let best = standings.max_by(f32::total_cmp);
        best.is_none_or(|best| best < expected(self.0.len()))
    }
}

/// Deviations above the mean of the highest of so many unrelated cosines; of one alone, as of two.
fn expected(labels: usize) -> f32 {
    (2.0 * (labels.max(2) as f32).ln()).sqrt()
}
