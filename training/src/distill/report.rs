//! Teacher and student side by side, on texts that neither step saw.

use std::{
    fmt::{self, Display},
    path::Path,
    time::Instant,
};

use embedding::Embedding;
use encoders::{
    SentenceFolder, SentenceModel,
    nn::{Form, SentenceConfig},
};
use engine::metrics::recall_at_k;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    agreement::{cosines, neighbors, overlap, rank_correlation},
    run::Distillation,
};
use crate::TrainingError;

/// Neighbors that are compared.
pub(super) const NEIGHBORS: usize = 10;
/// Texts of which all pairs are compared.
const PAIRED: usize = 400;
/// Chance of a word to be left out of a query.
const LEFT_OUT: f64 = 0.3;
/// Timed passes of one text and of a batch.
const PASSES: usize = 31;
/// Texts of a timed batch.
const BATCH: usize = 32;

/// How a student compares to its teacher, `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Steps of the run.
    pub steps: usize,
    /// Texts that were compared on.
    pub held_out: usize,
    /// Texts of a batch whose time is told.
    pub batch: usize,
    /// Before.
    pub teacher: Figures,
    /// The student before its first step.
    pub beginning: Figures,
    /// After.
    pub student: Figures,
}

/// One model. All texts are the held-out ones; the collection is what the teacher made of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Number of blocks.
    pub layers: usize,
    /// Heads per block.
    pub heads: usize,
    /// Elements per token.
    pub width: usize,
    /// Learned elements of the whole tower.
    pub weights: usize,
    /// Those of its blocks.
    pub block_weights: usize,
    /// Size of the files of weights; of the student before its first step, which is in no file, that
    /// of the trained one.
    pub bytes: u64,
    /// Median time from one text to its embedding.
    pub one_text_ms: f64,
    /// Median time for a batch of texts.
    pub batch_ms: f64,
    /// Mean cosine of a text's embedding to the teacher's.
    pub cosine: f64,
    /// Share of the 10 nearest other texts that are those of the teacher, each model among its own
    /// embeddings.
    pub neighbors: f64,
    /// The same for queries of this model in the collection.
    pub neighbors_in_collection: f64,
    /// Spearman's correlation of the cosines of pairs with the teacher's.
    pub rank_correlation: f64,
    /// Share of shortened texts, each word left out with chance 0.3, whose text comes first in the
    /// collection.
    pub recall_at_1: f64,
    /// Share within the first 10.
    pub recall_at_10: f64,
}

/// Compares the student in a folder, as it is read from there.
pub(super) fn compare(run: &Distillation, student: &Path) -> Result<Report, TrainingError> {
    let texts = &run.held_out;
    let mut random = ChaCha8Rng::seed_from_u64(run.config.seed);
    let shortened: Vec<String> = texts.iter().map(|t| shortened(t, &mut random)).collect();
    let student = SentenceFolder::read(student)?;
    let load = |folder: &SentenceFolder| {
        let tower = folder.tower(Form::Fused)?;
        Ok::<_, TrainingError>(SentenceModel::new(tower, folder.tokenizer.clone()))
    };
    let (tower, tokenizer) = run.beginning()?;
    let models = [
        load(&run.teacher)?,
        SentenceModel::new(tower, tokenizer),
        load(&student)?,
    ];
    let times = times(&models, texts)?;
    let collection = models[0].encode(texts)?;
    let expected = neighbors(&collection, &collection, NEIGHBORS);
    let pairs = cosines(&collection[..PAIRED.min(texts.len())]);
    let bytes = [run.teacher.bytes(), student.bytes(), student.bytes()];
    let figures = |i: usize| -> Result<Figures, TrainingError> {
        let model = &models[i];
        let own = model.encode(texts)?;
        let queries = model.encode(&shortened)?;
        let recall = recall_at_k(&queries, &collection, |i| vec![i], &[1, NEIGHBORS]);
        let cosine = own
            .iter()
            .zip(&collection)
            .map(|(a, b)| f64::from(a.cosine(b)));
        let of = |queries: &[Embedding], texts: &[Embedding]| {
            overlap(&neighbors(queries, texts, NEIGHBORS), &expected)
        };
        let sizes: &SentenceConfig = model.tower().config();
        Ok(Figures {
            layers: sizes.transformer.layers,
            heads: sizes.transformer.heads,
            width: sizes.transformer.width,
            weights: sizes.parameters(),
            block_weights: sizes.transformer.weights(),
            bytes: bytes[i],
            one_text_ms: times[i].0,
            batch_ms: times[i].1,
            cosine: cosine.sum::<f64>() / texts.len() as f64,
            neighbors: of(&own, &own),
            neighbors_in_collection: of(&own, &collection),
            rank_correlation: rank_correlation(&cosines(&own[..PAIRED.min(texts.len())]), &pairs),
            recall_at_1: recall[0],
            recall_at_10: recall[1],
        })
    };
    Ok(Report {
        steps: run.step(),
        held_out: texts.len(),
        batch: BATCH.min(texts.len()),
        teacher: figures(0)?,
        beginning: figures(1)?,
        student: figures(2)?,
    })
}

