//! What a bank of earlier keys adds to batches too small for contrast.
//!
//! 60 classes lie in a content space of 10 dimensions; a view of an item is its content and 12 larger
//! nuisance dimensions, mixed by two layers into 64 numbers. Both views of an item share the content only.
//! A linear head on a few labels per class then tells what the encoder's 96 features hold.
//!
//! The control are handwritten digits, ten easy classes: there a bank should not gain as much.

use std::{fmt::Write as _, path::Path};

use candle_core::{DType, Device, Tensor};
use encoders::nn::{Init, Source as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    Outcome, claim,
    digits::{self, Digits},
    ridge::Ridge,
    spread,
};
use crate::{
    TrainingError,
    config::{Factors, OptimizerConfig},
    objective::{
        bank::{Bank, BankConfig, follow},
        info_nce,
    },
    optimizer::AdamW,
    parameters::{Parameters, normal},
};

const CLASSES: usize = 60;
const CONTENT: usize = 10;
const NUISANCE: usize = 12;
const INPUTS: usize = digits::PIXELS;
/// Deviation of items from their class, and of nuisance. Chosen so that the head on the views themselves
/// is about as good as in the reference.
const NOISE: [f32; 2] = [0.3, 1.75];
/// Widths of the two layers whose output is kept, and of the head that is thrown away.
const WIDTHS: [usize; 3] = [192, 96, 32];
const TEMPERATURE: f64 = 0.15;
const LEARNING_RATE: f64 = 1e-3;
const KEYS: usize = 1024;
/// Labels per class of the head.
const SHOTS: [usize; 3] = [1, 5, MOST_SHOTS];
pub(super) const MOST_SHOTS: usize = 20;
/// Index of the shots that the claims are about.
const FIVE: usize = 1;
/// Sets of labels per run, and items per class to test on.
const DRAWS: usize = 5;
const TESTED: usize = 20;
/// How much better at 5 labels the bank must be.
const GAIN: f64 = 0.05;
const GAIN_REDUCED: f64 = 0.03;
/// Without momentum it must be worse than this share of no bank.
const FAILED: f64 = 0.5;
const FAILED_REDUCED: f64 = 0.6;

/// A way to make features.
#[derive(Debug, Clone, Copy)]
enum Method {
    /// The views themselves.
    Raw,
    /// An encoder that was not trained.
    Untrained,
    /// Contrast within the batch.
    InBatch { batch: usize },
    /// Contrast with a bank.
    Bank {
        batch: usize,
        momentum: f64,
        hardest: Option<usize>,
    },
}

const fn bank(batch: usize, momentum: f64, hardest: Option<usize>) -> Method {
    Method::Bank {
        batch,
        momentum,
        hardest,
    }
}

const UNTRAINED: usize = 0;
const IN_BATCH_OF_4: usize = 1;
const BANK_OF_4: usize = 2;
const NO_MOMENTUM: usize = 3;
const IN_BATCH_OF_16: usize = 5;
const BANK_OF_16: usize = 6;
const HARDEST: usize = 7;
/// The reduced form has those up to [`NO_MOMENTUM`].
const METHODS: [(&str, Method); 9] = [
    ("untrained encoder", Method::Untrained),
    ("in-batch, B=4", Method::InBatch { batch: 4 }),
    ("bank of 1024, m=.99, B=4", bank(4, 0.99, None)),
    ("bank of 1024, m=0, B=16", bank(16, 0.0, None)),
    ("raw input", Method::Raw),
    ("in-batch, B=16", Method::InBatch { batch: 16 }),
    ("bank of 1024, m=.99, B=16", bank(16, 0.99, None)),
    ("bank, 32 hardest, m=.95, B=16", bank(16, 0.95, Some(32))),
    ("in-batch, B=128", Method::InBatch { batch: 128 }),
];

/// Methods without and with a bank that are compared on digits.
const CONTROLS: [[usize; 2]; 2] = [[IN_BATCH_OF_4, BANK_OF_4], [IN_BATCH_OF_16, BANK_OF_16]];

