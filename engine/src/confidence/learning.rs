//! What the cases of a direction teach, and how well.

use embedding::{Modality, mix};

use super::{
    calibration::{CalibrationKind, Direction, DirectionReport, Features, Model, other},
    fit::logistic,
    sample::Spread,
};
use crate::metrics::{calibration_error, roc_auc};

/// Area under the ROC curve that a fit without pairs must reach to be used. Pictures with their
/// descriptions (CLIP) gave .91, with half of the descriptions .84, with descriptions of other
/// things .67.
const SELF_ROC_AUC: f64 = 0.75;
/// Parts that the cases are split into, to try each on what was fitted on the others.
const FOLDS: u64 = 5;

/// What one pair showed.
pub(super) struct Case {
    /// Of the query, with the modality that is found.
    pub(super) spread: Spread,
    /// The first hit when the true item is there, and whether it is the true one.
    pub(super) present: (Features, bool),
    /// The first hit when it is not.
    pub(super) absent: Features,
}

/// Fits the coefficients of queries of one modality, and tries them on cases that were left out.
pub(super) fn learn(from: Modality, kind: CalibrationKind, cases: &[Case]) -> Direction {
    let mut report = DirectionReport {
        from,
        to: other(from),
        calibration: CalibrationKind::Default,
        pairs: cases.len(),
        roc_auc: None,
        cosine_roc_auc: None,
        calibration_error: None,
    };
    let (mut present, mut absent, mut predicted) = (Vec::new(), Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let is_in = |i: usize| mix(i as u64) % FOLDS == fold;
        let others = (0..cases.len()).filter(|i| !is_in(*i)).map(|i| &cases[i]);
        let Some(model) = fitted(&others.collect::<Vec<_>>()) else {
            return Direction {
                model: None,
                report,
            };
        };
        for case in (0..cases.len()).filter(|i| is_in(*i)).map(|i| &cases[i]) {
            let (there, gone) = (
                model.probability(&case.present.0),
                model.probability(&case.absent),
            );
            present.push(there);
            absent.push(gone);
            predicted.extend([(there, case.present.1), (gone, false)]);
        }
    }
    let cosine = |features: &Features| f64::from(features.cosine);
    let with: Vec<f64> = cases.iter().map(|case| cosine(&case.present.0)).collect();
    let without: Vec<f64> = cases.iter().map(|case| cosine(&case.absent)).collect();
    let auc = roc_auc(&present, &absent);
    report.roc_auc = Some(auc);
    report.cosine_roc_auc = Some(roc_auc(&with, &without));
    report.calibration_error = Some(calibration_error(&predicted));
    let good = kind == CalibrationKind::Pairs || auc >= SELF_ROC_AUC;
    let model = fitted(&cases.iter().collect::<Vec<_>>()).filter(|_| good);
    if model.is_some() {
        report.calibration = kind;
    }
    Direction { model, report }
}

/// Coefficients for these cases; `None` when they teach nothing sensible.
fn fitted(cases: &[&Case]) -> Option<Model> {
    let cosines: Vec<f32> = cases
        .iter()
        .flat_map(|case| [case.present.0.cosine, case.absent.cosine])
        .collect();
    let Spread { mean, deviation } = Spread::of(&cosines)?;
    let labeled = cases
        .iter()
        .flat_map(|case| [case.present, (case.absent, false)]);
    let numbers = |features: &Features| {
        (
            f64::from((features.cosine - mean) / deviation),
            f64::from(features.standing),
        )
    };
    let lean: Vec<([f64; 3], bool)> = labeled
        .clone()
        .map(|(features, label)| {
            let (cosine, standing) = numbers(&features);
            ([cosine, standing, 1.0], label)
        })
        .collect();
    let full: Option<Vec<([f64; 4], bool)>> = labeled
        .map(|(features, label)| {
            let (cosine, standing) = numbers(&features);
            Some(([cosine, standing, f64::from(features.lead?), 1.0], label))
        })
        .collect();
    let model = Model {
        mean,
        deviation,
        full: match full {
            Some(full) => Some(logistic(&full)?),
            None => None,
        },
        lean: logistic(&lean)?,
    };
    let deviations = cases
        .iter()
        .map(|case| f64::from(case.spread.deviation))
        .sum::<f64>();
    let usual = Spread {
        mean: 0.0,
        deviation: (deviations / cases.len() as f64) as f32,
    };
    model.rises(usual).then_some(model)
}
