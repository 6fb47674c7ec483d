//! Which folders are taken, what their silence means, and what is refused.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Published files leave out almost everything. The other side is what transformers wrote of a
/// configuration that says nothing.
#[test]
fn what_a_configuration_leaves_out_is_as_transformers_has_it() {
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data/defaults");
    for kind in ["clip", "siglip", "siglip2"] {
        let file = defaults.join(format!("{kind}.json"));
        let full = fs::read(&file).expect("it is committed");
        let full = serde_json::from_slice(&full).expect("it is JSON");
        let expected = config::read(&full, &file).expect("all is said");
        for short in [
            json!({ "model_type": kind }),
            json!({ "model_type": kind, "text_config": null, "vision_config": {} }),
            json!({ "model_type": kind, "text_config": { "hidden_size": null } }),
        ] {
            let read = config::read(&short, &file).expect("the rest has defaults");
            assert_eq!(read, expected, "{kind}");
        }
        assert_eq!(family(&expected), kind);
    }
}

/// One value of one key at a time, in a folder that loads without it.
#[test]
fn what_changes_the_result_and_is_not_supported_is_refused_by_name() {
    let cases = [
        (
            "siglip",
            CONFIG,
            "vision_config.vision_use_head",
            json!(false),
            "true",
        ),
        (
            "siglip",
            CONFIG,
            "vision_config.num_channels",
            json!(1),
            "3",
        ),
        (
            "siglip",
            CONFIG,
            "vision_config.image_size",
            json!([21, 21]),
            "a whole number above 0",
        ),
        (
            "siglip",
            CONFIG,
            "text_config.hidden_act",
            json!("gelu_fast"),
            "\"quick_gelu\"",
        ),
        (
            "siglip",
            CONFIG,
            "text_config.projection_size",
            json!(23),
            "24, the hidden_size of",
        ),
        (
            "siglip",
            TOKENIZER_CONFIG,
            "tokenizer_class",
            json!("BertTokenizer"),
            "SiglipTokenizer",
        ),
        (
            "siglip",
            TOKENIZER_CONFIG,
            "padding_side",
            json!("up"),
            "\"left\" or \"right\"",
        ),
        (
            "siglip",
            TOKENIZER_CONFIG,
            "model_max_length",
            json!(8),
            "at least 16",
        ),
        (
            "siglip2_naflex",
            CONFIG,
            "vision_config.num_patches",
            json!(15),
            "a square number",
        ),
        (
            "siglip2_naflex",
            PREPROCESSOR,
            "patch_size",
            json!(8),
            "4 as config.json says",
        ),
        (
            "siglip2_naflex",
            PREPROCESSOR,
            "do_resize",
            json!(false),
            "true",
        ),
        (
            "siglip2_naflex",
            PREPROCESSOR,
            "size",
            json!({"height": 8, "width": 8}),
            "no such key",
        ),
    ];
    for (name, file, key, value, expected) in cases {
        refuses(name, file, key, &value, expected);
    }
    for kind in [
        "blip",
        "align",
        "bert",
        "chinese_clip",
        "clipseg",
        "siglip3",
    ] {
        refuses(LARGEST_ID, CONFIG, "model_type", &json!(kind), SUPPORTED);
    }
}

