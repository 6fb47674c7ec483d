//! Sentence towers equal transformers on the checkpoints that `tests/reference/sentence.py` made: token
//! ids, rows and attention maps. And folders that are written are read back as what they were.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use encoders::{
    SentenceExport, SentenceFolder, SentenceModel, Stored,
    nn::{Form, Init, SentenceTower, Source},
};
use serde_json::Value;

const CHECKPOINTS: [&str; 2] = ["sentence_mean", "sentence_first_dense"];
const FORMS: [Form; 2] = [
    Form::Fused,
    Form::Differentiable {
        batch_statistics: false,
    },
];

/// Largest difference of an element of a unit row.
const MAX_ABS: f32 = 2e-6;

/// Largest difference of an attention probability. Weights are larger than trained ones, and so are
/// logits.
const MAX_MAP: f32 = 1e-5;

fn data(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    data.join(name)
}

fn read(name: &str) -> SentenceFolder {
    SentenceFolder::read(&data(name)).expect("the checkpoint is read")
}

/// The texts with the ids that transformers gives them.
fn texts(name: &str) -> Vec<(String, Vec<u32>)> {
    let file = data(name).join("expected.json");
    let contents = std::fs::read(file).expect("it is committed");
    let listing: Value = serde_json::from_slice(&contents).expect("it is JSON");
    let listed = listing["texts"].as_array().expect("an array").iter();
    let id = |id: &Value| id.as_u64().expect("an id") as u32;
    listed
        .map(|t| {
            let text = t["text"].as_str().expect("a string").to_owned();
            (
                text,
                t["ids"].as_array().expect("ids").iter().map(id).collect(),
            )
        })
        .collect()
}

fn expected(name: &str) -> std::collections::HashMap<String, Tensor> {
    let file = data(name).join("expected.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).expect("it is committed")
}

fn gap(a: &Tensor, b: &Tensor) -> f32 {
    let gap = (a - b).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
    gap.expect("of one shape")
}

#[test]
fn token_ids_are_identical() {
    for name in CHECKPOINTS {
        let tokenizer = read(name).tokenizer;
        for (text, ids) in texts(name) {
            assert_eq!(
                tokenizer.encode(&text).expect("tokenizes"),
                ids,
                "{name}: {text:?}"
            );
        }
    }
}

/// All texts in one pass, so that all but the longest are padded; the reference took them one by one.
#[test]
fn rows_and_attention_maps_equal_those_of_transformers_in_both_forms() {
    for name in CHECKPOINTS {
        let (folder, expected) = (read(name), expected(name));
        let ids: Vec<Vec<u32>> = texts(name).into_iter().map(|(_, ids)| ids).collect();
        for form in FORMS {
            let tower = folder.tower(form).expect("the weights fit");
            let pass = tower.forward(&ids).expect("a pass");
            let worst = gap(&pass.rows, &expected["rows"]);
            assert!(
                worst <= MAX_ABS,
                "{name}, {form:?}: a row differs by {worst:e}"
            );
            for (i, ids) in ids.iter().enumerate() {
                let t = ids.len();
                let of_text = pass.maps.iter().map(|map| {
                    let map = map.get(i).and_then(|m| m.narrow(1, 0, t)?.narrow(2, 0, t));
                    map.expect("as many tokens")
                });
                let maps = Tensor::stack(&of_text.collect::<Vec<_>>(), 0).expect("of one shape");
                let worst = gap(&maps, &expected[&format!("maps/{i}")]);
                assert!(
                    worst <= MAX_MAP,
                    "{name}, text {i}: a map differs by {worst:e}"
                );
            }
            let tokens: Vec<f32> = ids.iter().map(|ids| ids.len() as f32).collect();
            let counted = pass.mask.sum(1).and_then(|m| m.to_vec1::<f32>());
            assert_eq!(counted.expect("a mask"), tokens);
        }
    }
}

#[test]
fn many_texts_give_the_rows_of_single_ones_in_their_order() {
    for name in CHECKPOINTS {
        let folder = read(name);
        let tower = folder.tower(Form::Fused).expect("the weights fit");
        let model = SentenceModel::new(tower, folder.tokenizer.clone());
        // More than a pass takes, and of mixed lengths.
        let some: Vec<String> = texts(name).into_iter().map(|(text, _)| text).collect();
        let many: Vec<&String> = some.iter().cycle().take(5 * some.len()).collect();
        let rows = model.encode(&many).expect("encodes");
        for (text, row) in many.iter().zip(&rows).take(2 * some.len()) {
            let alone = model.encode(&[text]).expect("encodes");
            let cosine = alone[0].cosine(row);
            assert!(cosine > 1.0 - 1e-5, "{name}: {text:?}: {cosine}");
        }
        assert_eq!(rows.len(), many.len());
    }
}

/// Keeps what a tower takes.
struct Recording<'a>(&'a mut dyn Source, Vec<(String, Tensor)>);

impl Source for Recording<'_> {
    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<Tensor, encoders::ModelError> {
        let tensor = self.0.tensor(name, shape, init)?;
        self.1.push((name.to_owned(), tensor.clone()));
        Ok(tensor)
    }
}

