//! The self-check of model folders, as their users meet it.

use std::{fs, path::Path};

use encoders::{Model, ModelError, Precision, PrecisionChoice, check, has_probes, write_probes};
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
