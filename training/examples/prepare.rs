//! Makes the training pictures: `prepare RAW OUT [--share-alike]`.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use training::prepare::{PrepareConfig, Source, prepare};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [raw, out, rest @ ..] = arguments.as_slice() else {
        return Err("usage: prepare RAW OUT [--share-alike]".into());
    };
    let source = match rest {
        [] => Source::Permissive,
        [flag] if flag == "--share-alike" => Source::ShareAlike,
        _ => return Err("usage: prepare RAW OUT [--share-alike]".into()),
    };
    let (raw, out) = (PathBuf::from(raw), PathBuf::from(out));
    let report = prepare(&PrepareConfig {
        raw,
        out,
        source,
        side: 72,
    })?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
