//! `config.json`: the sizes of a network, read and written.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{SUPPORTED, siglip};
use crate::{
    ModelError,
    keys::{self, Keys},
    nn::{
        Activation, ImageConfig, NetworkConfig, Pooling, ResidualConfig, TextConfig,
        TransformerConfig, VitConfig,
    },
};

/// What `model_type` may be.
const FAMILIES: [&str; 4] = ["clip", "siglip", "siglip2", "diptych"];

/// The `eos_token_id` of old configs, which means "the largest id".
const LEGACY_END: u32 = 2;

/// What a folder can be written of.
const ONLY_CLIP: &str = "towers as in CLIP: no others are written";

/// What transformers 5.23 takes for keys of `text_config` that are not there.
static CLIP_TEXT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "eos_token_id": 49407,
    })
});

/// The same for `vision_config`.
static CLIP_VISION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    })
});

/// The same for the outermost keys.
static CLIP: LazyLock<Value> = LazyLock::new(|| json!({ "projection_dim": 512 }));

/// Refuses a `config.json` of a family that is not supported, whatever else is missing beside it.
pub(super) fn check_family(contents: &[u8], file: &Path) -> Result<(), ModelError> {
    let value = keys::parse(contents, file)?;
    let root = Keys::root(file, &value)?;
    if FAMILIES.contains(&root.text("model_type", SUPPORTED)?) {
        return Ok(());
    }
    Err(root.bad("model_type", SUPPORTED))
}

/// Reads the contents of a `config.json`; `file` is for messages.
pub(super) fn read(value: &Value, file: &Path) -> Result<NetworkConfig, ModelError> {
    let root = Keys::root(file, value)?;
    match root.text("model_type", SUPPORTED)? {
        "clip" => clip(root),
        "siglip" => siglip::fixed(&root),
        "siglip2" => siglip::naflex(&root),
        "diptych" => diptych(&root),
        _ => Err(root.bad("model_type", SUPPORTED)),
    }
}

fn clip(root: Keys<'_>) -> Result<NetworkConfig, ModelError> {
    let image = root.section("vision_config")?.with_defaults(&CLIP_VISION);
    let (image_size, patch_size) = square_patches(&image)?;
    let text = root.section("text_config")?.with_defaults(&CLIP_TEXT);
    let tower = VitConfig::clip(image_size, patch_size, transformer(&image)?);
    Ok(NetworkConfig {
        text: text_tower(&text)?,
        image: ImageConfig::Vit(tower),
        logit_bias: false,
        dim: root.with_defaults(&CLIP).count("projection_dim")?,
    })
}

fn diptych(root: &Keys<'_>) -> Result<NetworkConfig, ModelError> {
    Ok(NetworkConfig {
        image: residual(&root.section("vision_config")?)?,
        text: text_tower(&root.section("text_config")?)?,
        logit_bias: false,
        dim: root.count("projection_dim")?,
    })
}

fn text_tower(keys: &Keys<'_>) -> Result<TextConfig, ModelError> {
    let end = keys.without_overridden_default().id("eos_token_id")?;
    Ok(TextConfig {
        vocabulary: keys.count("vocab_size")?,
        context_length: keys.count("max_position_embeddings")?,
        pooling: if end == LEGACY_END {
            Pooling::LargestId
        } else {
            Pooling::FirstOf(end)
        },
        causal: true,
        projection_bias: false,
        transformer: transformer(keys)?,
    })
}

/// Sides of the picture and of a patch, in pixels.
pub(super) fn square_patches(keys: &Keys<'_>) -> Result<(usize, usize), ModelError> {
    let (image_size, patch_size) = (keys.count("image_size")?, keys.count("patch_size")?);
    if patch_size > image_size {
        return Err(keys.bad("patch_size", "at most image_size"));
    }
    if keys.count("num_channels")? != 3 {
        return Err(keys.bad("num_channels", "3"));
    }
    Ok((image_size, patch_size))
}

fn residual(keys: &Keys<'_>) -> Result<ImageConfig, ModelError> {
    let expected = "\"diptych_residual\"";
    if keys.text("model_type", expected)? != "diptych_residual" {
        return Err(keys.bad("model_type", expected));
    }
    Ok(ImageConfig::Residual(ResidualConfig {
        image_size: keys.count("image_size")?,
        stem: keys.counts("stem_widths")?,
        stages: keys.counts("stage_widths")?,
        blocks: keys.count("blocks_per_stage")?,
        width: keys.count("hidden_size")?,
        norm_eps: keys.positive("norm_eps")?,
    }))
}

