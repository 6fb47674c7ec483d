//! `preprocessor_config.json`, or the part of `processor_config.json` that stands in for it, read
//! strictly: what would change the pixels is understood or refused.

use std::num::NonZeroU32;
use std::path::Path;

use serde_json::{Value, json};

use super::{Centering, Normalization, PreprocessConfig, Resize, ResizeTo, Size, Transparency};
use crate::ModelError;
use crate::keys::{self, Keys};
use crate::picture::resize::Filter;

/// Largest side that a configuration may ask for.
const MAX_SIDE: u64 = 16_384;

/// Most patches that a configuration may ask for.
const MAX_PATCHES: u64 = 1 << 16;

/// Keys that do not change the pixels, or only as another key here says.
const HARMLESS: [&str; 8] = [
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "default_to_square",
    "feature_extractor_type",
    "image_processor_type",
    "image_seq_length",
    "processor_class",
];

const READ: [&str; 14] = [
    "crop_size",
    "do_center_crop",
    "do_convert_rgb",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "max_num_patches",
    "patch_size",
    "resample",
    "rescale_factor",
    "size",
    TRANSPARENCY,
];

/// Our own key: transformers reads over it.
const TRANSPARENCY: &str = "transparency";

/// Which image processor of transformers a file is for; it decides what a bare number means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Clip,
    Siglip,
    Naflex,
}

impl PreprocessConfig {
    /// The key of a `processor_config.json` that holds what a `preprocessor_config.json` does.
    pub(crate) const SECTION: &'static str = "image_processor";

    /// Reads the contents of a `preprocessor_config.json`; `file` is named in messages.
    ///
    /// The keys that CLIP files from before 2023 lack (`do_rescale`, `rescale_factor`) default to
    /// what `CLIPImageProcessor` then does: gray levels times 1/255.
    ///
    /// # Errors
    /// When it is not JSON, a key is missing, or one has a value or name that is not understood.
    pub fn from_json(contents: &[u8], file: &Path) -> Result<Self, ModelError> {
        let value = keys::parse(contents, file)?;
        Self::read(Keys::root(file, &value)?)
    }

    /// The same of the contents of a `processor_config.json`; what else it says is about texts.
    pub(crate) fn from_processor(contents: &[u8], file: &Path) -> Result<Self, ModelError> {
        let value = keys::parse(contents, file)?;
        let root = Keys::root(file, &value)?;
        let expected = "the keys of preprocessor_config.json, which is not there either";
        root.get(Self::SECTION, expected)?;
        Self::read(root.section_or_empty(Self::SECTION)?)
    }

    fn read(keys: Keys<'_>) -> Result<Self, ModelError> {
        let reader = Reader(keys);
        reader.refuse_unknown()?;
        let family = reader.family()?;
        if !reader.flag("do_convert_rgb", Some(true))? && family == Family::Clip {
            return Err(reader.0.bad("do_convert_rgb", "true (towers take RGB)"));
        }
        if family == Family::Naflex {
            return reader.naflex();
        }
        for key in ["patch_size", "max_num_patches"] {
            if reader.0.is_set(key) {
                return Err(reader.0.bad(key, "no such key for this processor"));
            }
        }
        let resize = if reader.flag("do_resize", None)? {
            Some(Resize {
                filter: reader.filter()?,
                to: reader.resize_to(family)?,
            })
        } else {
            None
        };
        let no_crop = (family == Family::Siglip).then_some(false);
        let crop = if reader.flag("do_center_crop", no_crop)? {
            Some(reader.crop_size()?)
        } else {
            None
        };
        let ((Some(output), _) | (None, Some(ResizeTo::Exact(output)))) =
            (crop, resize.map(|resize| resize.to))
        else {
            let expected = "true unless `size` is an exact height and width";
            return Err(reader.0.bad("do_center_crop", expected));
        };
        let (rescale, normalization) = reader.levels()?;
        Ok(Self {
            transparency: reader.transparency()?,
            resize,
            crop,
            centering: Centering::Floor,
            fill: 0,
            rescale,
            normalization,
            output: Some(output),
        })
    }

