//! The corpus of the fuzz targets, run through the functions that these call. An input that once
//! was a finding stays in it.

use std::{fs, path::Path};

use crate::fuzzing::{TARGETS, seeds};

#[test]
fn no_input_of_the_corpus_is_a_finding() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let dir = corpus.join(name);
        let entries = fs::read_dir(&dir).expect("every target has a corpus");
        let mut inputs = 0;
        for entry in entries {
            let path = entry.expect("lists").path();
            let bytes = fs::read(&path).expect("reads");
            let ran = std::panic::catch_unwind(|| target(&bytes));
            assert!(ran.is_ok(), "{} is a finding", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "no input in {}", dir.display());
    }
}

#[test]
fn no_seed_is_a_finding() {
    let seeds = seeds();
    for (name, target) in TARGETS {
        let of = seeds.iter().filter(|(of, _)| *of == name);
        assert!(of.clone().count() > 0, "no seed for {name}");
        of.for_each(|(_, bytes)| target(bytes));
    }
}