#[test]
fn what_open_clip_knows_and_is_not_supported_is_refused_by_name() {
    let listed = |why: &str| format!("none: {why}. Supported are {SUPPORTED}");
    let coca = listed("CoCa is not supported");
    let of_towers = listed("of OpenCLIP's towers its own vision transformer is supported");
    let of_text_towers = listed("of OpenCLIP's text towers only its own transformer is supported");
    let vision = [
        (
            "timm_model_name",
            json!("vit_base_patch16_siglip_224"),
            &*of_towers,
        ),
        ("layers", json!([3, 4, 6, 3]), "one number: ResNet"),
        ("head_width", json!(25), "a divisor of width"),
        ("ls_init_value", json!(1e-4), "no such key"),
        ("attentional_pool", json!(true), "no such key"),
        ("qk_norm", json!(true), "no such key"),
        ("block_type", json!("custom"), "no such key"),
        ("pool_type", json!("none"), "\"tok\" or \"avg\""),
        ("pos_embed_type", json!("rotary"), "\"learnable\" or"),
        ("image_size", json!([24, 32]), "a whole number above 0"),
    ];
    let text = [
        ("hf_model_name", json!("roberta-base"), &*of_text_towers),
        ("embed_cls", json!(true), "no such key"),
        ("pool_type", json!("none"), "\"argmax\""),
        ("proj_type", json!("none"), "\"linear\""),
        ("tokenizer_mode", json!("clips"), "none"),
        ("no_causal_mask", json!(1), "true or false"),
    ];
    let preprocess = [
        ("interpolation", json!("nearest"), "\"bicubic\" or"),
        ("resize_mode", json!("crop"), "\"shortest\""),
        ("fill_color", json!(300), "a gray level"),
        ("mode", json!("L"), "\"RGB\""),
        ("new_step", json!(1), "no such key"),
    ];
    let model = [
        ("multimodal_cfg", json!({}), &*coca),
        ("nonscalar_logit_scale", json!(true), "no such key"),
        ("embed_dim", json!(0), "a whole number above 0"),
    ];
    for (section, cases) in [
        ("model_cfg.vision_cfg.", &vision[..]),
        ("model_cfg.text_cfg.", &text),
        ("model_cfg.", &model),
        ("preprocess_cfg.", &preprocess),
    ] {
        for (key, value, expected) in cases {
            let key = format!("{section}{key}");
            refuses("open_clip_plain", OPEN_CLIP_CONFIG, &key, value, expected);
        }
    }
    for (name, key, value, expected) in [
        (
            "open_clip_custom",
            "vision_cfg.act_kwargs.inplace",
            json!(true),
            "no such key",
        ),
        (
            "open_clip_custom",
            "vision_cfg.norm_kwargs.bias",
            json!(false),
            "no such key",
        ),
        (
            "open_clip_custom",
            "text_cfg.act_kwargs.approximate",
            json!("x"),
            "\"none\" or",
        ),
        (
            "open_clip_clipa",
            "text_cfg.tokenizer_kwargs.clean",
            json!("canonicalize"),
            "none",
        ),
    ] {
        let key = format!("model_cfg.{key}");
        refuses(name, OPEN_CLIP_CONFIG, &key, &value, expected);
    }
    // Switched off, or as it is without.
    let folder = copy("open_clip_plain");
    edit(&folder, OPEN_CLIP_CONFIG, |config| {
        let vision = &mut config["model_cfg"]["vision_cfg"];
        vision["timm_model_name"] = Value::Null;
        vision["ls_init_value"] = Value::Null;
        vision["qk_norm"] = json!(false);
        vision["block_type"] = json!("default");
        vision["patch_dropout"] = json!(0.5);
    });
    Model::load(folder.path()).expect("nothing has changed");
}

/// Sets a dotted key of a copy and expects an error that names it and starts like this.
fn refuses(name: &str, file: &str, key: &str, value: &Value, expected: &str) {
    let folder = copy(name);
    edit(&folder, file, |keys| {
        let mut at = keys;
        for part in key.split('.') {
            at = &mut at[part];
        }
        *at = value.clone();
    });
    let error = refused(&folder, file);
    let start = format!(": key `{key}` is {value}, expected {expected}");
    assert!(
        error.starts_with(&start),
        "{name}: {error}, expected {start}"
    );
}

