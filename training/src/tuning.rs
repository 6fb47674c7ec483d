//! Fine-tuning: where a run begins that does not begin from nothing, which of its tensors stand still,
//! how fast each of the others moves, and low-rank adapters.

use encoders::{
    Base, ModelError,
    nn::{Form, ImageConfig, Init, Network, NetworkConfig, Source},
};

use crate::{
    TrainingError,
    config::{LoraConfig, ModelSection},
    parameters::Parameters,
};

/// What names the built-in model in `model.from`.
const BUILTIN: &str = "builtin";

/// Opens the model that a run begins with, where it does not begin from nothing.
///
/// # Errors
/// When the folder cannot be used, or its towers are not trained further: those of the sigmoid loss, and of
/// pictures of another size than the positions were learned for.
pub fn base(config: &ModelSection) -> Result<Option<Base>, TrainingError> {
    let Some(folder) = &config.from else {
        return Ok(None);
    };
    let base = if folder.as_os_str() == BUILTIN {
        Base::builtin()
    } else {
        Base::open(folder)
    }?;
    let (network, size) = (base.network(), base.preprocess().size());
    let side = network.image.image_size();
    let size = size.map(|size| [size.height.get() as usize, size.width.get() as usize]);
    let what = if network.logit_bias {
        "was trained with the sigmoid loss".to_owned()
    } else if size != Some([side, side]) {
        format!("sees {size:?} pixels and was trained for {side} by {side}")
    } else {
        return Ok(Some(base));
    };
    Err(TrainingError::Tuning {
        key: "model.from",
        problem: format!(
            "{} {what}; expected a model of the softmax loss and of pictures of one size, image_size: \
             others are not trained further",
            folder.display()
        ),
    })
}

/// Puts all tensors of `base` into `parameters` and says which of them move, and how.
///
/// # Errors
/// When a tensor cannot be read, or the configuration names one that does not exist.
pub fn begin(
    base: &Base,
    config: &ModelSection,
    parameters: &mut Parameters,
) -> Result<(), TrainingError> {
    let network = base.network();
    let form = Form::Differentiable {
        batch_statistics: false,
    };
    let mut loading = Loading {
        file: base.source()?,
        parameters: &mut *parameters,
    };
    Network::new(&mut loading, network, form)?;
    if config.specific {
        let widths = [network.image.width(), network.text.transformer.width];
        for (tower, width) in ["visual", "text"].into_iter().zip(widths) {
            let name = format!("{tower}_specific_projection.weight");
            let shape = [network.dim, width];
            match base.shape(&name)? {
                None => {}
                Some(found) if found == shape => {
                    loading.tensor(&name, &shape, Init::Constant(0.0))?;
                }
                Some(found) => {
                    return Err(TrainingError::Tuning {
                        key: "model.specific",
                        problem: format!(
                            "{name} of the folder has shape {found:?}, as `export --whiten` makes it, and what is \
                             trained has {shape:?}: without `model.specific` the folder's is kept"
                        ),
                    });
                }
            }
        }
    }
    let names: Vec<String> = parameters.all().map(|(name, _)| name.to_owned()).collect();
    for pattern in &config.freeze {
        let is_meant = |name: &&String| match pattern.as_str() {
            "image" => is_of_images(name),
            "text" => is_of_texts(name),
            pattern => matches(pattern, name),
        };
        let meant: Vec<&String> = names.iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(TrainingError::Tuning {
                key: "model.freeze",
                problem: format!(
                    "{pattern:?} names no tensor: expected \"image\", \"text\", or a name such as {:?}, \
                     in which * stands for anything",
                    names.get(names.len() / 2).map_or("", String::as_str)
                ),
            });
        }
        for name in meant {
            parameters.freeze(name);
        }
    }
    if let Some(lora) = &config.lora {
        adapt(lora, &names, parameters)?;
    }
    if config.layer_decay < 1.0 {
        let rates = parameters.all().map(|(name, _)| {
            let above = i32::try_from(layers_above(name, network)).unwrap_or(i32::MAX);
            (name.to_owned(), config.layer_decay.powi(above))
        });
        let rates = rates.collect();
        parameters.set_rates(rates);
    }
    Ok(())
}

/// Whether the image tower stands still as a whole; its batch normalization, where it has any, then uses
/// what it knows.
pub fn images_stand_still(config: &ModelSection) -> bool {
    config.lora.is_some() || config.freeze.iter().any(|pattern| pattern == "image")
}

