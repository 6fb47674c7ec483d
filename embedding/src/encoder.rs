//! What turns inputs into embeddings.

use thiserror::Error;

use crate::{Embedding, EmbeddingError, Fingerprint, Modality, Spaces, mix};

/// Both embeddings of one input, from one pass through a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// In the space where images and texts meet.
    pub shared: Embedding,
    /// In the modality's own space; `None` where the model keeps nothing specific (see
    /// [`Spaces::specific`]).
    pub specific: Option<Embedding>,
}

/// Why a batch could not be encoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// One input is not usable.
    #[error("input {position}: {reason}")]
    BadInput {
        /// Index within the batch.
        position: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// The network made a row that is no embedding.
    #[error("the model made an unusable embedding for input {position}")]
    BadOutput {
        /// Index within the batch.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: EmbeddingError,
    },
    /// The network failed.
    #[error("the network failed")]
    Network(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One tower of a model: inputs of one modality in, unit embeddings out.
///
/// Contract, run by [`check_contract`]: all or nothing; output `i` belongs to input `i`; an empty
/// batch gives an empty answer; a batch equals its inputs one by one within 1e-6 per element;
/// dims are those of [`Encoder::spaces`]; every input has a cost.
pub trait Encoder<I>: Send + Sync {
    /// The spaces of the model that this tower is a half of.
    fn spaces(&self) -> &Spaces;

    /// Which half.
    fn modality(&self) -> Modality;

    /// How much of a pass one input takes: the tokens of a text, the patches of a picture, and 1
    /// where there are none. A batch costs the sum of its inputs. Takes little time beside
    /// [`Encoder::encode`].
    fn cost(&self, input: &I) -> usize;

    /// Encodes a batch.
    ///
    /// # Errors
    /// When any input is unusable or the network fails; nothing is returned then.
    fn encode(&self, batch: &[I]) -> Result<Vec<Encoded>, EncodeError>;
}

/// Runs the contract of [`Encoder`] on `inputs`, which must be distinct in meaning.
///
/// # Panics
/// When the encoder breaks its contract, with the clause that it broke.
pub fn check_contract<I: Clone>(encoder: &dyn Encoder<I>, inputs: &[I]) {
    let none = encoder.encode(&[]).expect("an empty batch encodes");
    assert!(none.is_empty(), "an empty batch gives an empty answer");
    let together = encoder.encode(inputs).expect("the batch encodes");
    assert_eq!(together.len(), inputs.len(), "one output per input");
    let specific_dim = encoder.spaces().specific(encoder.modality()).map(|s| s.dim);
    for (i, (input, out)) in inputs.iter().zip(&together).enumerate() {
        let cost = encoder.cost(input);
        assert!(cost > 0, "input {i} costs nothing");
        assert_eq!(encoder.cost(&input.clone()), cost, "cost of input {i}");
        assert_eq!(
            out.shared.dim(),
            encoder.spaces().shared_dim,
            "shared dim of output {i}"
        );
        let dim = out.specific.as_ref().map(Embedding::dim);
        assert_eq!(dim, specific_dim, "specific dim of output {i}");
        let alone = encoder
            .encode(std::slice::from_ref(input))
            .expect("one input encodes");
        let [alone] = &alone[..] else {
            panic!("input {i}: {} outputs for one input", alone.len());
        };
        assert_close(&alone.shared, &out.shared, i);
        match (&alone.specific, &out.specific) {
            (Some(a), Some(b)) => assert_close(a, b, i),
            (a, b) => assert_eq!(a, b, "input {i}: specific alone and in the batch"),
        }
        for (j, earlier) in together[..i].iter().enumerate() {
            assert_ne!(earlier, out, "inputs {j} and {i} are told apart");
        }
    }
}

fn assert_close(alone: &Embedding, batched: &Embedding, i: usize) {
    assert_eq!(
        alone.dim(),
        batched.dim(),
        "input {i}: dim alone and in the batch"
    );
    for (a, b) in alone.as_slice().iter().zip(batched.as_slice()) {
        assert!(
            (a - b).abs() <= 1e-6,
            "input {i}: alone {a}, in the batch {b}"
        );
    }
}

/// A weight-free encoder for tests of everything around a model: equal bytes give equal
/// embeddings, different bytes almost orthogonal ones. It knows nothing about meaning.
#[derive(Debug, Clone)]
pub struct HashEncoder {
    spaces: Spaces,
    modality: Modality,
}

impl HashEncoder {
    /// An encoder of `dim`-dimensional shared and specific embeddings.
    pub fn new(modality: Modality, dim: usize) -> Self {
        let spaces = Spaces {
            model: format!("hash-{dim}"),
            fingerprint: Fingerprint([dim as u8; 16]),
            shared_dim: dim,
            specific_text_dim: Some(dim),
            specific_image_dim: Some(dim),
            scoring: None,
        };
        Self { spaces, modality }
    }
}

impl<I: AsRef<[u8]>> Encoder<I> for HashEncoder {
    fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    fn modality(&self) -> Modality {
        self.modality
    }

    /// Its bytes.
    fn cost(&self, input: &I) -> usize {
        input.as_ref().len().max(1)
    }

    fn encode(&self, batch: &[I]) -> Result<Vec<Encoded>, EncodeError> {
        let row = |bytes: &[u8], salt: u64, position: usize| {
            let mut state = bytes.iter().fold(salt, |h, b| mix(h ^ u64::from(*b)));
            let mut next = || {
                state = mix(state);
                (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
            };
            let row = (0..self.spaces.shared_dim).map(|_| next()).collect();
            Embedding::normalized(row).map_err(|source| EncodeError::BadOutput { position, source })
        };
        batch
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let bytes = input.as_ref();
                let salt = 2 + self.modality as u64;
                Ok(Encoded {
                    shared: row(bytes, 1, i)?,
                    specific: Some(row(bytes, salt, i)?),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::catch_unwind, sync::LazyLock};

    use super::*;

    #[test]
    fn the_hash_encoder_keeps_the_contract() {
        let inputs = ["", "cat", "dog", "a cat", "cat "];
        check_contract(&HashEncoder::new(Modality::Text, 48), &inputs);
        check_contract(&HashEncoder::new(Modality::Image, 7), &inputs);
    }

    /// The hash encoder, with something done to its answers or costs.
    struct Broken(fn(&[&str], &mut Vec<Encoded>), fn(&str) -> usize);

    impl Encoder<&str> for Broken {
        fn spaces(&self) -> &Spaces {
            static HASH: LazyLock<HashEncoder> = LazyLock::new(hash);
            &HASH.spaces
        }

        fn modality(&self) -> Modality {
            Modality::Text
        }

        fn cost(&self, input: &&str) -> usize {
            (self.1)(input)
        }

        fn encode(&self, batch: &[&str]) -> Result<Vec<Encoded>, EncodeError> {
            let mut encoded = hash().encode(batch)?;
            (self.0)(batch, &mut encoded);
            Ok(encoded)
        }
    }

    fn hash() -> HashEncoder {
        HashEncoder::new(Modality::Text, 8)
    }

    /// The embedding without its last element, which is 0 so that the others stay what they are.
    fn cut(row: &mut Embedding) {
        let numbers = row.as_slice()[..7].to_vec();
        *row = Embedding::new(numbers).expect("its last element is 0");
    }

    fn end_in_0(row: &mut Embedding) {
        let mut numbers = row.as_slice().to_vec();
        numbers[7] = 0.0;
        *row = Embedding::normalized(numbers).expect("has a direction");
    }

    #[test]
    fn an_encoder_that_breaks_one_clause_does_not_pass_the_contract() {
        type Break = fn(&[&str], &mut Vec<Encoded>);
        let breaks: [(&str, Break); 5] = [
            ("keeps nothing specific of a single input", |_, out| {
                if let [only] = &mut out[..] {
                    only.specific = None;
                }
            }),
            ("gives a single input a shorter shared row", |_, out| {
                for out in out.iter_mut() {
                    end_in_0(&mut out.shared);
                }
                if let [only] = &mut out[..] {
                    cut(&mut only.shared);
                }
            }),
            ("gives a single input a shorter specific row", |_, out| {
                let specific = out.iter_mut().filter_map(|out| out.specific.as_mut());
                specific.for_each(end_in_0);
                if let [only] = &mut out[..] {
                    only.specific.iter_mut().for_each(cut);
                }
            }),
            ("gives a single input two answers", |_, out| {
                if let [only] = &out[..] {
                    out.push(only.clone());
                }
            }),
            ("reads c as b", |batch, out| {
                for (input, out) in batch.iter().zip(out) {
                    if *input == "c" {
                        *out = hash().encode(&["b"]).expect("encodes").remove(0);
                    }
                }
            }),
        ];
        let inputs = ["a", "b", "c"];
        check_contract(&Broken(|_, _| {}, |_| 1), &inputs);
        for (what, broken) in breaks {
            let checked = catch_unwind(|| check_contract(&Broken(broken, |_| 1), &inputs));
            assert!(checked.is_err(), "one that {what} passes");
        }
        let free = Broken(|_, _| {}, |input| usize::from(input != "b"));
        let checked = catch_unwind(|| check_contract(&free, &inputs));
        assert!(checked.is_err(), "one that costs nothing passes");
    }
}
