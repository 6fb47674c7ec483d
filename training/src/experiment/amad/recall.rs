//! Sequences of (key, value) tokens and a last token that asks for the values of two keys.

use candle_core::{Device, Result, Tensor};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// Pairs of a sequence.
pub(super) const PAIRS: usize = 8;
/// Keys that there are; a sequence has a key at most once.
pub(super) const KEYS: usize = 16;
/// Values that there are.
pub(super) const VALUES: usize = 4;
/// Answers: a value for each of the two keys asked for.
pub(super) const ANSWERS: usize = VALUES * VALUES;

/// Labeled sequences.
pub(super) struct Sequences {
    /// `[n, PAIRS]`
    pub(super) keys: Tensor,
    /// `[n, PAIRS]`
    pub(super) values: Tensor,
    /// The first and the second key asked for, `[n]` each.
    pub(super) asked: [Tensor; 2],
    /// Numbers of answers, `[n]`.
    pub(super) answers: Tensor,
}

impl Sequences {
    pub(super) fn draw(n: usize, seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut asked = [Vec::new(), Vec::new()];
        let mut answers = Vec::new();
        let mut all: Vec<u32> = (0..KEYS as u32).collect();
        for _ in 0..n {
            all.shuffle(&mut random);
            let own: [u32; PAIRS] = std::array::from_fn(|_| random.random_range(0..VALUES as u32));
            let first = random.random_range(0..PAIRS);
            let second = (first + random.random_range(1..PAIRS)) % PAIRS;
            keys.extend_from_slice(&all[..PAIRS]);
            values.extend(own);
            asked[0].push(all[first]);
            asked[1].push(all[second]);
            answers.push(own[first] * VALUES as u32 + own[second]);
        }
        let matrix = |ids: Vec<u32>| Tensor::from_vec(ids, (n, PAIRS), &Device::Cpu);
        let row = |ids: Vec<u32>| Tensor::from_vec(ids, n, &Device::Cpu);
        let [first, second] = asked;
        Ok(Self {
            keys: matrix(keys)?,
            values: matrix(values)?,
            asked: [row(first)?, row(second)?],
            answers: row(answers)?,
        })
    }

    pub(super) fn len(&self) -> Result<usize> {
        self.answers.dim(0)
    }

    /// The sequences with these numbers.
    pub(super) fn select(&self, numbers: &Tensor) -> Result<Self> {
        let of = |ids: &Tensor| ids.index_select(numbers, 0);
        Ok(Self {
            keys: of(&self.keys)?,
            values: of(&self.values)?,
            asked: [of(&self.asked[0])?, of(&self.asked[1])?],
            answers: of(&self.answers)?,
        })
    }
}