/// Adds `B A` beside the maps of attention (Hu et al. 2021); all else stands still but the logit scale and
/// specific projections.
fn adapt(
    lora: &LoraConfig,
    names: &[String],
    parameters: &mut Parameters,
) -> Result<(), TrainingError> {
    let is_target = |name: &str| {
        let mut endings = lora.targets.iter();
        endings.any(|target| name.ends_with(&format!(".self_attn.{target}.weight")))
    };
    let targets: Vec<&String> = names
        .iter()
        .filter(|name| is_target(name) && !parameters.is_frozen(name))
        .collect();
    if targets.is_empty() {
        return Err(TrainingError::Tuning {
            key: "model.lora",
            problem: "there is no attention that is not frozen".to_owned(),
        });
    }
    let scale = lora.alpha / lora.rank as f64;
    for name in &targets {
        parameters.adapt(name, lora.rank, scale)?;
    }
    for name in names {
        if name != "logit_scale" && !name.contains("_specific_projection") {
            parameters.freeze(name);
        }
    }
    Ok(())
}

fn is_of_images(name: &str) -> bool {
    name.starts_with("vision_model.") || name.starts_with("visual_")
}

fn is_of_texts(name: &str) -> bool {
    name.starts_with("text_")
}

/// How many layers of its tower lie above a tensor: none above the last block and what comes after it, all
/// above embeddings.
fn layers_above(name: &str, network: &NetworkConfig) -> usize {
    let number = |rest: &str| rest.split('.').next().and_then(|n| n.parse::<usize>().ok());
    let above = |count: usize, place: Option<usize>| {
        count.saturating_sub(1 + place.unwrap_or(count.saturating_sub(1)))
    };
    if let Some(rest) = name.strip_prefix("text_model.") {
        let layers = network.text.transformer.layers;
        return match rest.strip_prefix("encoder.layers.") {
            Some(rest) => above(layers, number(rest)),
            None if rest.starts_with("embeddings.") => layers,
            None => 0,
        };
    }
    let Some(rest) = name.strip_prefix("vision_model.") else {
        return 0;
    };
    match &network.image {
        ImageConfig::Vit(vit) => match rest.strip_prefix("encoder.layers.") {
            Some(rest) => above(vit.transformer.layers, number(rest)),
            None if rest.starts_with("embeddings.") || rest.starts_with("pre_layrnorm.") => {
                vit.transformer.layers
            }
            None => 0,
        },
        ImageConfig::Residual(residual) => {
            let count = residual.stages.len() * residual.blocks;
            match rest.strip_prefix("stages.") {
                Some(rest) => {
                    let (stage, block) = rest.split_once('.').unwrap_or((rest, ""));
                    let place = number(stage).zip(number(block));
                    above(
                        count,
                        place.map(|(stage, block)| stage * residual.blocks + block),
                    )
                }
                None if rest.starts_with("stem.") => count,
                None => 0,
            }
        }
    }
}

/// Whether a name is what a pattern describes, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Takes what a run lacks from a file.
struct Loading<'a, S> {
    file: S,
    parameters: &'a mut Parameters,
}

impl<S: Source> Source for Loading<'_, S> {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<candle_core::Tensor, ModelError> {
        let tensor = self.file.tensor(name, shape, init)?;
        self.parameters.adopt(name, &tensor)?;
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let name = "text_model.encoder.layers.11.mlp.fc1.weight";
        for (pattern, is) in [
            (name, true),
            ("text_model.*", true),
            ("*.layers.1*.weight", true),
            ("*.layers.1.*", false),
            ("text_model.encoder", false),
            ("*.bias", false),
            ("*", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern}");
        }
    }

    #[test]
    fn layers_count_from_the_top_and_embeddings_are_below_all() {
        let mini = Base::builtin().expect("loads");
        let above = |name: &str| layers_above(name, mini.network());
        for (name, expected) in [
            ("text_model.embeddings.token_embedding.weight", 3),
            ("text_model.encoder.layers.0.mlp.fc1.weight", 2),
            ("text_model.encoder.layers.2.mlp.fc1.weight", 0),
            ("text_model.final_layer_norm.weight", 0),
            ("text_projection.weight", 0),
            ("vision_model.stem.1.conv.weight", 6),
            ("vision_model.stages.0.0.conv1.conv.weight", 5),
            ("vision_model.stages.1.1.conv1.conv.weight", 2),
            ("vision_model.stages.2.1.conv1.conv.weight", 0),
            ("visual_projection.weight", 0),
            ("logit_scale", 0),
        ] {
            assert_eq!(above(name), expected, "{name}");
        }
    }
}