#[test]
fn a_processor_of_another_kind_than_the_tower_is_refused() {
    for (name, other) in [("siglip", "siglip2_naflex"), ("siglip2_naflex", "siglip")] {
        let (folder, from) = (copy(name), copy(other));
        fs::copy(
            from.path().join(PREPROCESSOR),
            folder.path().join(PREPROCESSOR),
        )
        .expect("copied");
        let error = refused(&folder, PREPROCESSOR);
        let start = ": key `image_processor_type` is for pictures of ";
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn pictures_smaller_than_a_patch_are_refused() {
    let folder = copy("siglip");
    edit(&folder, PREPROCESSOR, |keys| {
        keys["size"] = json!({"height": 4, "width": 30});
    });
    assert_eq!(
        refused(&folder, PREPROCESSOR),
        ": key `size` is made for 30 x 4 pixels, expected at least one patch of 5 x 5"
    );
}

#[test]
fn a_padding_that_the_tokenizer_does_not_know_is_refused() {
    let folder = copy("siglip");
    edit(&folder, TOKENIZER_CONFIG, |keys| {
        keys["pad_token"] = json!({"content": "<none>"});
    });
    assert_eq!(
        refused(&folder, TOKENIZER),
        " is not a usable tokenizer: it has no token \"<none>\""
    );
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let folder = TempDir::new().expect("a temporary folder");
    let error = Model::load(folder.path())
        .map(drop)
        .expect_err("it is empty");
    let error = error.to_string();
    assert!(
        error.contains("neither config.json nor open_clip_config.json"),
        "{error}"
    );
    assert!(error.ends_with(SUPPORTED), "{error}");
    // Of another family, which has no file about pictures.
    fs::write(folder.path().join(CONFIG), r#"{"model_type": "bert"}"#).expect("it is ours");
    let error = Model::load(folder.path()).map(drop).expect_err("a BERT");
    let error = error.to_string();
    assert!(error.contains("`model_type` is \"bert\""), "{error}");
    assert!(error.ends_with(SUPPORTED), "{error}");
    for (name, weights) in [("siglip", WEIGHTS), ("open_clip_plain", OPEN_CLIP_WEIGHTS)] {
        let folder = copy(name);
        let touch = |file: &str| fs::write(folder.path().join(file), "").expect("it is ours");
        fs::remove_file(folder.path().join(weights)).expect("it was there");
        assert_eq!(
            refused(&folder, weights),
            " is missing: the folder is not complete"
        );
        touch("open_clip_pytorch_model.bin");
        let error = refused(&folder, weights);
        assert!(
            error.contains("there is open_clip_pytorch_model.bin"),
            "{error}"
        );
        fs::remove_file(folder.path().join(TOKENIZER)).expect("it was there");
        let error = refused(&folder, TOKENIZER);
        assert!(
            error.contains("no files of a tokenizer at all; transformers makes"),
            "{error}"
        );
        touch("vocab.json");
        touch("merges.txt");
        let error = refused(&folder, TOKENIZER);
        assert!(
            error.contains("there is vocab.json and merges.txt, which is not read"),
            "{error}"
        );
    }
}

/// LAION's folders on the hub have both.
#[test]
fn of_two_forms_in_one_folder_the_complete_one_is_read() {
    let folder = copy("clip_interpolated");
    let other = copy("open_clip_plain");
    for file in [OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS] {
        fs::copy(other.path().join(file), folder.path().join(file)).expect("copied");
    }
    let context = |folder: &TempDir| {
        let model = Model::load(folder.path()).expect("it loads");
        model.info().context_length
    };
    assert_eq!(context(&folder), 12);
    fs::remove_file(folder.path().join(WEIGHTS)).expect("it was there");
    fs::copy(other.path().join(TOKENIZER), folder.path().join(TOKENIZER)).expect("copied");
    assert_eq!(context(&folder), 14);
}

/// A collection asks for the same fingerprint again.
#[test]
fn the_fingerprint_covers_the_files_that_are_read_and_no_others() {
    let fingerprint = |folder: &TempDir| {
        let model = Model::load(folder.path()).expect("it loads");
        model.spaces().fingerprint
    };
    for (name, read) in [(LARGEST_ID, false), ("siglip", true)] {
        let folder = copy(name);
        let before = fingerprint(&folder);
        let file = folder.path().join(TOKENIZER_CONFIG);
        let mut keys = fs::read_to_string(&file).unwrap_or_else(|_| "{}".to_owned());
        keys.push('\n');
        fs::write(file, keys).expect("it is ours");
        assert_eq!(fingerprint(&folder) != before, read, "{name}");
    }
}
