//! `diptych model info`: what a model is.

use anyhow::Result;
use embedding::Modality;

use crate::{
    args::{ModelInfoArgs, Places},
    home, output,
};

/// Prints what the model says about itself.
///
/// # Errors
/// When the model cannot be used.
pub fn run(places: &Places, args: &ModelInfoArgs) -> Result<()> {
    let model = home::model(places)?;
    let info = model.info();
    if args.json {
        return Ok(output::json(info)?);
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
        ("probabilities", model.scoring().to_string()),
        (
            "license",
            info.license
                .clone()
                .unwrap_or_else(|| "not stated".to_owned()),
        ),
    ];
    output::table(
        ["property", "value"],
        &rows.map(|(name, value)| [name.to_owned(), value]),
    )?;
    if let Some(description) = &info.description {
        output::line("")?;
        output::line(description.trim_end())?;
    }
    Ok(())
}
