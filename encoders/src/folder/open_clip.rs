//! `open_clip_config.json`: `OpenCLIP`'s own configuration of a model and its preprocessing.
//!
//! Keys that are not there mean what `open_clip_torch` 3.3 takes (see [`VISION`] and [`TEXT`]). What
//! changes the result and is not supported is refused by name.

pub(super) mod names;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{
    SUPPORTED,
    tokenizer::{self, Cleaning, Pad, Rules},
};
use crate::{
    ModelError, PreprocessConfig,
    keys::Keys,
    nn::{
        Activation, ImageConfig, NetworkConfig, Pooling, TextConfig, TransformerConfig, VitConfig,
        VitPooling,
    },
};

/// What is taken for keys of `vision_cfg` that are not there.
static VISION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "layers": 12,
        "width": 768,
        "head_width": 64,
        "mlp_ratio": 4.0,
        "patch_size": 16,
        "image_size": 224,
        "no_ln_pre": false,
        "final_ln_after_pool": false,
        "pool_type": "tok",
        "pos_embed_type": "learnable",
    })
});

/// What is taken for keys of `text_cfg` that are not there.
static TEXT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "context_length": 77,
        "vocab_size": 49408,
        "width": 512,
        "heads": 8,
        "layers": 12,
        "mlp_ratio": 4.0,
        "no_causal_mask": false,
        "pool_type": "argmax",
        "eos_id": 2,
        "proj_type": "linear",
        "proj_bias": false,
    })
});

/// Keys of either tower that are read beside those of the tables.
const READ: [&str; 5] = [
    "act_kwargs",
    "norm_kwargs",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "tokenizer_mode",
];

/// Keys that change nothing outside of training, or nothing without another that is refused.
const HARMLESS: [&str; 14] = [
    "attn_pooler_heads",
    "attn_pooler_queries",
    "final_ln_after_pool",
    "hf_model_pretrained",
    "hf_pooler_type",
    "hf_proj_type",
    "pad_id",
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
];

/// Keys of `model_cfg`.
const MODEL: [&str; 8] = [
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "custom_text",
    "init_logit_scale",
    "init_logit_bias",
    "cast_dtype",
];

/// A folder of `OpenCLIP`'s form.
pub(super) struct OpenClip {
    pub network: NetworkConfig,
    pub preprocess: PreprocessConfig,
    /// What its tokenizer does beside its `tokenizer.json`.
    pub rules: Rules,
}

/// Reads the contents of an `open_clip_config.json`; `tokenizer_keys` are those of
/// `tokenizer_config.json`, where there is one. `file` is for messages.
pub(super) fn read(
    value: &Value,
    file: &Path,
    tokenizer_keys: Option<&Keys<'_>>,
) -> Result<OpenClip, ModelError> {
    let root = Keys::root(file, value)?;
    root.get("model_cfg", "the configuration of an OpenCLIP model")?;
    let model = root.section_or_empty("model_cfg")?;
    if model.is_set("multimodal_cfg") {
        return Err(unsupported(
            &model,
            "multimodal_cfg",
            "none: CoCa is not supported",
        ));
    }
    for (key, value) in model.iter() {
        if !MODEL.contains(&key) && !is_off(value) {
            return Err(model.bad(key, "no such key: it may change the result"));
        }
    }
    let quick_gelu = model.is_set("quick_gelu") && model.flag("quick_gelu")?;
    let vision = model.section_or_empty("vision_cfg")?;
    let image = vit(&vision.with_defaults(&VISION), quick_gelu)?;
    let text = model.section_or_empty("text_cfg")?.with_defaults(&TEXT);
    let network = NetworkConfig {
        dim: model.count("embed_dim")?,
        text: text_tower(&text, quick_gelu)?,
        logit_bias: model.is_set("init_logit_bias"),
        image: ImageConfig::Vit(image),
    };
    let side = u32::try_from(network.image.image_size()).ok();
    let side = side
        .filter(|side| *side <= MAX_SIDE)
        .and_then(NonZeroU32::new);
    let side = side.ok_or_else(|| {
        let vision = model.section_or_empty("vision_cfg");
        vision.map_or_else(|e| e, |v| v.bad("image_size", "1 to 16384"))
    })?;
    Ok(OpenClip {
        preprocess: PreprocessConfig::from_open_clip(
            &root.section_or_empty("preprocess_cfg")?,
            side,
        )?,
        rules: rules(&text, &network.text, tokenizer_keys)?,
        network,
    })
}

/// A key that says that the model is of another family.
fn unsupported(keys: &Keys<'_>, key: &str, expected: &str) -> ModelError {
    keys.bad(key, &format!("{expected}. Supported are {SUPPORTED}"))
}

/// Largest side of a picture in pixels.
const MAX_SIDE: u32 = 16_384;

fn vit(keys: &Keys<'_>, quick_gelu: bool) -> Result<VitConfig, ModelError> {
    if keys.is_set("timm_model_name") {
        let expected = "none: of OpenCLIP's towers its own vision transformer is supported";
        return Err(unsupported(keys, "timm_model_name", expected));
    }
    if keys.get("layers", "a whole number above 0")?.is_array() {
        let expected = "one number: ResNet towers are not supported";
        return Err(unsupported(keys, "layers", expected));
    }
    refuse_unknown(keys, &VISION)?;
    let positions = "\"learnable\" or \"sin_cos_2d\"";
    if !matches!(
        keys.text("pos_embed_type", positions)?,
        "learnable" | "sin_cos_2d"
    ) {
        return Err(keys.bad("pos_embed_type", positions));
    }
    let pools = "\"tok\" or \"avg\"";
    let pooling = match (
        keys.text("pool_type", pools)?,
        keys.flag("final_ln_after_pool")?,
    ) {
        ("tok", _) => VitPooling::ClassToken,
        ("avg", true) => VitPooling::MeanThenNorm,
        ("avg", false) => VitPooling::NormThenMean,
        _ => return Err(keys.bad("pool_type", pools)),
    };
    let (image_size, patch_size) = (keys.count("image_size")?, keys.count("patch_size")?);
    if patch_size > image_size {
        return Err(keys.bad("patch_size", "at most image_size"));
    }
    let heads = keys.count("width")? / keys.count("head_width")?;
    let transformer = transformer(keys, heads, "head_width", quick_gelu)?;
    Ok(VitConfig {
        pre_norm: !keys.flag("no_ln_pre")?,
        pooling,
        ..VitConfig::clip(image_size, patch_size, transformer)
    })
}

