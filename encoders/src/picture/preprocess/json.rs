//! `preprocessor_config.json`, read strictly: what would change the pixels is understood or refused.

use std::num::NonZeroU32;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Normalization, PreprocessConfig, Resize, ResizeTo, Size};
use crate::ModelError;
use crate::picture::resize::Filter;

/// Largest side that a configuration may ask for.
const MAX_SIDE: u64 = 16_384;

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

const READ: [&str; 11] = [
    "crop_size",
    "do_center_crop",
    "do_convert_rgb",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
];

/// Which image processor of transformers a file is for; it decides what a bare number means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Clip,
    Siglip,
}

impl PreprocessConfig {
    /// Reads the contents of a `preprocessor_config.json`; `file` is named in messages.
    ///
    /// The keys that CLIP files from before 2023 lack (`do_rescale`, `rescale_factor`) default to
    /// what `CLIPImageProcessor` then does: gray levels times 1/255.
    ///
    /// # Errors
    /// When it is not JSON, a key is missing, or one has a value or name that is not understood.
    pub fn from_json(contents: &str, file: &Path) -> Result<Self, ModelError> {
        let keys: Map<String, Value> =
            serde_json::from_str(contents).map_err(|source| ModelError::Json {
                file: file.to_owned(),
                source,
            })?;
        let reader = Reader { keys: &keys, file };
        reader.refuse_unknown()?;
        let family = reader.family()?;
        if !reader.flag("do_convert_rgb", Some(true))? && family == Family::Clip {
            return Err(reader.bad("do_convert_rgb", "true (towers take RGB)"));
        }
        let resize = if reader.flag("do_resize", None)? {
            let code = reader
                .present("resample", "0 to 5, a filter of Pillow")?
                .as_u64();
            let filter = code.and_then(Filter::from_code);
            let filter = filter.ok_or_else(|| reader.bad("resample", "0 to 5, a filter of Pillow"));
            Some(Resize {
                to: reader.resize_to(family)?,
                filter: filter?,
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
            return Err(reader.bad("do_center_crop", expected));
        };
        let rescale = if reader.flag("do_rescale", Some(true))? {
            Some(reader.rescale_factor()?)
        } else {
            None
        };
        let normalization = if reader.flag("do_normalize", None)? {
            Some(reader.normalization()?)
        } else {
            None
        };
        Ok(Self {
            resize,
            crop,
            rescale,
            normalization,
            output,
        })
    }

    /// The contents of a `preprocessor_config.json` that [`PreprocessConfig::from_json`] and
    /// transformers read back as the same preprocessing.
    pub fn to_json(&self) -> String {
        let size = |size: &Size| json!({"height": size.height, "width": size.width});
        let mut keys = json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true,
            "do_resize": self.resize.is_some(),
            "do_center_crop": self.crop.is_some(),
            "do_rescale": self.rescale.is_some(),
            "do_normalize": self.normalization.is_some(),
        });
        if let Some(resize) = &self.resize {
            keys["resample"] = json!(resize.filter as u8);
            keys["size"] = match &resize.to {
                ResizeTo::ShortestEdge(edge) => json!({"shortest_edge": edge}),
                ResizeTo::Exact(exact) => size(exact),
            };
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
        format!("{keys:#}\n")
    }
}

/// Typed access to the keys, with errors that name file and key.
struct Reader<'a> {
    keys: &'a Map<String, Value>,
    file: &'a Path,
}

