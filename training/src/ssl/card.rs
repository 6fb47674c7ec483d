//! What an adapted model says of itself.

use encoders::Card;

use super::{Measured, SslConfig};

/// The card of a model whose image tower was adapted, from that of the model that it comes from.
pub(super) fn adapted(
    base: &Card,
    config: &SslConfig,
    (pictures, steps): (usize, usize),
    measured: &Measured,
) -> Card {
    let name = config.model.name.clone();
    let moved = measured
        .cosine_to_original
        .map_or_else(String::new, |cosine| {
            format!(
                " Shared embeddings of pictures have a mean cosine of {cosine:.3} to those of {}.",
                base.name
            )
        });
    let anchor = config.contrast.anchor;
    let held = if anchor > 0.0 {
        format!("with an anchor of {anchor} in the shared space")
    } else {
        "without an anchor in the shared space, so that texts may find pictures worse than before"
            .to_owned()
    };
    let own = format!(
        "The image tower of {} was adapted to {pictures} unlabeled pictures in {steps} steps of \
         contrast with a bank of keys, {held}; its text tower is as it was.{moved} Embeddings of the \
         two models do not mix.",
        base.name
    );
    let description = base
        .description
        .as_deref()
        .map_or_else(|| own.clone(), |before| format!("{before} {own}"));
    Card {
        name: name.unwrap_or_else(|| format!("{}-adapted", base.name)),
        description: Some(description),
        probes: None,
        measured: Vec::new(),
        ..base.clone()
    }
}
