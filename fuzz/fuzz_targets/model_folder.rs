//! See `encoders/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| encoders::fuzzing::target("model_folder")(bytes));
