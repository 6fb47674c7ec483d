//! The model that is part of the binary.

use std::path::PathBuf;

use crate::folder::{Files, Layout, Preprocessor};

/// The files of `encoders/builtin`.
pub(crate) fn files() -> Files<'static> {
    Files {
        folder: PathBuf::from("diptych-mini"),
        name: "diptych-mini",
        layout: Layout::Transformers,
        config: include_bytes!("../builtin/config.json"),
        preprocessor_form: Preprocessor::Alone,
        preprocessor: include_bytes!("../builtin/preprocessor_config.json"),
        tokenizer: include_bytes!("../builtin/tokenizer.json"),
        tokenizer_config: None,
        weights: vec![(
            Layout::Transformers.weights(),
            include_bytes!("../builtin/model.safetensors"),
        )],
        card: Some(include_bytes!("../builtin/diptych.json")),
        readme: None,
    }
}
