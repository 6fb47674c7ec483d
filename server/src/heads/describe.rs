//! What is said of a head, and what it says.

use engine::{HeadBrief, HeadEntry, KeptHead, Prediction};
use serde_json::{Value, json};

use crate::clock::rfc3339;

/// When something was made.
pub(crate) fn made_at(ms: Option<u64>) -> Value {
    ms.map_or(Value::Null, |ms| rfc3339(ms).into())
}

/// A head in a list: its current version.
pub(crate) fn entry(entry: &HeadEntry) -> Value {
    let versions: Vec<u32> = entry.versions.iter().map(|one| one.version).collect();
    let current = entry
        .versions
        .iter()
        .find(|one| one.version == entry.current);
    let mut out = current.map_or_else(|| json!({}), |one| brief(&one.brief));
    out["name"] = json!(entry.name);
    out["version"] = json!(entry.current);
    out["versions"] = json!(versions);
    out
}

/// What is said of one version.
pub(crate) fn brief(brief: &HeadBrief) -> Value {
    json!({
        "labels": brief.labels,
        "aspect": brief.aspect,
        "kind": brief.kind,
        "multi_label": brief.multi_label,
        "made_at": made_at(brief.made_at_ms),
        "examples": brief.examples,
        "accuracy": brief.accuracy,
    })
}

/// All that is known of one version.
pub(crate) fn kept(name: &str, version: u32, kept: &KeptHead) -> Value {
    let about = &kept.about;
    let mut out = json!({
        "name": name,
        "version": version,
        "labels": kept.head.labels,
        "aspect": kept.head.inputs.aspect(),
        "kind": about.kind,
        "multi_label": about.multi_label,
        "made_at": made_at(about.made_at_ms),
        "examples": about.examples,
        "accuracy": about.accuracy,
    });
    if let (Some(out), Some(report)) = (out.as_object_mut(), about.report.as_object()) {
        for key in ["used", "held_out"] {
            out.insert(key.into(), report.get(key).cloned().unwrap_or_default());
        }
    }
    out
}

/// The first labels.
pub(crate) fn predictions(predictions: &[Prediction], k: usize) -> Value {
    let each = predictions.iter().take(k);
    each.map(|p| json!({ "label": p.label, "probability": p.probability, "score": p.score }))
        .collect()
}
