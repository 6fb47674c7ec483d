//! `diptych model`: what a model is, and whether it computes what it should.

use std::process::ExitCode;

use anyhow::Result;
use embedding::Modality;
use encoders::{ModelInfo, TowerInfo};
use hub::Commit;
use serde::Serialize;

use crate::{
    args::{ModelCheckArgs, ModelInfoArgs, Places},
    named::Named,
    output,
};

/// The model, and which commit of a hub it is.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    info: &'a ModelInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
}

/// Prints what the model says about itself.
///
/// # Errors
/// When the model cannot be used.
pub fn info(places: &Places, args: &ModelInfoArgs) -> Result<()> {
    let named = Named::find(places)?;
    let model = named.load(places.run_options())?;
    let info = model.info();
    let commit = named.commit().map(Commit::as_str);
    if args.json {
        return Ok(output::json(&Answer { info, commit })?);
    }
    let spaces = model.spaces();
    let specific = Modality::ALL.map(|modality| match spaces.specific(modality) {
        Some(space) => format!("{modality} {}", space.dim),
        None => format!("{modality} none"),
    });
    let rows = [
        ("name", info.name.clone()),
        ("family", info.family.to_owned()),
        ("fingerprint", spaces.fingerprint.to_string()),
        ("parameters", output::count(info.parameters)),
        ("shared dim", spaces.shared_dim.to_string()),
        ("specific dims", specific.join(", ")),
        ("context length", info.context_length.to_string()),
        ("image size", pictures(info)),
        ("text tower", tower(&info.text)),
        ("image tower", tower(&info.image)),
        ("probabilities", model.scoring().to_string()),
        (
            "languages",
            if info.languages.is_empty() {
                "not stated".to_owned()
            } else {
                info.languages.join(", ")
            },
        ),
        (
            "license",
            info.license
                .clone()
                .unwrap_or_else(|| "not stated".to_owned()),
        ),
    ];
    let mut rows = rows.map(|(name, value)| [name.to_owned(), value]).to_vec();
    if let Some(commit) = commit {
        rows.insert(1, ["commit".to_owned(), commit.to_owned()]);
    }
    output::table(["property", "value"], &rows)?;
    if let Some(description) = &info.description {
        output::line("")?;
        output::line(description.trim_end())?;
    }
    Ok(())
}

/// What pictures are made to, in words.
fn pictures(info: &ModelInfo) -> String {
    let trained = info.image_size;
    match info.input_size {
        Some([height, width]) if (height, width) == (trained, trained) => trained.to_string(),
        Some([height, width]) => format!("{width} wide, {height} high (trained at {trained})"),
        None => "of each picture's own proportions".to_owned(),
    }
}

/// How a tower runs, in words.
fn tower(info: &TowerInfo) -> String {
    let checked = match &info.probes {
        Some(probes) => format!("cosine {:.6} to its probes", probes.least_cosine),
        None => "not verified (`diptych model check` does)".to_owned(),
    };
    format!("{}, kernels {}, {checked}", info.precision, info.kernels)
}

/// Prints how far every kernel at every precision is from the stored embeddings; fails when one is
/// too far.
///
/// # Errors
/// When the model cannot be used, or its folder not be written to.
pub fn check(places: &Places, args: &ModelCheckArgs) -> Result<ExitCode> {
    let named = Named::find(places)?;
    // One that is there and cannot be written to is checked all the same.
    if let Some(folder) = named.folder()
        && !encoders::has_probes(folder)?
    {
        named.verify()?;
    }
    let rows = match named.folder() {
        Some(folder) => encoders::check(folder)?,
        None => encoders::check_builtin()?,
    };
    if args.json {
        output::json(&rows)?;
    } else {
        let cells: Vec<[String; 6]> = rows
            .iter()
            .map(|row| {
                [
                    row.tower.to_string(),
                    row.kernels.to_owned(),
                    row.precision.to_string(),
                    format!("{:.7}", row.deviation.least_cosine),
                    format!("{:.1e}", row.deviation.max_abs),
                    if row.passed { "ok" } else { "FAILED" }.to_owned(),
                ]
            })
            .collect();
        let header = [
            "tower",
            "kernels",
            "precision",
            "least cosine",
            "max abs",
            "result",
        ];
        output::table(header, &cells)?;
    }
    Ok(if rows.iter().all(|row| row.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