fn text_tower(keys: &Keys<'_>, quick_gelu: bool) -> Result<TextConfig, ModelError> {
    if keys.is_set("hf_model_name") {
        let expected = "none: of OpenCLIP's text towers only its own transformer is supported";
        return Err(unsupported(keys, "hf_model_name", expected));
    }
    if keys.is_set("tokenizer_mode") {
        return Err(keys.bad("tokenizer_mode", "none"));
    }
    refuse_unknown(keys, &TEXT)?;
    if keys.text("proj_type", "\"linear\"")? != "linear" {
        return Err(keys.bad("proj_type", "\"linear\""));
    }
    let pools = "\"argmax\", \"eos\", \"first\" or \"last\"";
    let pooling = match keys.text("pool_type", pools)? {
        "argmax" => Pooling::LargestId,
        "eos" => Pooling::FirstOf(keys.id("eos_id")?),
        "first" => Pooling::First,
        "last" => Pooling::Last,
        _ => return Err(keys.bad("pool_type", pools)),
    };
    Ok(TextConfig {
        vocabulary: keys.count("vocab_size")?,
        context_length: keys.count("context_length")?,
        pooling,
        causal: !keys.flag("no_causal_mask")?,
        projection_bias: keys.flag("proj_bias")?,
        transformer: transformer(keys, keys.count("heads")?, "heads", quick_gelu)?,
    })
}

/// `key` says how many `heads` there are.
fn transformer(
    keys: &Keys<'_>,
    heads: usize,
    key: &str,
    quick_gelu: bool,
) -> Result<TransformerConfig, ModelError> {
    let width = keys.count("width")?;
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(keys.bad(key, "a divisor of width"));
    }
    let activation = keys.section_or_empty("act_kwargs")?;
    let approximate = "\"none\" or \"tanh\"";
    let tanh = activation.is_set("approximate")
        && match activation.text("approximate", approximate)? {
            "tanh" => true,
            "none" => false,
            _ => return Err(activation.bad("approximate", approximate)),
        };
    let norm = keys.section_or_empty("norm_kwargs")?;
    for (section, known) in [(&activation, "approximate"), (&norm, "eps")] {
        if let Some((key, _)) = section.iter().find(|(key, _)| *key != known) {
            return Err(section.bad(key, "no such key: it may change the result"));
        }
    }
    if quick_gelu && activation.iter().next().is_some() {
        return Err(keys.bad("act_kwargs", "none beside quick_gelu"));
    }
    Ok(TransformerConfig {
        width,
        mlp_width: (width as f64 * keys.positive("mlp_ratio")?) as usize,
        layers: keys.count("layers")?,
        heads,
        activation: match (quick_gelu, tanh) {
            (true, _) => Activation::QuickGelu,
            (false, true) => Activation::GeluTanh,
            (false, false) => Activation::Gelu,
        },
        layer_norm_eps: if norm.is_set("eps") {
            norm.positive("eps")?
        } else {
            1e-5
        },
    })
}

/// Refuses what a tower may have beside what is understood, unless it is switched off.
fn refuse_unknown(keys: &Keys<'_>, table: &Value) -> Result<(), ModelError> {
    for (key, value) in keys.iter() {
        let known = table.get(key).is_some() || HARMLESS.contains(&key) || READ.contains(&key);
        let plain = key == "block_type" && value == "default";
        if !(known || plain || is_off(value)) {
            return Err(keys.bad(key, "no such key: it changes the result"));
        }
    }
    Ok(())
}

/// A key that is switched off is as if it were not there.
fn is_off(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}

/// `OpenCLIP` fills texts up with zeros, or as a tokenizer of transformers says.
fn rules(
    text: &Keys<'_>,
    tower: &TextConfig,
    tokenizer_keys: Option<&Keys<'_>>,
) -> Result<Rules, ModelError> {
    let mut rules = Rules::default();
    if !text.is_set("hf_tokenizer_name") {
        rules.pad = tower.padded().then_some(Pad::Id(0));
        return Ok(rules);
    }
    rules.cleaning = Cleaning::Whitespace;
    let options = text.section_or_empty("tokenizer_kwargs")?;
    for (key, value) in options.iter() {
        match key {
            "strip_sep_token" => {
                if options.flag(key)? {
                    rules.zeroed = Some("[SEP]".to_owned());
                }
            }
            "clean" if value == "whitespace" => {}
            _ if is_off(value) => {}
            _ => return Err(options.bad(key, "none: texts are only freed of blanks")),
        }
    }
    if tower.padded() {
        let Some(keys) = tokenizer_keys else {
            let expected = "none without a tokenizer_config.json that says its pad_token";
            return Err(text.bad("hf_tokenizer_name", expected));
        };
        rules.pad = Some(Pad::Token(tokenizer::token(keys, "pad_token")?));
    }
    Ok(rules)
}
