//! The texts, and which of them a step sees.

use std::path::Path;

use fs_err as fs;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::TrainingError;

/// Batches whose texts are sorted by length among each other, so that little of a batch is padding.
const POOL: usize = 16;

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The texts of a file of JSON lines, of which there must be `least`; other keys than `text` are for
/// people.
pub(super) fn read(file: &Path, least: usize) -> Result<Vec<String>, TrainingError> {
    let contents = fs::read_to_string(file)?;
    let lines = contents.lines().enumerate();
    let texts = lines
        .map(|(number, line)| {
            let line: Line =
                serde_json::from_str(line).map_err(|source| TrainingError::Manifest {
                    file: file.to_owned(),
                    line: number + 1,
                    expected: "text",
                    source,
                })?;
            Ok(line.text)
        })
        .collect::<Result<Vec<_>, TrainingError>>()?;
    if texts.len() < least {
        return Err(TrainingError::TooFewTexts {
            file: file.to_owned(),
            texts: texts.len(),
            least,
        });
    }
    Ok(texts)
}

/// Which texts a step sees. It depends on the seed and the step alone.
pub(super) struct Order {
    /// Tokens of every text.
    lengths: Vec<usize>,
    batch: usize,
    seed: u64,
    /// The batches of one epoch, and which.
    epoch: Option<(usize, Vec<Vec<usize>>)>,
}

impl Order {
    /// There must be `batch` texts or more.
    pub(super) fn new(lengths: Vec<usize>, batch: usize, seed: u64) -> Self {
        Self {
            lengths,
            batch,
            seed,
            epoch: None,
        }
    }

    /// Numbers of the texts of a step, which counts from 0. Every epoch has each text at most once.
    pub(super) fn batch(&mut self, step: usize) -> &[usize] {
        let per_epoch = self.lengths.len() / self.batch;
        let (epoch, number) = (step / per_epoch, step % per_epoch);
        let current = match self.epoch.take() {
            Some((of, batches)) if of == epoch => (of, batches),
            _ => (epoch, self.batches(epoch)),
        };
        let (_, batches) = self.epoch.insert(current);
        &batches[number]
    }

    fn batches(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(epoch as u64);
        let mut texts: Vec<usize> = (0..self.lengths.len()).collect();
        texts.shuffle(&mut random);
        let mut batches = Vec::with_capacity(texts.len() / self.batch);
        for pool in texts.chunks_mut(POOL * self.batch) {
            pool.sort_by_key(|text| self.lengths[*text]);
            let whole = pool.chunks_exact(self.batch);
            batches.extend(whole.map(<[usize]>::to_vec));
        }
        batches.shuffle(&mut random);
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_each_text_once_in_batches_of_similar_length_and_no_two_are_alike() {
        let lengths: Vec<usize> = (0..640).map(|i| i * 7 % 40).collect();
        let mut order = Order::new(lengths.clone(), 8, 5);
        let epoch = |order: &mut Order, from: usize| -> Vec<Vec<usize>> {
            (from..from + 80)
                .map(|step| order.batch(step).to_vec())
                .collect()
        };
        let (first, second) = (epoch(&mut order, 0), epoch(&mut order, 80));
        assert_ne!(first, second);
        let mut seen = first.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..640).collect::<Vec<_>>());
        let spread = |batch: &Vec<usize>| {
            let of = || batch.iter().map(|text| lengths[*text]);
            of().max().unwrap_or(0) - of().min().unwrap_or(0)
        };
        let widest = first.iter().map(spread).max().expect("batches");
        assert!(
            widest < 20,
            "a pool of 128 texts has 16 lengths apart: {widest}"
        );
        // Any step by itself, as a resumed run asks for it.
        let mut resumed = Order::new(lengths, 8, 5);
        assert_eq!(resumed.batch(93), second[13]);
    }

    #[test]
    fn a_line_without_a_text_is_refused_by_its_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("texts.jsonl");
        fs::write(
            &file,
            "{\"text\": \"one\", \"id\": 3}\n{\"name\": \"two\"}\n",
        )
        .expect("writes");
        let message = read(&file, 1).expect_err("is refused").to_string();
        assert!(
            message.contains("line 2: expected an object with text"),
            "{message}"
        );
        fs::write(&file, "{\"text\": \"one\", \"id\": 3}\n").expect("writes");
        assert_eq!(read(&file, 1).expect("reads"), ["one"]);
        let message = read(&file, 2).expect_err("is refused").to_string();
        assert!(
            message.contains("holds 1 texts, at least 2 are needed"),
            "{message}"
        );
    }
}