/// `digits` names the file of [`Digits`]; without it the control is left out.
pub fn run(reduced: bool, digits: Option<&Path>) -> Result<Outcome, TrainingError> {
    let digits = digits.map(Digits::read).transpose()?;
    let (methods, seeds, steps, gain, failed) = if reduced {
        (
            &METHODS[..=NO_MOMENTUM],
            1,
            1000,
            GAIN_REDUCED,
            FAILED_REDUCED,
        )
    } else {
        (&METHODS[..], 2, 2000, GAIN, FAILED)
    };
    // Each with its name, the data and the way to make features.
    let mut rows: Vec<(String, Option<&Digits>, Method)> = methods
        .iter()
        .map(|(name, method)| ((*name).to_owned(), None, *method))
        .collect();
    if let Some(digits) = &digits {
        for control in CONTROLS.into_iter().flatten() {
            let (name, method) = METHODS[control];
            rows.push((format!("digits: {name}"), Some(digits), method));
        }
    }
    let jobs: Vec<(Option<&Digits>, Method, u64)> = rows
        .iter()
        .flat_map(|(_, digits, method)| (0..seeds).map(|seed| (*digits, *method, seed)))
        .collect();
    let accuracies: Vec<[f64; SHOTS.len()]> = jobs
        .par_iter()
        .map(|(digits, method, seed)| accuracy(*digits, *method, *seed, steps))
        .collect::<Result<_, _>>()?;

    let mut table = String::from("| | 1-shot | 5-shot | 20-shot |\n|---|---|---|---|\n");
    let mut at_five = Vec::new();
    for ((name, ..), runs) in rows.iter().zip(accuracies.chunks(seeds as usize)) {
        let _ = write!(table, "| {name} |");
        for shots in 0..SHOTS.len() {
            let values: Vec<f64> = runs.iter().map(|run| run[shots]).collect();
            let (mean, deviation) = spread(&values);
            let _ = write!(table, " {mean:.3} +- {deviation:.3} |");
            if shots == FIVE {
                at_five.push(mean);
            }
        }
        table.push('\n');
    }
    let of_digits = at_five.split_off(methods.len());
    let mut claims = Vec::new();
    for (better, worse) in [
        (BANK_OF_4, IN_BATCH_OF_4),
        (BANK_OF_16, IN_BATCH_OF_16),
        (HARDEST, IN_BATCH_OF_16),
        (IN_BATCH_OF_4, UNTRAINED),
    ] {
        if let (Some(more), Some(less)) = (at_five.get(better), at_five.get(worse)) {
            let text = format!(
                "{}: at 5 labels at least {gain} better than {}",
                METHODS[better].0, METHODS[worse].0
            );
            claims.push(claim(more - less >= gain, text));
        }
    }
    claims.push(claim(
        at_five[NO_MOMENTUM] < failed * at_five[IN_BATCH_OF_4],
        format!(
            "without momentum the bank is less than {failed} times as good as no bank, even at B=4"
        ),
    ));
    for ([without, with], figures) in CONTROLS.iter().zip(of_digits.chunks_exact(2)) {
        let text = format!(
            "digits, the control: {} is not {GAIN} better than {}",
            METHODS[*with].0, METHODS[*without].0
        );
        claims.push(claim(figures[1] - figures[0] < GAIN, text));
    }
    Ok(Outcome { table, claims })
}

