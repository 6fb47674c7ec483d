//! `diptych model info`: what a model is.

use anyhow::Result;
use embedding::Modality;
use encoders::ModelInfo;
use hub::Commit;
use serde::Serialize;

use crate::{
    args::{ModelInfoArgs, Places},
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
pub fn run(places: &Places, args: &ModelInfoArgs) -> Result<()> {
    let named = Named::find(places)?;
    let model = named.load()?;
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
        ("image size", info.image_size.to_string()),
        ("logit scale", info.logit_scale.to_string()),
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
