use fs_err as fs;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Model;

mod families;
mod parts;

/// Checkpoints that transformers wrote; the first pools the largest id, the second a named one.
const LARGEST_ID: &str = "quick_gelu_legacy_eos";
const NAMED_ID: &str = "gelu_named_eos";

/// A copy of a reference folder, to be damaged.
fn copy(name: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    let folder = TempDir::new().expect("a temporary folder");
    for entry in fs::read_dir(from.join(name)).expect("it is committed") {
        let file = entry.expect("it is listed").file_name();
        if !file.to_string_lossy().starts_with("expected") {
            fs::copy(from.join(name).join(&file), folder.path().join(&file)).expect("it is there");
        }
    }
    folder
}

fn read(folder: &TempDir, file: &str) -> Value {
    let contents = fs::read(folder.path().join(file)).expect("it was copied");
    serde_json::from_slice(&contents).expect("it is JSON")
}

/// Changes a JSON file of a copy.
fn edit(folder: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value = read(folder, file);
    change(&mut value);
    fs::write(folder.path().join(file), value.to_string()).expect("it is ours");
}

fn remove(section: &mut Value, key: &str) {
    let keys = section.as_object_mut().expect("an object");
    keys.remove(key).expect("it was there");
}

/// Adds a tensor of zeros to the weights of a copy.
fn add_tensor(folder: &TempDir, name: &str, kind: safetensors::Dtype, shape: &[usize]) {
    let file = folder.path().join(WEIGHTS);
    let bytes = fs::read(&file).expect("it was copied");
    let tensors = SafeTensors::deserialize(&bytes).expect("it is safetensors");
    let zeros = vec![0; shape.iter().product::<usize>() * kind.bitsize() / 8];
    let mut views = tensors.tensors();
    let view = TensorView::new(kind, shape.to_vec(), &zeros).expect("made to fill the shape");
    views.push((name.to_owned(), view));
    let bytes = safetensors::serialize(views, None).expect("it is safetensors again");
    fs::write(file, bytes).expect("it is ours");
}

/// The error of a folder, after the name of the file.
fn refused(folder: &TempDir, file: &str) -> String {
    let Err(error) = Model::load(folder.path()) else {
        panic!("{file}: the folder loads");
    };
    let start = folder.path().join(file).display().to_string();
    let message = error.to_string();
    let rest = message.strip_prefix(&start);
    rest.unwrap_or_else(|| panic!("{message} does not start with {start}"))
        .to_owned()
}

/// `openai/clip-vit-base-patch32` was saved by a transformers that did not write the key yet; the
/// shape of the patches says the same.
#[test]
fn the_number_of_channels_may_be_left_out_but_is_three() {
    let folder = copy(LARGEST_ID);
    edit(&folder, CONFIG, |config| {
        remove(&mut config["vision_config"], "num_channels");
    });
    Model::load(folder.path()).expect("it says all that changes the result");
    edit(&folder, CONFIG, |config| {
        config["vision_config"]["num_channels"] = Value::Null;
    });
    Model::load(folder.path()).expect("null is left out");
    for other in [json!(1), json!(4), json!("3")] {
        edit(&folder, CONFIG, |config| {
            config["vision_config"]["num_channels"] = other.clone();
        });
        let error = refused(&folder, CONFIG);
        let start = format!(": key `vision_config.num_channels` is {other}, expected");
        assert!(error.starts_with(&start), "{error}");
    }
}