/// Accuracy of the head by number of labels; on digits, where they are given.
fn accuracy(
    digits: Option<&Digits>,
    method: Method,
    seed: u64,
    steps: usize,
) -> Result<[f64; SHOTS.len()], TrainingError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let world = match digits {
        Some(digits) => Views::OfDigits(digits),
        None => Views::MadeUp(World::new(&mut random)),
    };
    let mut encoder = Encoder(Parameters::seeded(seed, Device::Cpu));
    match method {
        Method::Raw | Method::Untrained => {}
        Method::InBatch { batch } => {
            let scale = Tensor::new(-TEMPERATURE.ln() as f32, &Device::Cpu)?;
            let pairs = Tensor::eye(batch, DType::F32, &Device::Cpu)?;
            let mut optimizer = AdamW::default();
            for step in 0..steps {
                let [a, b] = world.pairs(batch, &mut random)?;
                let (a, b) = (encoder.projected(&a)?, encoder.projected(&b)?);
                let loss = info_nce(&a, &b, &scale, &pairs)?;
                optimizer.step(&encoder.0, &loss.backward()?, &optimization(batch), step)?;
            }
        }
        Method::Bank {
            batch,
            momentum,
            hardest,
        } => {
            let config = BankConfig {
                temperature: TEMPERATURE,
                hardest: hardest.and_then(std::num::NonZeroUsize::new),
            };
            let mut bank = Bank::seeded(KEYS, WIDTHS[2], seed, &Device::Cpu)?;
            // Of the same seed, so that it starts as the same encoder.
            let mut slow = Encoder(Parameters::seeded(seed, Device::Cpu));
            let [first, _] = world.pairs(1, &mut random)?;
            encoder.projected(&first)?;
            slow.projected(&first)?;
            let mut optimizer = AdamW::default();
            for step in 0..steps {
                let [a, b] = world.pairs(batch, &mut random)?;
                follow(slow.0.trainable(), encoder.0.trainable(), momentum)?;
                let keys = slow.projected(&b)?.detach();
                let loss = bank.loss(&encoder.projected(&a)?, &keys, &config)?;
                optimizer.step(&encoder.0, &loss.backward()?, &optimization(batch), step)?;
                bank.push(&keys)?;
            }
        }
    }
    let mut features = |(views, labels): (Vec<Vec<f32>>, Vec<usize>)| {
        let rows = if let Method::Raw = method {
            views
        } else {
            let views = Tensor::new(views, &Device::Cpu)?;
            encoder.features(&views)?.to_vec2()?
        };
        Ok::<(Vec<Vec<f32>>, Vec<usize>), TrainingError>((rows, labels))
    };
    // Drawn apart from training, so that all methods of a seed see the same labels.
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (1 << 32));
    let (tested, truth) = features(world.tested(&mut random))?;
    let mut accuracies = [0.0; SHOTS.len()];
    for (accuracy, shots) in accuracies.iter_mut().zip(SHOTS) {
        for _ in 0..DRAWS {
            let (rows, labels) = features(world.labeled(shots, &mut random))?;
            let head = Ridge::fit(&rows, &labels, world.classes(), shots as f64);
            *accuracy += head.accuracy(&tested, &truth) / DRAWS as f64;
        }
    }
    Ok(accuracies)
}

/// Adam at a rate that does not decay.
fn optimization(batch: usize) -> OptimizerConfig {
    OptimizerConfig {
        batch,
        steps: usize::MAX,
        warmup_steps: 0,
        learning_rate: LEARNING_RATE,
        logit_scale_factor: 1.0,
        weight_decay: 0.0,
        clip: f64::INFINITY,
        average: 0.0,
        factors: Factors::F32,
        accumulate: 1,
        checkpoint_every: usize::MAX,
        evaluate_every: usize::MAX,
    }
}

/// Two layers whose output is kept, and a third that is not.
struct Encoder(Parameters);

impl Encoder {
    fn features(&mut self, views: &Tensor) -> Result<Tensor, TrainingError> {
        let hidden = self.layer("1", views, WIDTHS[0])?.relu()?;
        Ok(self.layer("2", &hidden, WIDTHS[1])?.relu()?)
    }

    fn projected(&mut self, views: &Tensor) -> Result<Tensor, TrainingError> {
        let features = self.features(views)?;
        self.layer("head", &features, WIDTHS[2])
    }

    fn layer(&mut self, name: &str, rows: &Tensor, width: usize) -> Result<Tensor, TrainingError> {
        let inputs = rows.dim(1)?;
        // Keeps the size of signals behind a rectifier (He et al. 2015, equation 10).
        let deviation = (2.0 / inputs as f32).sqrt();
        let init = Init::Normal { deviation };
        let parameters = &mut self.0;
        let weight = parameters.tensor(&format!("{name}.weight"), &[inputs, width], init)?;
        let bias = parameters.tensor(&format!("{name}.bias"), &[width], Init::Constant(0.0))?;
        Ok(rows.matmul(&weight)?.broadcast_add(&bias)?)
    }
}

