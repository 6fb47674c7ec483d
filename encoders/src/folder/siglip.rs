//! `config.json` of `SigLIP` and `SigLIP` 2.
//!
//! Published files say almost nothing: what they leave out means what transformers 5.23 takes.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::config::{square_patches, transformer};
use crate::{
    ModelError,
    keys::Keys,
    nn::{ImageConfig, NetworkConfig, Pooling, Sizing, TextConfig, VitConfig, VitPooling},
};

/// What is taken for keys of `text_config` that are not there, in both families. `projection_size`
/// is `hidden_size` then.
static TEXT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    })
});

/// The same for `vision_config`: `image_size` is read for pictures of one size, `num_patches` for
/// `NaFlex`.
static VISION: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "num_patches": 256,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": true,
    })
});

/// `model_type` `siglip`: pictures of one size.
pub(super) fn fixed(root: &Keys<'_>) -> Result<NetworkConfig, ModelError> {
    let image = root.section_or_empty("vision_config")?;
    let image = image.with_defaults(&VISION);
    let (image_size, patch_size) = square_patches(&image)?;
    network(root, &image, image_size, patch_size, Sizing::Fixed)
}

/// `model_type` `siglip2`: every picture its own size.
pub(super) fn naflex(root: &Keys<'_>) -> Result<NetworkConfig, ModelError> {
    let image = root.section_or_empty("vision_config")?;
    let image = image.with_defaults(&VISION);
    let (patches, patch_size) = (image.count("num_patches")?, image.count("patch_size")?);
    if image.count("num_channels")? != 3 {
        return Err(image.bad("num_channels", "3"));
    }
    let grid = patches.isqrt();
    let image_size = grid.checked_mul(patch_size);
    match image_size.filter(|_| grid * grid == patches) {
        Some(image_size) => network(root, &image, image_size, patch_size, Sizing::Native),
        None => Err(image.bad("num_patches", "a square number")),
    }
}

fn network(
    root: &Keys<'_>,
    image: &Keys<'_>,
    image_size: usize,
    patch_size: usize,
    sizing: Sizing,
) -> Result<NetworkConfig, ModelError> {
    if !image.flag("vision_use_head")? {
        return Err(image.bad(
            "vision_use_head",
            "true: without its head it has no embedding",
        ));
    }
    let image = VitConfig {
        image_size,
        patch_size,
        sizing,
        class_token: false,
        patch_bias: true,
        pre_norm: false,
        pooling: VitPooling::AttentionHead,
        projection: false,
        transformer: transformer(image)?,
    };
    let text = root.section_or_empty("text_config")?;
    let text = text.with_defaults(&TEXT);
    let tower = TextConfig {
        vocabulary: text.count("vocab_size")?,
        context_length: text.count("max_position_embeddings")?,
        pooling: Pooling::Last,
        causal: false,
        projection_bias: true,
        transformer: transformer(&text)?,
    };
    let dim = image.transformer.width;
    let (key, projected) = if text.is_set("projection_size") {
        ("projection_size", text.count("projection_size")?)
    } else {
        ("hidden_size", tower.transformer.width)
    };
    if projected != dim {
        return Err(text.bad(key, &format!("{dim}, the hidden_size of vision_config")));
    }
    Ok(NetworkConfig {
        dim,
        text: tower,
        image: ImageConfig::Vit(image),
        logit_bias: true,
    })
}
