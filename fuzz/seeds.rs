//! Writes the seeds of all targets into their corpora.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut counts = BTreeMap::new();
    for (target, bytes) in engine::fuzzing::seeds().into_iter().chain(encoders::fuzzing::seeds()) {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        let count = counts.entry(target).or_insert(0);
        fs::write(dir.join(format!("seed-{count}")), bytes)?;
        *count += 1;
    }
    Ok(())
}