/// The text without some of its words, but with at least one.
fn shortened(text: &str, random: &mut ChaCha8Rng) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept: Vec<&str> = words
        .iter()
        .copied()
        .filter(|_| random.random::<f64>() >= LEFT_OUT)
        .collect();
    match (kept.is_empty(), words.first()) {
        (true, Some(first)) => (*first).to_owned(),
        _ => kept.join(" "),
    }
}

/// Median milliseconds of one text and of a batch for each model. Models take turns, so that whatever
/// else the machine does meets all of them.
fn times(models: &[SentenceModel], texts: &[String]) -> Result<Vec<(f64, f64)>, TrainingError> {
    let batch = &texts[..BATCH.min(texts.len())];
    let mut found = vec![(Vec::new(), Vec::new()); models.len()];
    for pass in 0..PASSES {
        for (model, (one, many)) in models.iter().zip(&mut found) {
            let ms = |texts: &[String]| -> Result<f64, TrainingError> {
                let started = Instant::now();
                model.encode(texts)?;
                Ok(started.elapsed().as_secs_f64() * 1e3)
            };
            one.push(ms(&texts[pass % texts.len()..][..1])?);
            many.push(ms(batch)?);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let medians = found
        .into_iter()
        .map(|(one, many)| (median(one), median(many)));
    Ok(medians.collect())
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models = [&self.teacher, &self.beginning, &self.student];
        writeln!(
            f,
            "| {} held-out texts | teacher | student at step 0 | student |",
            self.held_out
        )?;
        writeln!(f, "|---|---|---|---|")?;
        let mut row = |name: &str, of: &dyn Fn(&Figures) -> String| {
            let [teacher, beginning, student] = models.map(of);
            writeln!(f, "| {name} | {teacher} | {beginning} | {student} |")
        };
        row("layers, heads, width", &|m| {
            format!("{}, {}, {}", m.layers, m.heads, m.width)
        })?;
        row("weights, millions", &|m| {
            format!("{:.2}", m.weights as f64 / 1e6)
        })?;
        row("of them in blocks", &|m| {
            format!("{:.2}", m.block_weights as f64 / 1e6)
        })?;
        row("bytes of weights, millions", &|m| {
            format!("{:.1}", m.bytes as f64 / 1e6)
        })?;
        row("one text, ms", &|m| format!("{:.2}", m.one_text_ms))?;
        row(&format!("{} texts, ms", self.batch), &|m| {
            format!("{:.1}", m.batch_ms)
        })?;
        row("cosine to the teacher's embedding", &|m| {
            format!("{:.4}", m.cosine)
        })?;
        row("10 nearest neighbors shared, own space", &|m| {
            format!("{:.3}", m.neighbors)
        })?;
        row("the same in the teacher's collection", &|m| {
            format!("{:.3}", m.neighbors_in_collection)
        })?;
        row("rank correlation of cosines", &|m| {
            format!("{:.4}", m.rank_correlation)
        })?;
        row("recall@1, @10 of shortened texts in it", &|m| {
            format!("{:.3}, {:.3}", m.recall_at_1, m.recall_at_10)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_text_has_some_of_the_words_in_their_order_and_never_none() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let text = "a b c d e f g h i j ".repeat(100);
        let short = shortened(&text, &mut random);
        let kept = short.split(' ').count();
        assert!((640..760).contains(&kept), "{kept} of 1000");
        let mut all = text.split_whitespace();
        assert!(short.split(' ').all(|word| all.any(|w| w == word)));
        for _ in 0..50 {
            assert_eq!(shortened("one", &mut random), "one");
        }
    }
}
