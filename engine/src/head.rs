//! Linear classifiers over embeddings. Zero-shot and few-shot heads are one struct.

use std::collections::HashSet;

use embedding::{Embedding, Scoring, Space};
use serde::{Deserialize, Serialize};

use crate::{EngineError, Inputs, Query, Score, index::dot};

/// A linear classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which embeddings it reads.
    pub inputs: Inputs,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// One row per label, `[labels, dim]`.
    pub weights: Vec<f32>,
    /// Added to each logit, `[labels]`.
    pub bias: Vec<f32>,
    /// How logits become probabilities.
    pub scoring: Scoring,
}

/// What a head says about one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class.
    pub label: String,
    /// Cosine of the query with the label's weights.
    pub score: Score,
    /// How probable the label is, as the head's scoring says.
    pub probability: f64,
}

impl Head {
    /// A classifier from words alone: each label's weights are the normalized mean of its prompts'
    /// embeddings (Radford et al. 2021, section 3.1.4).
    ///
    /// # Errors
    /// When there is no label, a label is empty or occurs twice, has no prompt, or has prompts of
    /// another dim or without a mean direction; or when the scale is not positive.
    pub fn zero_shot(
        space: Space,
        labels: Vec<String>,
        prompts: &[Vec<Embedding>],
        scoring: Scoring,
    ) -> Result<Self, EngineError> {
        if prompts.len() != labels.len() {
            return Err(bad(format!(
                "{} labels, {} prompts",
                labels.len(),
                prompts.len()
            )));
        }
        let mut weights = Vec::with_capacity(labels.len() * space.dim);
        for (label, prompts) in labels.iter().zip(prompts) {
            if let Some(prompt) = prompts.iter().find(|prompt| prompt.dim() != space.dim) {
                let (dim, expected) = (prompt.dim(), space.dim);
                return Err(bad(format!(
                    "a prompt of {label:?} has dim {dim}, expected {expected}"
                )));
            }
            weights.extend(class_mean(label, prompts, space.dim)?.into_vec());
        }
        let bias = vec![0.0; labels.len()];
        let head = Self {
            inputs: Inputs::one(space),
            labels,
            weights,
            bias,
            scoring,
        };
        head.check()?;
        Ok(head)
    }

    /// The labels, most probable first; equal ones in the order of the head. Whether the
    /// probabilities sum to 1 is up to the scoring.
    ///
    /// # Errors
    /// When the query comes from another space, or the head's parts do not fit together.
    pub fn predict(&self, query: &Query) -> Result<Vec<Prediction>, EngineError> {
        self.check_query(query)?;
        Ok(self.predict_row(query.embedding.as_slice()))
    }

    /// The same of a row that [`Inputs::row`] made, for a head that was checked: one that was learned, or
    /// read.
    ///
    /// # Panics
    /// When the row has another dim.
    pub fn predict_row(&self, row: &[f32]) -> Vec<Prediction> {
        let dim = self.inputs.dim();
        assert_eq!(row.len(), dim, "a row of another dim");
        let weights = self.weights.chunks_exact(dim);
        let dots: Vec<(f32, f32)> = weights
            .map(|weights| (dot(row, weights), dot(weights, weights).sqrt()))
            .collect();
        let logits = self.logits(dots.iter().map(|(dot, _)| *dot));
        let probabilities = self.scoring.probabilities(&logits);
        let mut predictions: Vec<Prediction> = self
            .labels
            .iter()
            .zip(dots.iter().zip(probabilities))
            .map(|(label, ((dot, length), probability))| Prediction {
                label: label.clone(),
                score: Score(dot / length.max(f32::MIN_POSITIVE)),
                probability,
            })
            .collect();
        predictions.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        predictions
    }

    /// The probability of each label, in the order of the head. Whether they sum to 1 is up to the
    /// scoring.
    ///
    /// # Errors
    /// As for [`Head::predict`].
    pub fn probabilities(&self, query: &Query) -> Result<Vec<f64>, EngineError> {
        self.check_query(query)?;
        Ok(self.row_probabilities(query.embedding.as_slice()))
    }