    /// The contents of a `preprocessor_config.json` that [`PreprocessConfig::from_json`] and
    /// transformers read back as the same preprocessing; `None` where only `OpenCLIP` knows it.
    pub fn to_json(&self) -> Option<String> {
        if self.centering == Centering::Even || self.fill != 0 {
            return None;
        }
        let size = |size: &Size| json!({"height": size.height, "width": size.width});
        let mut keys = json!({
            "image_processor_type": match self.patches() {
                Some(_) => "Siglip2ImageProcessor",
                None => "CLIPImageProcessor",
            },
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "do_center_crop": self.crop.is_some(),
            "do_rescale": self.rescale.is_some(),
            "do_normalize": self.normalization.is_some(),
        });
        if self.transparency == Transparency::White {
            keys[TRANSPARENCY] = json!("white");
        }
        if let Some(resize) = &self.resize {
            keys["resample"] = json!(resize.filter as u8);
            match &resize.to {
                ResizeTo::ShortestEdge(edge) => keys["size"] = json!({"shortest_edge": edge}),
                ResizeTo::Exact(exact) => keys["size"] = size(exact),
                ResizeTo::Inside(_) => return None,
                ResizeTo::Patches { patch, max_patches } => {
                    keys["patch_size"] = json!(patch);
                    keys["max_num_patches"] = json!(max_patches);
                }
            }
        }
        if let Some(crop) = &self.crop {
            keys["crop_size"] = size(crop);
        }
        if let Some(factor) = self.rescale {
            keys["rescale_factor"] = json!(factor);
        }
        if let Some(normalization) = &self.normalization {
            keys["image_mean"] = json!(normalization.mean);
            keys["image_std"] = json!(normalization.std);
        }
        Some(format!("{keys:#}\n"))
    }
}

/// The keys, read as the image processors of transformers do.
struct Reader<'a>(Keys<'a>);