/// Where views come from.
enum Views<'a> {
    MadeUp(World),
    OfDigits(&'a Digits),
}

impl Views<'_> {
    fn classes(&self) -> usize {
        match self {
            Self::MadeUp(_) => CLASSES,
            Self::OfDigits(_) => digits::CLASSES,
        }
    }

    /// Two views of each of `n` new items, `[n, INPUTS]` each.
    fn pairs(&self, n: usize, random: &mut ChaCha8Rng) -> Result<[Tensor; 2], TrainingError> {
        let mut views = [Vec::with_capacity(n), Vec::with_capacity(n)];
        for _ in 0..n {
            let pair = match self {
                Self::MadeUp(world) => world.pair(random),
                Self::OfDigits(digits) => digits.pair(random),
            };
            for (views, view) in views.iter_mut().zip(pair) {
                views.push(view);
            }
        }
        let [a, b] = views;
        Ok([Tensor::new(a, &Device::Cpu)?, Tensor::new(b, &Device::Cpu)?])
    }

    /// So many new items of each class, and their classes.
    fn labeled(&self, per_class: usize, random: &mut ChaCha8Rng) -> (Vec<Vec<f32>>, Vec<usize>) {
        match self {
            Self::MadeUp(world) => world.labeled(per_class, random),
            Self::OfDigits(digits) => digits.labeled(per_class, random),
        }
    }

    /// What heads are tested on.
    fn tested(&self, random: &mut ChaCha8Rng) -> (Vec<Vec<f32>>, Vec<usize>) {
        match self {
            Self::MadeUp(world) => world.labeled(TESTED, random),
            Self::OfDigits(digits) => digits.tested(),
        }
    }
}

/// The made-up data.
struct World {
    /// Middles of the classes `[CLASSES][CONTENT]`.
    classes: Vec<Vec<f32>>,
    /// The two layers of the mixture, `[outputs][inputs]`.
    mixture: [Vec<Vec<f32>>; 2],
}

impl World {
    fn new(random: &mut ChaCha8Rng) -> Self {
        let mut matrix = |rows: usize, columns: usize, deviation: f32| -> Vec<Vec<f32>> {
            let mut row = || (0..columns).map(|_| deviation * normal(random)).collect();
            (0..rows).map(|_| row()).collect()
        };
        let inputs = CONTENT + NUISANCE;
        Self {
            classes: matrix(CLASSES, CONTENT, 1.0),
            mixture: [
                matrix(INPUTS, inputs, (inputs as f32).sqrt().recip()),
                matrix(INPUTS, INPUTS, (INPUTS as f32).sqrt().recip()),
            ],
        }
    }

    /// The content of a new item.
    fn content(&self, class: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
        let middle = self.classes[class].iter();
        middle.map(|x| x + NOISE[0] * normal(random)).collect()
    }

    fn view(&self, content: &[f32], random: &mut ChaCha8Rng) -> Vec<f32> {
        let nuisance = (0..NUISANCE).map(|_| NOISE[1] * normal(random));
        let all: Vec<f32> = content.iter().copied().chain(nuisance).collect();
        let times = |matrix: &[Vec<f32>], x: &[f32]| -> Vec<f32> {
            let dot = |row: &Vec<f32>| row.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
            matrix.iter().map(dot).collect()
        };
        let hidden: Vec<f32> = times(&self.mixture[0], &all)
            .iter()
            .map(|x| x.tanh())
            .collect();
        times(&self.mixture[1], &hidden)
    }

    /// Two views of a new item.
    fn pair(&self, random: &mut ChaCha8Rng) -> [Vec<f32>; 2] {
        let content = self.content(random.random_range(0..CLASSES), random);
        [self.view(&content, random), self.view(&content, random)]
    }

    fn labeled(&self, per_class: usize, random: &mut ChaCha8Rng) -> (Vec<Vec<f32>>, Vec<usize>) {
        let labels: Vec<usize> = (0..CLASSES * per_class).map(|i| i % CLASSES).collect();
        let views = labels.iter().map(|class| {
            let content = self.content(*class, random);
            self.view(&content, random)
        });
        (views.collect(), labels)
    }
}