/// The sizes of a transformer, by the names that CLIP and `SigLIP` share.
pub(super) fn transformer(keys: &Keys<'_>) -> Result<TransformerConfig, ModelError> {
    let activations = "\"quick_gelu\", \"gelu\" or \"gelu_pytorch_tanh\"";
    let name = keys.text("hidden_act", activations)?;
    let activation =
        Activation::from_name(name).ok_or_else(|| keys.bad("hidden_act", activations))?;
    let (width, heads) = (
        keys.count("hidden_size")?,
        keys.count("num_attention_heads")?,
    );
    if !width.is_multiple_of(heads) {
        return Err(keys.bad("num_attention_heads", "a divisor of hidden_size"));
    }
    Ok(TransformerConfig {
        width,
        mlp_width: keys.count("intermediate_size")?,
        layers: keys.count("num_hidden_layers")?,
        heads,
        activation,
        layer_norm_eps: keys.positive("layer_norm_eps")?,
    })
}

/// The contents of a `config.json` that [`read`], and for a vision transformer also transformers,
/// reads back. `start` is the id of the start-of-text token; `file` is for messages.
pub(super) fn write(config: &NetworkConfig, start: u32, file: &Path) -> Result<Value, ModelError> {
    let transformer = |t: &TransformerConfig, kind: &str| {
        json!({
            "model_type": kind,
            "hidden_size": t.width,
            "intermediate_size": t.mlp_width,
            "num_hidden_layers": t.layers,
            "num_attention_heads": t.heads,
            "hidden_act": t.activation.name(),
            "layer_norm_eps": t.layer_norm_eps,
            "attention_dropout": 0.0,
            "projection_dim": config.dim,
        })
    };
    let refused = |key: &str, value: &str, expected: &str| ModelError::BadValue {
        file: file.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        expected: expected.to_owned(),
    };
    let tower = &config.text;
    let mut text = transformer(&tower.transformer, "clip_text_model");
    let end = match tower.pooling {
        Pooling::LargestId => LEGACY_END,
        Pooling::FirstOf(LEGACY_END) => {
            let expected = "another id: 2 means the largest id of a text";
            return Err(refused("text_config.eos_token_id", "2", expected));
        }
        Pooling::FirstOf(id) => id,
        Pooling::First | Pooling::Last => {
            return Err(refused("text_config", "pooled otherwise", ONLY_CLIP));
        }
    };
    if !tower.causal || tower.projection_bias || config.logit_bias {
        return Err(refused("text_config", "of another family", ONLY_CLIP));
    }
    text["vocab_size"] = config.text.vocabulary.into();
    text["max_position_embeddings"] = config.text.context_length.into();
    text["bos_token_id"] = start.into();
    text["eos_token_id"] = end.into();
    text["pad_token_id"] = end.into();
    let (kind, architecture, image) = match &config.image {
        ImageConfig::Vit(vit) => {
            let inner = vit.transformer.clone();
            if *vit != VitConfig::clip(vit.image_size, vit.patch_size, inner) {
                return Err(refused("vision_config", "of another family", ONLY_CLIP));
            }
            let mut image = transformer(&vit.transformer, "clip_vision_model");
            image["image_size"] = vit.image_size.into();
            image["patch_size"] = vit.patch_size.into();
            image["num_channels"] = 3.into();
            ("clip", "CLIPModel", image)
        }
        ImageConfig::Residual(residual) => {
            let image = json!({
                "model_type": "diptych_residual",
                "image_size": residual.image_size,
                "stem_widths": residual.stem,
                "stage_widths": residual.stages,
                "blocks_per_stage": residual.blocks,
                "hidden_size": residual.width,
                "norm_eps": residual.norm_eps,
            });
            ("diptych", "Diptych", image)
        }
    };
    Ok(json!({
        "model_type": kind,
        "architectures": [architecture],
        "projection_dim": config.dim,
        "logit_scale_init_value": 2.6592,
        "text_config": text,
        "vision_config": image,
    }))
}