impl Reader<'_> {
    fn flag(&self, key: &str, default: Option<bool>) -> Result<bool, ModelError> {
        match default {
            Some(default) if !self.0.is_set(key) => Ok(default),
            _ => self.0.flag(key),
        }
    }

    fn refuse_unknown(&self) -> Result<(), ModelError> {
        for (key, value) in self.0.iter() {
            let known = READ.contains(&key) || HARMLESS.contains(&key);
            // A step that is switched off, such as `do_pad: false`, changes nothing.
            let off = matches!(value, Value::Null | Value::Bool(false));
            if !known && !off {
                return Err(self.0.bad(key, "no such key: it may change the pixels"));
            }
        }
        Ok(())
    }

    fn family(&self) -> Result<Family, ModelError> {
        const EXPECTED: &str = "CLIPImageProcessor, SiglipImageProcessor or Siglip2ImageProcessor";
        let old = "feature_extractor_type";
        let key = if self.0.is_set("image_processor_type") || !self.0.is_set(old) {
            "image_processor_type"
        } else {
            old
        };
        match self.0.text(key, EXPECTED)? {
            "CLIPImageProcessor"
            | "CLIPImageProcessorFast"
            | "CLIPImageProcessorPil"
            | "CLIPFeatureExtractor" => Ok(Family::Clip),
            "SiglipImageProcessor" | "SiglipImageProcessorFast" | "SiglipImageProcessorPil" => {
                Ok(Family::Siglip)
            }
            "Siglip2ImageProcessor" | "Siglip2ImageProcessorFast" | "Siglip2ImageProcessorPil" => {
                Ok(Family::Naflex)
            }
            _ => Err(self.0.bad(key, EXPECTED)),
        }
    }

    /// `Siglip2ImageProcessor`: pictures of whole patches.
    fn naflex(&self) -> Result<PreprocessConfig, ModelError> {
        let refused = ["size", "crop_size"].into_iter().find(|k| self.0.is_set(k));
        if let Some(key) = refused {
            return Err(self.0.bad(key, "no such key for Siglip2ImageProcessor"));
        }
        for (key, needed) in [("do_resize", true), ("do_center_crop", false)] {
            if self.flag(key, Some(needed))? != needed {
                return Err(self.0.bad(key, if needed { "true" } else { "false" }));
            }
        }
        let count = |key: &str, most: u64| {
            let number = self.0.count(key)? as u64;
            let number = u32::try_from(number).ok().filter(|_| number <= most);
            let number = number.and_then(NonZeroU32::new);
            number.ok_or_else(|| self.0.bad(key, &format!("1 to {most}")))
        };
        let patch = count("patch_size", MAX_SIDE)?;
        let pixels = u64::from(patch.get()).pow(2);
        let max_patches = count("max_num_patches", MAX_PATCHES.min(MAX_SIDE.pow(2) / pixels))?;
        let (rescale, normalization) = self.levels()?;
        Ok(PreprocessConfig {
            transparency: self.transparency()?,
            resize: Some(Resize {
                filter: self.filter()?,
                to: ResizeTo::Patches { patch, max_patches },
            }),
            crop: None,
            centering: Centering::Floor,
            fill: 0,
            rescale,
            normalization,
            output: None,
        })
    }

    fn transparency(&self) -> Result<Transparency, ModelError> {
        const EXPECTED: &str = "\"white\", or no such key";
        if !self.0.is_set(TRANSPARENCY) {
            return Ok(Transparency::Ignored);
        }
        match self.0.text(TRANSPARENCY, EXPECTED)? {
            "white" => Ok(Transparency::White),
            _ => Err(self.0.bad(TRANSPARENCY, EXPECTED)),
        }
    }

    fn levels(&self) -> Result<(Option<f64>, Option<Normalization>), ModelError> {
        let rescale = if self.flag("do_rescale", Some(true))? {
            Some(self.rescale_factor()?)
        } else {
            None
        };
        let normalization = if self.flag("do_normalize", None)? {
            Some(self.normalization()?)
        } else {
            None
        };
        Ok((rescale, normalization))
    }

    fn filter(&self) -> Result<Filter, ModelError> {
        const EXPECTED: &str = "0 to 5, a filter of Pillow";
        let code = self.0.get("resample", EXPECTED)?.as_u64();
        let filter = code.and_then(Filter::from_code);
        filter.ok_or_else(|| self.0.bad("resample", EXPECTED))
    }

    fn resize_to(&self, family: Family) -> Result<ResizeTo, ModelError> {
        const EXPECTED: &str = "shortest_edge, or height and width, 1 to 16384";
        let value = self.0.get("size", EXPECTED)?;
        let bad = || self.0.bad("size", EXPECTED);
        if let Some(edge) = side(value) {
            return Ok(match family {
                Family::Clip => ResizeTo::ShortestEdge(edge),
                Family::Siglip | Family::Naflex => ResizeTo::Exact(Size::square(edge)),
            });
        }
        let keys = set_keys(value).ok_or_else(bad)?;
        match keys.as_slice() {
            [("shortest_edge", edge)] => side(edge).map(ResizeTo::ShortestEdge),
            _ => exact_size(&keys).map(ResizeTo::Exact),
        }
        .ok_or_else(bad)
    }

    fn crop_size(&self) -> Result<Size, ModelError> {
        const EXPECTED: &str = "height and width, 1 to 16384";
        let value = self.0.get("crop_size", EXPECTED)?;
        let size = match side(value) {
            Some(edge) => Some(Size::square(edge)),
            None => set_keys(value).and_then(|keys| exact_size(&keys)),
        };
        size.ok_or_else(|| self.0.bad("crop_size", EXPECTED))
    }

    fn rescale_factor(&self) -> Result<f64, ModelError> {
        const EXPECTED: &str = "a number other than zero";
        if !self.0.is_set("rescale_factor") {
            return Ok(1.0 / 255.0);
        }
        let factor = self.0.get("rescale_factor", EXPECTED)?.as_f64();
        let factor = factor.filter(|f| *f != 0.0 && (*f * 255.0).abs() < 1e9);
        factor.ok_or_else(|| self.0.bad("rescale_factor", EXPECTED))
    }

    fn normalization(&self) -> Result<Normalization, ModelError> {
        let (mean, std) = (self.0.triple("image_mean")?, self.0.triple("image_std")?);
        Normalization::new(mean, std)
            .ok_or_else(|| self.0.bad("image_std", "three finite numbers above zero"))
    }
}

fn side(value: &Value) -> Option<NonZeroU32> {
    let side = value.as_u64().filter(|side| *side <= MAX_SIDE)?;
    NonZeroU32::new(side as u32)
}

/// The keys of a size that are set; newer files list the others as null.
fn set_keys(value: &Value) -> Option<Vec<(&str, &Value)>> {
    let keys = value
        .as_object()?
        .iter()
        .map(|(key, value)| (key.as_str(), value));
    Some(keys.filter(|(_, value)| !value.is_null()).collect())
}

/// Exactly the keys `height` and `width`, in any order.
fn exact_size(keys: &[(&str, &Value)]) -> Option<Size> {
    match keys {
        [("height", height), ("width", width)] | [("width", width), ("height", height)] => {
            Some(Size {
                height: side(height)?,
                width: side(width)?,
            })
        }
        _ => None,
    }
}
