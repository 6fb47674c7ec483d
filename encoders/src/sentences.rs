//! Sentences to embeddings, many at once.

use candle_core::Result;
use embedding::Embedding;

use crate::{TextTokenizer, nn::SentenceTower};

/// Texts of one pass.
const BATCH: usize = 32;

/// A sentence tower with its tokenizer.
pub struct SentenceModel {
    tower: SentenceTower,
    tokenizer: TextTokenizer,
}

impl SentenceModel {
    /// The tokenizer must give no ids that the tower does not have, and no more than it takes.
    pub fn new(tower: SentenceTower, tokenizer: TextTokenizer) -> Self {
        Self { tower, tokenizer }
    }

    /// The tower.
    pub fn tower(&self) -> &SentenceTower {
        &self.tower
    }

    /// Embeddings in the order of the texts. Texts of similar length share a pass.
    ///
    /// # Errors
    /// When the tokenizer or the network fails on a text, or what comes out is no direction.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Embedding>> {
        let failed = |problem: String| candle_core::Error::Msg(problem);
        let ids = texts
            .iter()
            .map(|text| self.tokenizer.encode(text.as_ref()).map_err(failed));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ids[*i].len());
        let mut found = Vec::with_capacity(ids.len());
        for part in order.chunks(BATCH) {
            let part_ids: Vec<&[u32]> = part.iter().map(|i| &ids[*i][..]).collect();
            let rows = self.tower.forward(&part_ids)?.rows.to_vec2::<f32>()?;
            for (i, row) in part.iter().zip(rows) {
                let row = Embedding::normalized(row).map_err(candle_core::Error::wrap)?;
                found.push((*i, row));
            }
        }
        found.sort_by_key(|(i, _)| *i);
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }
}