/// transformers lets `text_config_dict` and `vision_config_dict`, which files from before 2023
/// have beside the sections, override what the sections say.
#[test]
fn a_section_and_what_overrides_it_must_agree() {
    for (section, key, other) in [
        ("text_config", "hidden_act", json!("gelu")),
        ("text_config", "eos_token_id", json!(613)),
        ("text_config", "num_attention_heads", json!(4)),
        ("vision_config", "layer_norm_eps", json!(1e-6)),
        ("vision_config", "num_channels", json!(4)),
    ] {
        let folder = copy(LARGEST_ID);
        let overriding = format!("{section}_dict");
        let whole = read(&folder, CONFIG)[section].clone();
        let same = whole[key].clone();
        for harmless in [json!(null), whole] {
            edit(&folder, CONFIG, |config| config[&overriding] = harmless);
            Model::load(folder.path()).expect("nothing is overridden");
        }
        edit(&folder, CONFIG, |config| {
            config[&overriding][key] = other.clone();
        });
        assert_eq!(
            refused(&folder, CONFIG),
            format!(
                ": key `{overriding}.{key}` is {other}, expected {same} as `{section}.{key}` says"
            )
        );
        edit(&folder, CONFIG, |config| config[&overriding] = json!("all"));
        assert_eq!(
            refused(&folder, CONFIG),
            format!(": key `{overriding}` is \"all\", expected an object")
        );
    }
    // What only the overriding object says holds.
    let folder = copy(LARGEST_ID);
    edit(&folder, CONFIG, |config| {
        config["vision_config_dict"] = config["vision_config"].clone();
        config["vision_config_dict"]["num_channels"] = json!(4);
        remove(&mut config["vision_config"], "num_channels");
    });
    let error = refused(&folder, CONFIG);
    assert_eq!(error, ": key `vision_config.num_channels` is 4, expected 3");
}

/// What an overriding object leaves out it overrides with the default; but for the end of text, of
/// which files of 2022 say 2 in the section alone, and mean the token of the default.
#[test]
fn an_overriding_object_that_leaves_a_key_out_means_the_default() {
    let folder = copy(LARGEST_ID);
    edit(&folder, CONFIG, |config| {
        config["text_config_dict"] = config["text_config"].clone();
        remove(&mut config["text_config_dict"], "eos_token_id");
    });
    Model::load(folder.path()).expect("the end of text is that of the section");
    edit(&folder, CONFIG, |config| {
        remove(&mut config["text_config_dict"], "hidden_size");
    });
    assert_eq!(
        refused(&folder, CONFIG),
        ": key `text_config_dict.hidden_size` is 512, expected 32 as `text_config.hidden_size` says"
    );
}

/// A null is what transformers writes for what was never set.
#[test]
fn null_is_missing_in_every_file() {
    let folder = copy(LARGEST_ID);
    edit(&folder, CONFIG, |config| config["model_type"] = Value::Null);
    let error = refused(&folder, CONFIG);
    let start = ": key `model_type` is missing, expected";
    assert!(error.starts_with(start), "{error}");
    let folder = copy(LARGEST_ID);
    edit(&folder, PREPROCESSOR, |keys| {
        keys["image_processor_type"] = Value::Null;
    });
    let error = refused(&folder, PREPROCESSOR);
    let start = ": key `image_processor_type` is missing, expected";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn a_file_that_is_not_utf_8_is_not_valid_json() {
    for file in [CONFIG, PREPROCESSOR] {
        let folder = copy(LARGEST_ID);
        edit(&folder, file, |keys| keys["auto_map"] = json!("@"));
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).expect("it was copied");
        let at = bytes.iter().position(|b| *b == b'@').expect("just written");
        bytes[at] = 0xff;
        fs::write(path, bytes).expect("it is ours");
        assert_eq!(refused(&folder, file), " is not valid JSON");
    }
}

#[test]
fn a_tokenizer_must_give_ids_for_every_text() {
    // Without its template a tokenizer gives nothing for an empty text.
    let folder = copy(LARGEST_ID);
    edit(&folder, TOKENIZER, |tokenizer| {
        tokenizer["post_processor"] = Value::Null;
    });
    assert_eq!(
        refused(&folder, TOKENIZER),
        " is not a usable tokenizer: it gives no ids for \"\""
    );
}

#[test]
fn a_tokenizer_must_end_every_text_with_the_pooled_token() {
    let folder = copy(NAMED_ID);
    edit(&folder, CONFIG, |config| {
        config["text_config"]["eos_token_id"] = json!(7);
    });
    assert_eq!(
        refused(&folder, TOKENIZER),
        " is not a usable tokenizer: it does not add id 7, the eos_token_id of config.json, to \"\""
    );
}

