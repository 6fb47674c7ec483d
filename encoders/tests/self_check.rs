//! The self-check of model folders, as their users meet it.

use std::{fs, path::Path};

use encoders::{
    Model, ModelError, Precision, PrecisionChoice, RunOptions, check, has_probes, verify,
    wants_verification, write_probes,
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

/// A folder of its own with a small checkpoint.
fn folder(name: &str) -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/reference/data")
        .join(name);
    let to = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(from).expect("it is committed") {
        let entry = entry.expect("it can be listed");
        fs::copy(entry.path(), to.path().join(entry.file_name())).expect("it can be copied");
    }
    to
}

#[test]
fn probes_are_kept_in_the_folder_and_every_kernel_passes_at_every_precision() {
    for name in [
        "quick_gelu_legacy_eos",
        "siglip",
        "siglip2_naflex",
        "open_clip_clipa",
    ] {
        let folder = folder(name);
        assert!(!has_probes(folder.path()).expect("it can be read"));
        let before = Model::load(folder.path()).expect("it loads");
        write_probes(folder.path(), "tiny").expect("it can be written");
        assert!(has_probes(folder.path()).expect("it can be read"));
        let after = Model::load(folder.path()).expect("it passes");
        // Who has embeddings of before keeps them.
        assert_eq!(before.spaces().fingerprint, after.spaces().fingerprint);
        assert_eq!(after.info().name, "tiny");
        assert!(before.info().text.probes.is_none() && after.info().text.probes.is_some());
        let rows = check(folder.path()).expect("it can be checked");
        assert!(rows.len() >= 8, "{rows:?}");
        for row in &rows {
            // These networks are tiny and random: a step of 1/127 shows more than in trained ones.
            let passed = row.passed || row.precision == Precision::Int8;
            assert!(
                passed && row.deviation.least_cosine > 0.98,
                "{name}: {row:?}"
            );
        }
        for precision in Precision::ALL {
            let choice = PrecisionChoice::Only(precision);
            match Model::load_with(folder.path(), choice) {
                Ok(model) => assert_eq!(model.info().text.precision, precision),
                Err(error) => assert!(
                    precision == Precision::Int8 && matches!(error, ModelError::SelfCheck { .. }),
                    "{name}: {error}"
                ),
            }
        }
    }
}

#[test]
fn a_tower_that_does_not_compute_what_is_stored_is_refused_with_what_to_do() {
    let folder = folder("quick_gelu_legacy_eos");
    write_probes(folder.path(), "tiny").expect("it can be written");
    let file = folder.path().join("diptych.json");
    let card: Value = serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    for (which, tower) in [("texts", "text"), ("pictures", "image")] {
        // What another input has, as if weights or kernels were broken.
        let mut wrong = card.clone();
        wrong["probes"][which][0]["shared"] = card["probes"][which][1]["shared"].clone();
        fs::write(&file, wrong.to_string()).expect("it can be written");
        let Err(error) = Model::load(folder.path()) else {
            panic!("the {tower} tower is served");
        };
        let message = error.to_string();
        assert!(matches!(error, ModelError::SelfCheck { .. }), "{message}");
        let told = format!("self-check failed: the {tower} tower at f32");
        assert!(message.starts_with(&told), "{message}");
        assert!(message.contains("diptych model check"), "{message}");
        let rows = check(folder.path()).expect("it can be checked");
        assert!(rows.iter().any(|row| !row.passed));
    }
    let damages = [
        ("/probes/texts", json!([])),
        ("/probes/texts/0/shared", json!("AAAA")),
        ("/probes/texts/0/shared", json!("AACAPw==")),
        ("/probes/pictures/0/input", json!("AAAA")),
    ];
    for (place, value) in damages {
        let mut damaged = card.clone();
        *damaged.pointer_mut(place).expect("it is there") = value;
        fs::write(&file, damaged.to_string()).expect("it can be written");
        assert!(Model::load(folder.path()).is_err(), "{place}");
    }
}

