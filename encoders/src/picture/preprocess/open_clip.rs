//! `preprocess_cfg` of `OpenCLIP`'s own configuration, read as its `image_transform` does.
//!
//! There pictures become RGB after they are resized, here before: a palette or transparent pixels
//! are resized as what is seen of them.

use std::num::NonZeroU32;

use super::{Centering, Normalization, PreprocessConfig, Resize, ResizeTo, Size, Transparency};
use crate::ModelError;
use crate::keys::Keys;
use crate::picture::resize::Filter;

/// Keys that are understood. `size` and `mode` repeat what must be so.
const KNOWN: [&str; 7] = [
    "fill_color",
    "interpolation",
    "mean",
    "mode",
    "resize_mode",
    "size",
    "std",
];

impl PreprocessConfig {
    /// For a tower that takes squares of `side`. What `keys` leave out is as `OpenCLIP` has it: CLIP's
    /// mean and deviation, bicubic, the shortest side to `side` and the central square.
    pub(crate) fn from_open_clip(keys: &Keys<'_>, side: NonZeroU32) -> Result<Self, ModelError> {
        for (key, value) in keys.iter() {
            if !KNOWN.contains(&key) && !value.is_null() {
                return Err(keys.bad(key, "no such key: it may change the pixels"));
            }
        }
        if keys.is_set("mode") && keys.text("mode", "\"RGB\"")? != "RGB" {
            return Err(keys.bad("mode", "\"RGB\""));
        }
        let filter = match optional(keys, "interpolation")? {
            // At random in training only.
            None | Some("bicubic" | "random") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some(_) => return Err(keys.bad("interpolation", "\"bicubic\" or \"bilinear\"")),
        };
        let (to, cropped) = match optional(keys, "resize_mode")? {
            None | Some("shortest") => (ResizeTo::ShortestEdge(side), true),
            Some("longest") => (ResizeTo::Inside(Size::square(side)), true),
            Some("squash") => (ResizeTo::Exact(Size::square(side)), false),
            Some(_) => {
                let expected = "\"shortest\", \"longest\" or \"squash\"";
                return Err(keys.bad("resize_mode", expected));
            }
        };
        let expected = "a gray level, 0 to 255";
        let fill = if keys.is_set("fill_color") {
            let level = keys.get("fill_color", expected)?.as_u64();
            let level = level.and_then(|level| u8::try_from(level).ok());
            level.ok_or_else(|| keys.bad("fill_color", expected))?
        } else {
            0
        };
        let triple = |key, default| {
            if keys.is_set(key) {
                keys.triple(key)
            } else {
                Ok(default)
            }
        };
        let mean = triple("mean", Normalization::CLIP.mean)?;
        let std = triple("std", Normalization::CLIP.std)?;
        let normalization = Normalization::new(mean, std);
        let normalization =
            normalization.ok_or_else(|| keys.bad("std", "three finite numbers above zero"))?;
        Ok(Self {
            transparency: Transparency::Ignored,
            resize: Some(Resize { to, filter }),
            crop: cropped.then_some(Size::square(side)),
            centering: Centering::Even,
            fill,
            rescale: Some(1.0 / 255.0),
            normalization: Some(normalization),
            output: Some(Size::square(side)),
        })
    }
}

fn optional<'a>(keys: &Keys<'a>, key: &str) -> Result<Option<&'a str>, ModelError> {
    keys.is_set(key)
        .then(|| keys.text(key, "a word"))
        .transpose()
}