    /// The same of a row, as for [`Head::predict_row`].
    ///
    /// # Panics
    /// When the row has another dim.
    pub fn row_probabilities(&self, row: &[f32]) -> Vec<f64> {
        assert_eq!(row.len(), self.inputs.dim(), "a row of another dim");
        let weights = self.weights.chunks_exact(self.inputs.dim());
        let logits = self.logits(weights.map(|weights| dot(row, weights)));
        self.scoring.probabilities(&logits)
    }

    fn logits(&self, dots: impl Iterator<Item = f32>) -> Vec<f64> {
        let logit = |(dot, bias): (f32, &f32)| self.scoring.logit(dot) + f64::from(*bias);
        dots.zip(&self.bias).map(logit).collect()
    }

    fn check_query(&self, query: &Query) -> Result<(), EngineError> {
        self.check()?;
        let Inputs { space, beside } = &self.inputs;
        let fits = space.meets(&query.space) && query.embedding.dim() == space.dim;
        if fits && beside.is_none() {
            return Ok(());
        }
        let got = match query.embedding.dim() {
            dim if dim == query.space.dim => query.space.to_string(),
            dim => format!("{}, with dim {dim}", query.space),
        };
        Err(EngineError::AnotherSpace {
            expected: self.inputs.to_string(),
            got,
        })
    }

    /// Whether its parts fit together.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let Self {
            inputs,
            labels,
            weights,
            bias,
            scoring,
        } = self;
        if labels.is_empty() {
            return Err(bad("it has no labels".into()));
        }
        let mut seen = HashSet::new();
        for label in labels {
            if label.trim().is_empty() {
                return Err(bad("a label is empty".into()));
            }
            if !seen.insert(label) {
                return Err(bad(format!("the label {label:?} occurs twice")));
            }
        }
        let expected = labels.len().saturating_mul(inputs.dim());
        if weights.len() != expected || bias.len() != labels.len() {
            let (weights, bias, labels) = (weights.len(), bias.len(), labels.len());
            return Err(bad(format!(
                "{weights} weights and {bias} biases, expected {expected} and {labels}"
            )));
        }
        if !weights.iter().chain(bias).all(|x| x.is_finite()) {
            return Err(bad("a weight is not finite".into()));
        }
        if !scoring.is_usable() {
            return Err(bad(format!(
                "its scoring is {scoring}, expected finite numbers and a scale above 0"
            )));
        }
        Ok(())
    }
}

fn class_mean(label: &str, prompts: &[Embedding], dim: usize) -> Result<Embedding, EngineError> {
    if prompts.is_empty() {
        return Err(bad(format!("the label {label:?} has no prompt")));
    }
    let mut sum = vec![0.0; dim];
    for prompt in prompts {
        sum.iter_mut()
            .zip(prompt.as_slice())
            .for_each(|(sum, x)| *sum += x);
    }
    let opposed = |_| bad(format!("the prompts of {label:?} cancel each other out"));
    Embedding::normalized(sum).map_err(opposed)
}

fn bad(reason: String) -> EngineError {
    EngineError::BadHead { reason }
}

#[cfg(test)]
mod tests {
    use embedding::{Aspect, Fingerprint};

    use super::*;

    fn space(fill: u8) -> Space {
        let fingerprint = Fingerprint([fill; 16]);
        Space {
            model: "m".into(),
            fingerprint,
            dim: 2,
            aspect: Aspect::Shared,
        }
    }

    fn unit(x: f32, y: f32) -> Embedding {
        Embedding::normalized(vec![x, y]).expect("has a direction")
    }

    fn head(labels: &[&str], prompts: &[Vec<Embedding>]) -> Result<Head, EngineError> {
        Head::zero_shot(
            space(1),
            labels.iter().map(|&l| l.into()).collect(),
            prompts,
            Scoring::Softmax { logit_scale: 10.0 },
        )
    }

