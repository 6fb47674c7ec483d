//! From features of a hit to the probability that it is the true one.

use embedding::{Fingerprint, Modality};
use serde::{Deserialize, Serialize};

use super::sample::Spread;

/// Format of a kept calibration.
pub(crate) const VERSION: u32 = 1;

/// Where the confidence of hits comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationKind {
    /// Coefficients that come with the engine, fitted on one collection of pictures with
    /// descriptions. A starting point: another model or collection may need others.
    Default,
    /// Fitted on pairs that the collection's own items suggest.
    #[serde(rename = "self")]
    SelfFitted,
    /// Fitted on pairs that the user gave.
    Pairs,
}

/// How good the confidence of one direction is. The figures are of queries that the fit had not
/// seen (five folds), each once with its true item in the collection and once without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DirectionReport {
    /// What is asked with.
    pub from: Modality,
    /// What is found.
    pub to: Modality,
    /// What is in force.
    pub calibration: CalibrationKind,
    /// Pairs that were tried; 0 when none ever were.
    pub pairs: usize,
    /// Area under the ROC curve: how often the first hit is given more confidence when the true
    /// item is there than when it is not.
    pub roc_auc: Option<f64>,
    /// The same for the bare cosine.
    pub cosine_roc_auc: Option<f64>,
    /// Expected calibration error of the confidence of first hits, over ten bins.
    pub calibration_error: Option<f64>,
}

/// What confidence rests on in a collection, and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// Text to image, then image to text.
    pub directions: Vec<DirectionReport>,
}

/// What a hit of the other modality shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Features {
    pub(crate) cosine: f32,
    /// Deviations above the mean of the query's cosines with a sample of the hit's modality.
    pub(crate) standing: f32,
    /// Deviations above the hit's cosine with its rival; `None` where none could be looked for.
    pub(crate) lead: Option<f32>,
}

/// Coefficients for hits of one modality to queries of the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    /// Mean and deviation of the cosines between the modalities.
    pub(crate) mean: f32,
    pub(crate) deviation: f32,
    /// Of the cosine in these units, the standing, the lead, and 1; `None` when the collection had
    /// no rivals to learn from.
    pub(crate) full: Option<[f64; 4]>,
    /// The same without a lead.
    pub(crate) lean: [f64; 3],
}

/// Fitted by logistic regression on both directions of 1,126 pictures and their descriptions
/// (CLIP ViT-B/32), each query once with its partner and once without. A cosine's meaning differs
/// between models, so that it has no part in them.
pub(crate) const DEFAULT: Model = Model {
    mean: 0.0,
    deviation: 1.0,
    full: Some([0.0, 0.13, 5.96, -1.05]),
    lean: [0.0, 1.49, -6.32],
};

impl Model {
    /// Probability that the hit is the true one.
    pub(crate) fn probability(&self, features: &Features) -> f64 {
        let Features {
            cosine,
            standing,
            lead,
        } = *features;
        let cosine = f64::from((cosine - self.mean) / self.deviation);
        let standing = f64::from(standing);
        let logit = if let (Some([a, b, c, d]), Some(lead)) = (self.full, lead) {
            a * cosine + b * standing + c * f64::from(lead) + d
        } else {
            let [a, b, c] = self.lean;
            a * cosine + b * standing + c
        };
        1.0 / (1.0 + (-logit).exp())
    }

    /// Whether the probability rises with the cosine, all else being equal, for queries with this
    /// spread of cosines; anything else would be the fit of an accident.
    pub(crate) fn rises(&self, spread: Spread) -> bool {
        let [a, b, _] = self.lean;
        let slope = |a: f64, rest: f64| {
            a / f64::from(self.deviation) + rest / f64::from(spread.deviation) > 0.0
        };
        let full = self
            .full
            .is_none_or(|[a, b, c, _]| c > 0.0 && slope(a, b + c));
        full && slope(a, b)
    }

    fn is_sound(&self) -> bool {
        let coefficients = self.full.iter().flatten().chain(&self.lean);
        coefficients.copied().all(f64::is_finite)
            && self.mean.is_finite()
            && self.deviation.is_finite()
            && self.deviation > 0.0
    }
}

/// What was learnt about hits of one modality to queries of the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Direction {
    /// `None` when what was tried was not good enough.
    pub(crate) model: Option<Model>,
    pub(crate) report: DirectionReport,
}

/// Everything that was fitted for a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Calibration {
    pub(crate) version: u32,
    /// The model that made the embeddings.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Texts and images that there were at the last fit without pairs.
    pub(crate) fitted_at: Option<(usize, usize)>,
    pub(crate) directions: Vec<Direction>,
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            version: VERSION,
            fingerprint: None,
            fitted_at: None,
            directions: Vec::new(),
        }
    }
}

impl Calibration {
    /// What was learnt about queries of this modality that ask for the other.
    pub(crate) fn direction(&self, from: Modality) -> Option<&Direction> {
        self.directions
            .iter()
            .find(|direction| direction.report.from == from)
    }

    /// Puts something newly learnt in place.
    pub(crate) fn set(&mut self, direction: Direction) {
        let from = direction.report.from;
        self.directions.retain(|other| other.report.from != from);
        self.directions.push(direction);
    }

    /// The coefficients for queries of this modality, and where they come from.
    pub(crate) fn model(&self, from: Modality) -> (Model, CalibrationKind) {
        let fitted = self.direction(from);
        let fitted = fitted.and_then(|d| d.model.map(|model| (model, d.report.calibration)));
        fitted.unwrap_or((DEFAULT, CalibrationKind::Default))
    }

    /// What is in force.
    pub(crate) fn report(&self) -> CalibrationReport {
        let report = |from: Modality| {
            let known = self
                .direction(from)
                .map(|direction| direction.report.clone());
            known.unwrap_or_else(|| DirectionReport {
                from,
                to: other(from),
                calibration: CalibrationKind::Default,
                pairs: 0,
                roc_auc: None,
                cosine_roc_auc: None,
                calibration_error: None,
            })
        };
        CalibrationReport {
            directions: Modality::ALL.into_iter().map(report).collect(),
        }
    }

    /// Checks what was read from the store.
    pub(crate) fn check(&self, fingerprint: Fingerprint) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("version {}, expected {VERSION}", self.version));
        }
        if self.fingerprint != Some(fingerprint) {
            return Err("it was fitted for another model".into());
        }
        let models = self
            .directions
            .iter()
            .filter_map(|direction| direction.model.as_ref());
        if models.clone().all(Model::is_sound) {
            Ok(())
        } else {
            Err("its coefficients are no numbers".into())
        }
    }
}

/// The modality that pairs with this one.
pub(crate) fn other(modality: Modality) -> Modality {
    match modality {
        Modality::Text => Modality::Image,
        Modality::Image => Modality::Text,
    }
}