/// Gives the text tower MLPs so wide that other precisions than f32 are worth having.
fn widen(folder: &Path) {
    let file = folder.join("config.json");
    let mut config: Value =
        serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    let of = |key: &str| config["text_config"][key].as_u64().expect("a number") as usize;
    let (width, layers) = (of("hidden_size"), of("num_hidden_layers"));
    let wide = 9_000_000 / (2 * width * layers);
    config["text_config"]["intermediate_size"] = json!(wide);
    fs::write(&file, config.to_string()).expect("it can be written");
    let file = folder.join("model.safetensors");
    let bytes = fs::read(&file).expect("it is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let made: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let shape = match name.split_once(".mlp.") {
                Some((of, part)) if of.starts_with("text_model") => match part {
                    "fc1.weight" => vec![wide, width],
                    "fc1.bias" => vec![wide],
                    "fc2.weight" => vec![width, wide],
                    _ => {
                        return (
                            name.to_owned(),
                            tensor.shape().to_vec(),
                            tensor.data().to_vec(),
                        );
                    }
                },
                _ => {
                    return (
                        name.to_owned(),
                        tensor.shape().to_vec(),
                        tensor.data().to_vec(),
                    );
                }
            };
            let value = |i: usize| (((i * 7919 % 1009) as f32) / 1009.0 - 0.5) * 0.02;
            let data = (0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes());
            let data = data.collect();
            (name.to_owned(), shape, data)
        })
        .collect();
    let views = made.iter().map(|(name, shape, data)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), data);
        (name, view.expect("the shape fits"))
    });
    let bytes = safetensors::serialize(views, None).expect("it can be serialized");
    fs::write(&file, bytes).expect("it can be written");
}

#[test]
fn a_precision_that_did_not_pass_once_is_not_tried_at_every_start() {
    let folder = folder("quick_gelu_legacy_eos");
    assert!(!wants_verification(folder.path(), RunOptions::default()).expect("it can be read"));
    widen(folder.path());
    assert!(wants_verification(folder.path(), RunOptions::default()).expect("it can be read"));
    verify(folder.path(), "wide").expect("it can be written");
    assert!(!wants_verification(folder.path(), RunOptions::default()).expect("it can be read"));
    let file = folder.path().join("diptych.json");
    let card: Value = serde_json::from_slice(&fs::read(&file).expect("it is there")).expect("JSON");
    let Some(measured) = card.get("measured") else {
        // Nothing is faster than f32 on this CPU.
        return;
    };
    let measured = measured.as_array().expect("a list");
    assert!(!measured.is_empty() && measured.iter().all(|of| of["tower"] == "text"));
    assert!(
        measured
            .iter()
            .all(|of| of["least_cosine"].as_f64() > Some(0.99))
    );
    let chosen = |cosine: f64, version: &str| {
        let mut card = card.clone();
        for of in card["measured"].as_array_mut().expect("a list") {
            of["least_cosine"] = json!(cosine);
            of["version"] = json!(version);
        }
        fs::write(&file, card.to_string()).expect("it can be written");
        let model = Model::load(folder.path()).expect("it loads");
        assert_eq!(model.info().image.precision, Precision::F32);
        (model.info().text.precision, model.spaces().fingerprint)
    };
    let now = measured[0]["version"].as_str().expect("a version");
    let f32 = RunOptions::from(PrecisionChoice::Only(Precision::F32));
    let passed = measured
        .iter()
        .any(|of| of["least_cosine"].as_f64() >= Some(0.9999));
    let tried = chosen(1.0, now);
    // The check at a start goes on, with fewer probes.
    if passed {
        assert_ne!(tried.0, Precision::F32, "{measured:?}");
    }
    assert_eq!(chosen(0.9, now), (Precision::F32, tried.1));
    // What another version found says nothing, and is left to it.
    assert_eq!(chosen(0.9, "0.0.1"), tried);
    assert!(wants_verification(folder.path(), RunOptions::default()).expect("it can be read"));
    assert!(!wants_verification(folder.path(), f32).expect("it can be read"));
    verify(folder.path(), "wide").expect("it can be written");
    let again: Value = serde_json::from_slice(&fs::read(&file).expect("there")).expect("JSON");
    let again = again["measured"].as_array().expect("a list");
    assert!(measured.iter().all(|of| again.contains(of)));
    assert_eq!(again.len(), 2 * measured.len());
    let left = fs::read_dir(folder.path()).expect("it lists").flatten();
    let partial = |name: &str| name.ends_with(".partial");
    assert!(
        !left
            .into_iter()
            .any(|entry| entry.file_name().to_str().is_some_and(partial))
    );
}