    #[test]
    fn probabilities_are_the_softmax_of_scaled_cosines_and_sum_to_1() {
        let prompts = [vec![unit(0.0, 1.0)], vec![unit(1.0, 0.1), unit(1.0, -0.1)]];
        let head = head(&["up", "right"], &prompts).expect("a head");
        let query = Query {
            embedding: unit(3.0, 4.0),
            space: space(1),
        };
        let predictions = head.predict(&query).expect("the spaces are equal");
        assert_eq!(
            [&predictions[0].label, &predictions[1].label],
            ["up", "right"]
        );
        assert!((predictions[0].score.0 - 0.8).abs() < 1e-6);
        assert!((predictions[1].score.0 - 0.6).abs() < 1e-6);
        let expected = 1.0 / (1.0 + (-2.0_f64).exp());
        assert!((predictions[0].probability - expected).abs() < 1e-5);
        let sum: f64 = predictions.iter().map(|p| p.probability).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        let in_order = head.probabilities(&query).expect("the spaces are equal");
        let sorted = [predictions[0].probability, predictions[1].probability];
        assert_eq!(
            in_order, sorted,
            "the most probable label is the first one here"
        );
    }

    #[test]
    fn under_a_sigmoid_a_label_is_as_probable_whatever_the_others_are() {
        let scoring = Scoring::Sigmoid {
            logit_scale: 10.0,
            logit_bias: -7.0,
        };
        let probability = |labels: &[&str], prompts: &[Vec<Embedding>]| {
            let mut head = head(labels, prompts).expect("a head");
            head.scoring = scoring;
            let query = Query {
                embedding: unit(3.0, 4.0),
                space: space(1),
            };
            let predictions = head.predict(&query).expect("the spaces are equal");
            assert!(predictions.is_sorted_by(|a, b| a.probability >= b.probability));
            let up = predictions.iter().find(|p| p.label == "up");
            up.expect("it is a label").probability
        };
        let (up, right) = (vec![unit(0.0, 1.0)], vec![unit(1.0, 0.0)]);
        let alone = probability(&["up"], std::slice::from_ref(&up));
        assert!((alone - 1.0 / (1.0 + (-1.0_f64).exp())).abs() < 1e-5);
        let beside = probability(&["right", "up"], &[right, up]);
        assert_eq!(alone.to_bits(), beside.to_bits());
    }

    #[test]
    fn labels_and_prompts_that_do_not_fit_are_refused() {
        let up = vec![unit(0.0, 1.0)];
        let three = Embedding::normalized(vec![1.0; 3]).expect("has a direction");
        assert!(head(&[], &[]).is_err());
        assert!(head(&["a"], &[]).is_err());
        assert!(head(&[" "], std::slice::from_ref(&up)).is_err());
        assert!(head(&["a", "a"], &[up.clone(), up.clone()]).is_err());
        assert!(head(&["a"], &[vec![]]).is_err());
        assert!(head(&["a"], &[vec![three]]).is_err());
        assert!(head(&["a"], &[vec![unit(0.0, 1.0), unit(0.0, -1.0)]]).is_err());
        let logit_scale = f32::NAN;
        let scoring = Scoring::Softmax { logit_scale };
        assert!(Head::zero_shot(space(1), vec!["a".into()], &[up], scoring).is_err());
    }

    #[test]
    fn a_query_of_another_space_and_a_torn_head_are_refused() {
        let mut head = head(&["a"], &[vec![unit(0.0, 1.0)]]).expect("a head");
        let query = |fill| Query {
            embedding: unit(1.0, 1.0),
            space: space(fill),
        };
        let refused = head.predict(&query(2));
        assert!(matches!(refused, Err(EngineError::AnotherSpace { .. })));
        assert!(head.predict(&query(1)).is_ok());
        head.weights.pop();
        assert!(matches!(
            head.predict(&query(1)),
            Err(EngineError::BadHead { .. })
        ));
    }
}
