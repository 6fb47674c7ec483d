//! Sentences to embeddings, many at once.

use embedding::{Embedding, EncodeError};

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
    /// When the tokenizer or the network fails on a text, or what comes out has no direction.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Embedding>, EncodeError> {
        let network = |e: candle_core::Error| EncodeError::Network(e.into());
        let ids = texts.iter().enumerate().map(|(position, text)| {
            let ids = self.tokenizer.encode(text.as_ref());
            ids.map_err(|reason| EncodeError::BadInput { position, reason })
        });
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|position| ids[*position].len());
        let mut found = Vec::with_capacity(ids.len());
        for part in order.chunks(BATCH) {
            let part_ids: Vec<&[u32]> = part.iter().map(|i| &ids[*i][..]).collect();
            let rows = self.tower.forward(&part_ids).map_err(network)?.rows;
            for (position, row) in part.iter().zip(rows.to_vec2().map_err(network)?) {
                let position = *position;
                let row = Embedding::normalized(row)
                    .map_err(|source| EncodeError::BadOutput { position, source })?;
                found.push((position, row));
            }
        }
        found.sort_by_key(|(position, _)| *position);
        Ok(found.into_iter().map(|(_, row)| row).collect())
    }
}
