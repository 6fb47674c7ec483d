//! Pairs that share something, and in which each side has something of its own.

use candle_core::{Device, Result, Tensor};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::parameters::normal;

/// Numbers that both sides of a pair share.
const SHARED: usize = 6;
/// Values of each side's own attribute.
pub(super) const VALUES: usize = 8;
/// Weight of an attribute beside the shared numbers.
const ATTRIBUTE: f32 = 1.5;
/// Width of the hidden layer that makes observations.
const HIDDEN: usize = 48;
/// Elements of an observation.
pub(super) const INPUTS: usize = 48;
/// Standard deviation of the noise of an observation.
const NOISE: f32 = 0.05;
/// Share of elements that an augmentation sets to 0.
const DROPPED: f64 = 0.15;
/// Noise of an augmentation in standard deviations of the observations.
const AUGMENTED: f32 = 0.15;

/// Observations `[n, INPUTS]` of both sides and their attributes.
pub(super) struct Pairs {
    pub(super) image: Tensor,
    pub(super) text: Tensor,
    pub(super) image_attributes: Vec<usize>,
    pub(super) text_attributes: Vec<usize>,
}

/// Pairs of one world to learn from, and others to test on.
pub(super) fn pairs(seed: u64, training: usize, test: usize) -> Result<(Pairs, Pairs)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (image, text) = (Maker::new(&mut random)?, Maker::new(&mut random)?);
    let mut draw = |n: usize| -> Result<Pairs> {
        let shared = normals(&mut random, [n, SHARED])?;
        let (image, image_attributes) = image.observe(&shared, &mut random)?;
        let (text, text_attributes) = text.observe(&shared, &mut random)?;
        Ok(Pairs {
            image,
            text,
            image_attributes,
            text_attributes,
        })
    };
    Ok((draw(training)?, draw(test)?))
}

/// How one side's observations are made: `tanh([shared; attribute] M_1) M_2`, and noise.
struct Maker {
    first: Tensor,
    second: Tensor,
}

impl Maker {
    fn new(random: &mut ChaCha8Rng) -> Result<Self> {
        let mut layer =
            |rows: usize, columns: usize| normals(random, [rows, columns])? / (rows as f64).sqrt();
        Ok(Self {
            first: layer(SHARED + VALUES, HIDDEN)?,
            second: layer(HIDDEN, INPUTS)?,
        })
    }

    /// Observations, each with an attribute that is drawn for it.
    fn observe(&self, shared: &Tensor, random: &mut ChaCha8Rng) -> Result<(Tensor, Vec<usize>)> {
        let n = shared.dim(0)?;
        let attributes: Vec<usize> = (0..n).map(|_| random.random_range(0..VALUES)).collect();
        let mut marks = vec![0.0; n * VALUES];
        for (row, attribute) in marks.chunks_exact_mut(VALUES).zip(&attributes) {
            row[*attribute] = ATTRIBUTE;
        }
        let marks = Tensor::from_vec(marks, (n, VALUES), &Device::Cpu)?;
        let hidden = Tensor::cat(&[shared, &marks], 1)?
            .matmul(&self.first)?
            .tanh()?;
        let noise = (normals(random, [n, INPUTS])? * f64::from(NOISE))?;
        Ok(((hidden.matmul(&self.second)? + noise)?, attributes))
    }
}

/// The same observations `[n, INPUTS]` with elements dropped and noise added.
pub(super) fn augment(x: &Tensor, random: &mut ChaCha8Rng) -> Result<Tensor> {
    let spread = x.flatten_all()?.var(0)?.sqrt()?.to_scalar::<f32>()?;
    let kept = (0..x.elem_count()).map(|_| f32::from(!random.random_bool(DROPPED)));
    let kept = Tensor::from_vec(kept.collect::<Vec<f32>>(), x.shape(), &Device::Cpu)?;
    let noise = normals(random, [x.dim(0)?, INPUTS])?;
    (x * kept)? + (noise * f64::from(AUGMENTED * spread))?
}

fn normals(random: &mut ChaCha8Rng, shape: [usize; 2]) -> Result<Tensor> {
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| normal(random)).collect();
    Tensor::from_vec(values, &shape, &Device::Cpu)
}