#[test]
fn a_written_folder_gives_the_same_rows_and_has_the_number_of_weights_that_its_config_says() {
    for name in CHECKPOINTS {
        let folder = read(name);
        let mut source = folder.source().expect("weights");
        let mut recording = Recording(&mut source, Vec::new());
        let tower = SentenceTower::new(&mut recording, &folder.config, Form::Fused);
        let tower = tower.expect("the weights fit");
        let taken = recording.1;
        let count: usize = taken.iter().map(|(_, tensor)| tensor.elem_count()).sum();
        assert_eq!(count, folder.config.parameters(), "{name}");
        let out = tempfile::tempdir().expect("a folder");
        let export = SentenceExport {
            config: &folder.config,
            tokenizer: &folder.tokenizer_json,
            tokenizer_config: folder.tokenizer_config.as_deref(),
            tensors: taken.iter().map(|(n, t)| (n.as_str(), t.clone())).collect(),
            stored: Stored::F32,
        };
        export.write(out.path()).expect("writes");
        let again = SentenceFolder::read(out.path()).expect("reads");
        assert_eq!(again.config, folder.config, "{name}");
        assert_ne!(
            again.fingerprint(),
            folder.fingerprint(),
            "other files, other bytes"
        );
        let ids: Vec<Vec<u32>> = texts(name).into_iter().map(|(_, ids)| ids).collect();
        let [before, after] = [&tower, &again.tower(Form::Fused).expect("the weights fit")]
            .map(|tower| tower.forward(&ids).expect("a pass").rows);
        assert!(gap(&before, &after) < f32::MIN_POSITIVE, "{name}");
    }
}

/// A copy of a checkpoint with a file changed.
fn changed(name: &str, file: &str, from: &str, to: &str) -> String {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in ["", "1_Pooling", "2_Dense"] {
        let Ok(entries) = std::fs::read_dir(data(name).join(entry)) else {
            continue;
        };
        std::fs::create_dir_all(copy.path().join(entry)).expect("makes");
        for file in entries
            .map(|e| e.expect("an entry").path())
            .filter(|p| p.is_file())
        {
            let own = file.file_name().expect("a name");
            std::fs::copy(&file, copy.path().join(entry).join(own)).expect("copies");
        }
    }
    let file = copy.path().join(file);
    let contents = std::fs::read_to_string(&file).expect("a text");
    assert!(contents.contains(from), "{} lacks {from}", file.display());
    std::fs::write(&file, contents.replace(from, to)).expect("writes");
    let refused = SentenceFolder::read(copy.path()).err();
    refused.expect("is refused").to_string()
}

/// A checkpoint, one of its files, what is changed in it, and what is said then.
const REFUSED: [(&str, &str, &str, &str, &str); 14] = [
    (
        CHECKPOINTS[0],
        "config.json",
        "\"bert\"",
        "\"roberta\"",
        "key `model_type` is \"roberta\"",
    ),
    (
        CHECKPOINTS[0],
        "config.json",
        "\"is_decoder\": false",
        "\"is_decoder\": true",
        "key `is_decoder`",
    ),
    (
        CHECKPOINTS[0],
        "config.json",
        "\"gelu\"",
        "\"relu\"",
        "key `hidden_act` is \"relu\"",
    ),
    (
        CHECKPOINTS[0],
        "config.json",
        "\"num_attention_heads\": 3",
        "\"num_attention_heads\": 5",
        "divisor",
    ),
    (
        CHECKPOINTS[0],
        "config.json",
        "\"vocab_size\": 69",
        "\"vocab_size\": 68",
        "it gives id 68",
    ),
    (
        CHECKPOINTS[0],
        "sentence_bert_config.json",
        "16",
        "21",
        "key `max_seq_length` is 21",
    ),
    (
        CHECKPOINTS[0],
        "sentence_bert_config.json",
        "16",
        "1",
        "its template adds 2 ids",
    ),
    (
        CHECKPOINTS[0],
        "sentence_bert_config.json",
        "false",
        "true",
        "key `do_lower_case` is true",
    ),
    (
        CHECKPOINTS[0],
        "1_Pooling/config.json",
        "\"pooling_mode_max_tokens\": false",
        "\"pooling_mode_max_tokens\": true",
        "the mean of all tokens or the first one",
    ),
    (
        CHECKPOINTS[0],
        "1_Pooling/config.json",
        "true",
        "false",
        "`pooling_mode_mean_tokens` is missing",
    ),
    (
        CHECKPOINTS[0],
        "modules.json",
        "models.Pooling",
        "models.WeightedLayerPooling",
        "a Transformer, a Pooling",
    ),
    (
        CHECKPOINTS[0],
        "modules.json",
        "\"1_Pooling\"",
        "\"../1_Pooling\"",
        "key `path` is \"../1_Pooling\"",
    ),
    (
        CHECKPOINTS[1],
        "2_Dense/config.json",
        "linear.Identity",
        "activation.Tanh",
        "activation_function",
    ),
    (
        CHECKPOINTS[1],
        "2_Dense/config.json",
        "\"in_features\": 20",
        "\"in_features\": 21",
        "20, hidden_size",
    ),
];

#[test]
fn what_is_not_supported_is_refused_by_file_and_key() {
    for (name, file, from, to, says) in REFUSED {
        let message = changed(name, file, from, to);
        let named = file.rsplit('/').next().unwrap_or(file);
        let named = message.contains(named) || message.contains("tokenizer.json");
        assert!(
            named && message.contains(says),
            "{file}, {from} to {to}: {message}"
        );
    }
}

#[test]
fn a_text_that_is_empty_or_too_long_for_the_tower_is_refused() {
    let tower = read(CHECKPOINTS[0])
        .tower(Form::Fused)
        .expect("the weights fit");
    for ids in [vec![2, 3], vec![2; 16]] {
        tower.forward(&[ids]).expect("1 to 16 tokens");
    }
    for (ids, says) in [(Vec::new(), "got 0"), (vec![2; 17], "got 17")] {
        let message = tower.forward(&[ids]).expect_err("is refused").to_string();
        assert!(
            message.contains("1 to 16 tokens each") && message.contains(says),
            "{message}"
        );
    }
}
