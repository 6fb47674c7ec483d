//! Where the tensors of [`crate::nn`] are in an `open_clip_model.safetensors`.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use crate::{
    ModelError,
    nn::{FileSource, Init, Source},
};

/// Gives tensors by the names that transformers has for them. `OpenCLIP` joins queries, keys and
/// values, and stores projections without a bias as `[width, dim]`.
pub(crate) struct OpenClipSource<'a> {
    files: FileSource<'a>,
    /// `""`, or `"text."` where the text tower is a module of its own.
    text: &'static str,
    /// Joined tensors of which not all parts were given yet.
    joined: HashMap<String, Tensor>,
}

/// What is to be done with a tensor of the file.
enum Form {
    AsIs,
    Transposed,
    /// One of the three parts along the first axis.
    Part(usize),
}

impl<'a> OpenClipSource<'a> {
    pub(crate) fn new(files: FileSource<'a>) -> Self {
        let own = files.shape("text.positional_embedding").is_some();
        Self {
            files,
            text: if own { "text." } else { "" },
            joined: HashMap::new(),
        }
    }

    /// The tensors by the names of the files.
    pub(crate) fn files(&self) -> &FileSource<'a> {
        &self.files
    }

    /// Tensors by the names of transformers, as the file has them.
    pub(crate) fn by_names_of_file(
        &self,
        tensors: &[(&str, Tensor)],
    ) -> Result<BTreeMap<String, Tensor>, ModelError> {
        let mut all = BTreeMap::new();
        let mut parts: BTreeMap<String, BTreeMap<usize, &Tensor>> = BTreeMap::new();
        for (name, tensor) in tensors {
            let (place, form) = self.place(name);
            match form {
                Form::AsIs => {
                    all.insert(place, tensor.clone());
                }
                Form::Transposed => {
                    all.insert(place, tensor.t()?.contiguous()?);
                }
                Form::Part(part) => {
                    parts.entry(place).or_default().insert(part, tensor);
                }
            }
        }
        for (place, parts) in parts {
            let parts: Vec<&Tensor> = parts.into_values().collect();
            all.insert(place, Tensor::cat(&parts, 0)?);
        }
        Ok(all)
    }

    /// The name in the file and the form that the tensor has there.
    fn place(&self, name: &str) -> (String, Form) {
        let text = self.text;
        if let Some(rest) = name.strip_prefix("vision_model.encoder.layers.") {
            return block(rest, "visual.");
        }
        if let Some(rest) = name.strip_prefix("text_model.encoder.layers.") {
            return block(rest, text);
        }
        let visual = |own: &str| (format!("visual.{own}"), Form::AsIs);
        let words = |own: &str| (format!("{text}{own}"), Form::AsIs);
        match name {
            "vision_model.embeddings.class_embedding" => visual("class_embedding"),
            "vision_model.embeddings.patch_embedding.weight" => visual("conv1.weight"),
            "vision_model.embeddings.position_embedding.weight" => visual("positional_embedding"),
            "vision_model.pre_layrnorm.weight" => visual("ln_pre.weight"),
            "vision_model.pre_layrnorm.bias" => visual("ln_pre.bias"),
            "vision_model.post_layernorm.weight" => visual("ln_post.weight"),
            "vision_model.post_layernorm.bias" => visual("ln_post.bias"),
            "visual_projection.weight" => ("visual.proj".to_owned(), Form::Transposed),
            "text_model.embeddings.token_embedding.weight" => words("token_embedding.weight"),
            "text_model.embeddings.position_embedding.weight" => words("positional_embedding"),
            "text_model.final_layer_norm.weight" => words("ln_final.weight"),
            "text_model.final_layer_norm.bias" => words("ln_final.bias"),
            "text_projection.weight" => (format!("{text}text_projection"), Form::Transposed),
            "text_model.head.weight" => words("text_projection.weight"),
            "text_model.head.bias" => words("text_projection.bias"),
            other => (other.to_owned(), Form::AsIs),
        }
    }
}

/// The place of `{number}.{tensor}` in the blocks of a tower.
fn block(rest: &str, tower: &str) -> (String, Form) {
    let (number, tensor) = rest.split_once('.').unwrap_or((rest, ""));
    let (own, form) = match tensor {
        "self_attn.q_proj.weight" => ("attn.in_proj_weight", Form::Part(0)),
        "self_attn.k_proj.weight" => ("attn.in_proj_weight", Form::Part(1)),
        "self_attn.v_proj.weight" => ("attn.in_proj_weight", Form::Part(2)),
        "self_attn.q_proj.bias" => ("attn.in_proj_bias", Form::Part(0)),
        "self_attn.k_proj.bias" => ("attn.in_proj_bias", Form::Part(1)),
        "self_attn.v_proj.bias" => ("attn.in_proj_bias", Form::Part(2)),
        "self_attn.out_proj.weight" => ("attn.out_proj.weight", Form::AsIs),
        "self_attn.out_proj.bias" => ("attn.out_proj.bias", Form::AsIs),
        "layer_norm1.weight" => ("ln_1.weight", Form::AsIs),
        "layer_norm1.bias" => ("ln_1.bias", Form::AsIs),
        "layer_norm2.weight" => ("ln_2.weight", Form::AsIs),
        "layer_norm2.bias" => ("ln_2.bias", Form::AsIs),
        "mlp.fc1.weight" => ("mlp.c_fc.weight", Form::AsIs),
        "mlp.fc1.bias" => ("mlp.c_fc.bias", Form::AsIs),
        "mlp.fc2.weight" => ("mlp.c_proj.weight", Form::AsIs),
        "mlp.fc2.bias" => ("mlp.c_proj.bias", Form::AsIs),
        other => (other, Form::AsIs),
    };
    (format!("{tower}transformer.resblocks.{number}.{own}"), form)
}

impl Source for OpenClipSource<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        let (place, form) = self.place(name);
        match form {
            Form::AsIs => self.files.tensor(&place, shape, init),
            Form::Transposed => {
                let shape: Vec<usize> = shape.iter().rev().copied().collect();
                let stored = self.files.tensor(&place, &shape, init)?;
                Ok(stored.t()?.contiguous()?)
            }
            Form::Part(part) => {
                let rows = shape.first().copied().unwrap_or_default();
                let mut joined = shape.to_vec();
                if let Some(first) = joined.first_mut() {
                    *first = 3 * rows;
                }
                let stored = match self.joined.remove(&place) {
                    Some(tensor) => tensor,
                    None => self.files.tensor(&place, &joined, init)?,
                };
                let own = stored.narrow(0, part * rows, rows)?.contiguous()?;
                if part < 2 {
                    self.joined.insert(place, stored);
                }
                Ok(own)
            }
        }
    }
}