#[test]
fn the_template_of_a_tokenizer_must_stay_within_the_vocabulary() {
    let folder = copy(LARGEST_ID);
    edit(&folder, TOKENIZER, |tokenizer| {
        tokenizer["post_processor"]["sep"] = json!(["<|endoftext|>", 5000]);
    });
    assert_eq!(
        refused(&folder, TOKENIZER),
        " is not a usable tokenizer: it gives id 5000, but config.json has vocab_size 614"
    );
}

#[test]
fn a_specific_projection_without_rows_is_refused_by_name() {
    for (tower, width) in [("text", 32), ("visual", 48)] {
        let name = format!("{tower}_specific_projection.weight");
        for shape in [vec![0, width], vec![]] {
            let folder = copy(LARGEST_ID);
            add_tensor(&folder, &name, safetensors::Dtype::F32, &shape);
            assert_eq!(
                refused(&folder, WEIGHTS),
                format!(": tensor `{name}`: has shape {shape:?}, expected [1, {width}]")
            );
        }
    }
}

#[test]
fn what_is_learned_is_counted_and_nothing_else() {
    let folder = copy(LARGEST_ID);
    let count = |folder: &TempDir| {
        let model = Model::load(folder.path()).expect("it loads");
        model.info().parameters
    };
    let learned = count(&folder);
    let positions = "text_model.embeddings.position_ids";
    add_tensor(&folder, positions, safetensors::Dtype::I64, &[1, 20]);
    let running = "visual.norm.running_mean";
    add_tensor(&folder, running, safetensors::Dtype::F32, &[16]);
    let running = "visual.norm.running_var";
    add_tensor(&folder, running, safetensors::Dtype::F32, &[16]);
    assert_eq!(count(&folder), learned);
    let weight = "text_specific_projection.weight";
    add_tensor(&folder, weight, safetensors::Dtype::F16, &[4, 32]);
    assert_eq!(count(&folder), learned + 128);
}

/// An id of 2 in `config.json` means the largest id, whatever was meant.
#[test]
fn an_end_token_that_would_be_read_back_as_another_is_not_written() {
    let source = copy(NAMED_ID);
    let value = read(&source, CONFIG);
    let mut network = config::read(&value, Path::new(CONFIG)).expect("a usable file");
    let contents = fs::read_to_string(source.path().join(TOKENIZER)).expect("it was copied");
    let preprocess = PreprocessConfig::squash(
        std::num::NonZeroU32::new(23).expect("not zero"),
        crate::Filter::Bicubic,
        crate::Normalization::HALF,
    );
    let device = candle_core::Device::Cpu;
    let tensors = candle_core::safetensors::load(source.path().join(WEIGHTS), &device);
    let tensors = tensors.expect("it was copied");
    let write = |network: &NetworkConfig, folder: &Path| {
        let tensors = tensors.iter().map(|(name, x)| (name.as_str(), x.clone()));
        Export {
            network,
            preprocess: &preprocess,
            tokenizer: &contents,
            start: 512,
            tensors: tensors.collect(),
            stored: Stored::F32,
            card: Card::default(),
        }
        .write(folder)
    };
    let folder = TempDir::new().expect("a temporary folder");
    write(&network, folder.path()).expect("it can be written");
    let written = config::read(&read(&folder, CONFIG), Path::new(CONFIG));
    assert_eq!(written.expect("it is ours"), network);

    network.text.pooling = Pooling::FirstOf(2);
    let folder = TempDir::new().expect("a temporary folder");
    let error = write(&network, &folder.path().join("model")).expect_err("it cannot be written");
    let expected = "another id: 2 means the largest id of a text";
    assert!(
        error.to_string().ends_with(&format!(
            "key `text_config.eos_token_id` is 2, expected {expected}"
        )),
        "{error}"
    );
    assert!(!folder.path().join("model").exists(), "half a folder");
}