impl Reader<'_> {
    fn missing(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::MissingKey {
            file: self.file.to_owned(),
            key: key.to_owned(),
            expected,
        }
    }

    fn bad(&self, key: &str, expected: &str) -> ModelError {
        let value = self
            .keys
            .get(key)
            .map_or_else(|| "missing".to_owned(), Value::to_string);
        let (file, key, expected) = (self.file.to_owned(), key.to_owned(), expected.to_owned());
        ModelError::BadValue {
            file,
            key,
            value,
            expected,
        }
    }

    /// The value of a key that must be there; null counts as absent, as in transformers.
    fn present(&self, key: &str, expected: &'static str) -> Result<&Value, ModelError> {
        let value = self.keys.get(key).filter(|value| !value.is_null());
        value.ok_or_else(|| self.missing(key, expected))
    }

    fn flag(&self, key: &str, default: Option<bool>) -> Result<bool, ModelError> {
        if let (None | Some(Value::Null), Some(default)) = (self.keys.get(key), default) {
            return Ok(default);
        }
        let value = self.present(key, "true or false")?;
        value
            .as_bool()
            .ok_or_else(|| self.bad(key, "true or false"))
    }

    fn refuse_unknown(&self) -> Result<(), ModelError> {
        for (key, value) in self.keys {
            let known = READ.contains(&key.as_str()) || HARMLESS.contains(&key.as_str());
            // A step that is switched off, such as `do_pad: false`, changes nothing.
            let off = matches!(value, Value::Null | Value::Bool(false));
            if !known && !off {
                return Err(self.bad(key, "no such key: it may change the pixels"));
            }
        }
        Ok(())
    }

    fn family(&self) -> Result<Family, ModelError> {
        const EXPECTED: &str = "CLIPImageProcessor or SiglipImageProcessor";
        let key = if self.keys.contains_key("image_processor_type") {
            "image_processor_type"
        } else {
            "feature_extractor_type"
        };
        let Some(value) = self.keys.get(key) else {
            return Err(self.missing("image_processor_type", EXPECTED));
        };
        match value.as_str() {
            Some(
                "CLIPImageProcessor"
                | "CLIPImageProcessorFast"
                | "CLIPImageProcessorPil"
                | "CLIPFeatureExtractor",
            ) => Ok(Family::Clip),
            Some(
                "SiglipImageProcessor" | "SiglipImageProcessorFast" | "SiglipImageProcessorPil",
            ) => Ok(Family::Siglip),
            _ => Err(self.bad(key, EXPECTED)),
        }
    }

    fn resize_to(&self, family: Family) -> Result<ResizeTo, ModelError> {
        const EXPECTED: &str = "shortest_edge, or height and width, 1 to 16384";
        let value = self.present("size", EXPECTED)?;
        let bad = || self.bad("size", EXPECTED);
        if let Some(edge) = side(value) {
            return Ok(match family {
                Family::Clip => ResizeTo::ShortestEdge(edge),
                Family::Siglip => ResizeTo::Exact(Size::square(edge)),
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
        let value = self.present("crop_size", EXPECTED)?;
        let size = match side(value) {
            Some(edge) => Some(Size::square(edge)),
            None => set_keys(value).and_then(|keys| exact_size(&keys)),
        };
        size.ok_or_else(|| self.bad("crop_size", EXPECTED))
    }

    fn rescale_factor(&self) -> Result<f64, ModelError> {
        match self.keys.get("rescale_factor") {
            None | Some(Value::Null) => Ok(1.0 / 255.0),
            Some(value) => {
                let factor = value
                    .as_f64()
                    .filter(|f| *f != 0.0 && (*f * 255.0).abs() < 1e9);
                factor.ok_or_else(|| self.bad("rescale_factor", "a number other than zero"))
            }
        }
    }

    fn normalization(&self) -> Result<Normalization, ModelError> {
        let triple = |key| {
            let expected = "a number, or three, red first";
            let value = self.present(key, expected)?;
            let values: Option<Vec<f64>> = match value {
                Value::Array(values) => values.iter().map(Value::as_f64).collect(),
                value => value.as_f64().map(|v| vec![v; 3]),
            };
            let triple = values.and_then(|v| <[f64; 3]>::try_from(v).ok());
            triple.ok_or_else(|| self.bad(key, expected))
        };
        let (mean, std) = (triple("image_mean")?, triple("image_std")?);
        Normalization::new(mean, std)
            .ok_or_else(|| self.bad("image_std", "three finite numbers above zero"))
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
