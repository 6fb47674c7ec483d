//! Embeddings of texts by a folder of sentence-transformers:
//!
//! ```sh
//! cargo run -p encoders --example sentences FOLDER < texts.txt > rows.json
//! ```
//!
//! A line is a text; what is written, `[{"text", "row"}]`, is what `tests/reference/sentence.py
//! check-export` compares with transformers.
#![allow(clippy::print_stdout)]

use std::{error::Error, io::stdin, path::Path};

use encoders::{SentenceFolder, SentenceModel, nn::Form};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let folder = SentenceFolder::read(Path::new(&folder))?;
    let model = SentenceModel::new(folder.tower(Form::Fused)?, folder.tokenizer);
    let texts = stdin().lines().collect::<Result<Vec<_>, _>>()?;
    let rows = model.encode(&texts)?;
    let items = texts.iter().zip(&rows);
    let items = items.map(|(text, row)| serde_json::json!({ "text": text, "row": row.as_slice() }));
    println!("{}", items.collect::<serde_json::Value>());
    Ok(())
}
