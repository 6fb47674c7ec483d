//! Writing a folder of sentence-transformers.

use std::path::Path;

use candle_core::Tensor;
use fs_err as fs;
use serde_json::json;

use super::{
    super::write::{Stored, write_json, write_weights},
    CONFIG, DENSE, IDENTITY, LENGTH, MODULE_CONFIG, MODULES, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS,
};
use crate::{
    ModelError,
    nn::{SentenceConfig, SentencePooling},
};

const POOLING_FOLDER: &str = "1_Pooling";
const DENSE_FOLDER: &str = "2_Dense";

/// A sentence tower, ready to be written.
pub struct SentenceExport<'a> {
    /// Its sizes.
    pub config: &'a SentenceConfig,
    /// Contents of `tokenizer.json`.
    pub tokenizer: &'a str,
    /// Contents of `tokenizer_config.json`, where there is one.
    pub tokenizer_config: Option<&'a str>,
    /// Every tensor by the name that the tower has for it.
    pub tensors: Vec<(&'a str, Tensor)>,
    /// How they are stored.
    pub stored: Stored,
}

impl SentenceExport<'_> {
    /// Writes all files into `folder`, which is made where it does not exist.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(folder.join(POOLING_FOLDER))?;
        let (mut bert, mut dense) = (Vec::new(), Vec::new());
        for (name, tensor) in &self.tensors {
            match name.strip_prefix(DENSE) {
                Some(own) => dense.push((own, tensor.clone())),
                None => bert.push((*name, tensor.clone())),
            }
        }
        write_weights(&folder.join(WEIGHTS), &bert, self.stored)?;
        fs::write(folder.join(TOKENIZER), self.tokenizer)?;
        if let Some(contents) = self.tokenizer_config {
            fs::write(folder.join(TOKENIZER_CONFIG), contents)?;
        }
        let width = self.config.transformer.width;
        if let Some(of) = self.config.dense {
            let inside = folder.join(DENSE_FOLDER);
            fs::create_dir_all(&inside)?;
            write_weights(&inside.join(WEIGHTS), &dense, self.stored)?;
            let settings = json!({
                "in_features": width,
                "out_features": of.dim,
                "bias": of.bias,
                "activation_function": IDENTITY,
            });
            write_json(&inside, MODULE_CONFIG, &settings)?;
        }
        let pooling = self.config.pooling;
        let settings = json!({
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": pooling == SentencePooling::First,
            "pooling_mode_mean_tokens": pooling == SentencePooling::Mean,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
        });
        write_json(&folder.join(POOLING_FOLDER), MODULE_CONFIG, &settings)?;
        let length = json!({
            "max_seq_length": self.config.context_length,
            "do_lower_case": false,
        });
        write_json(folder, LENGTH, &length)?;
        self.write_config(folder)?;
        self.write_modules(folder)
    }

    fn write_config(&self, folder: &Path) -> Result<(), ModelError> {
        let of = &self.config.transformer;
        let config = json!({
            "model_type": "bert",
            "architectures": ["BertModel"],
            "vocab_size": self.config.vocabulary,
            "hidden_size": of.width,
            "num_hidden_layers": of.layers,
            "num_attention_heads": of.heads,
            "intermediate_size": of.mlp_width,
            "hidden_act": of.activation.name(),
            "max_position_embeddings": self.config.positions,
            "type_vocab_size": self.config.token_types,
            "layer_norm_eps": of.layer_norm_eps,
            "position_embedding_type": "absolute",
            "is_decoder": false,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        });
        write_json(folder, CONFIG, &config)
    }

    fn write_modules(&self, folder: &Path) -> Result<(), ModelError> {
        let mut modules = vec![("Transformer", String::new())];
        modules.push(("Pooling", POOLING_FOLDER.to_owned()));
        if self.config.dense.is_some() {
            modules.push(("Dense", DENSE_FOLDER.to_owned()));
        }
        modules.push(("Normalize", format!("{}_Normalize", modules.len())));
        let listed = modules.iter().enumerate().map(|(number, (kind, path))| {
            json!({
                "idx": number,
                "name": number.to_string(),
                "path": path,
                "type": format!("sentence_transformers.models.{kind}"),
            })
        });
        write_json(folder, MODULES, &listed.collect())
    }
}
