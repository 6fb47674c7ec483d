//! How long a head takes to learn: the fit alone, without cross-validation, and with it.

use benches::{ClipLike, Random};
use divan::Bencher;
use embedding::{Aspect, Fingerprint, Modality, Space};
use engine::{Inputs, Lesson, TeachOptions, logistic, teach};

const DIM: usize = 512;
const SEED: u64 = 7;

fn main() {
    divan::main();
}

/// Deviation of each number of an example from that of the row of its class: two, since fits of examples that
/// are farther from it take more steps.
const NOISE: [f32; 2] = [0.03, 0.15];

/// Examples of shared and specific embeddings, and their classes: each is near a row of its own.
fn examples(classes: usize, shots: usize, noise: f32) -> (Vec<f32>, Vec<usize>) {
    let world = ClipLike::new(DIM, SEED);
    let mut random = Random::new(SEED);
    let mut rows = Vec::with_capacity(classes * shots * 2 * DIM);
    let mut of = Vec::with_capacity(classes * shots);
    for class in 0..classes {
        for _ in 0..shots {
            for half in 0..2 {
                let center = world
                    .rows(Modality::Image, 1, (2 * class + half) as u64)
                    .remove(0);
                let noisy = center
                    .as_slice()
                    .iter()
                    .map(|x| x + noise * random.normal());
                let row = embedding::Embedding::normalized(noisy.collect());
                rows.extend(
                    row.expect("has a direction")
                        .as_slice()
                        .iter()
                        .map(|x| x / 2_f32.sqrt()),
                );
            }
            of.push(class);
        }
    }
    (rows, of)
}

fn inputs() -> Inputs {
    let space = |aspect| Space {
        model: "bench".into(),
        fingerprint: Fingerprint([1; 16]),
        dim: DIM,
        aspect,
    };
    Inputs {
        space: space(Aspect::Shared),
        beside: Some(space(Aspect::Specific(Modality::Image))),
    }
}

/// The fit alone, at these `C`.
#[divan::bench(args = [1.0, 100.0, 10_000.0], sample_count = 5)]
fn fit_100_classes_of_16(bencher: Bencher, c: f64) {
    let (rows, of) = examples(100, 16, NOISE[0]);
    let samples = logistic::Samples::new(&rows, 2 * DIM, &of, 100).expect("fine");
    let options = logistic::Options {
        tolerance: 1e-5,
        ..logistic::Options::new(c)
    };
    bencher.bench_local(|| {
        let fit = logistic::Logistic::fit(&samples, &options, None).expect("fits");
        assert!(fit.converged);
        fit
    });
}

/// All of it: with the choice of the regularization, and what is held out.
#[divan::bench(args = [(10, NOISE[0]), (100, NOISE[0]), (100, NOISE[1])], sample_count = 2)]
fn teach_with_16_of_each(bencher: Bencher, (classes, noise): (usize, f32)) {
    let (rows, of) = examples(classes, 16, noise);
    let of: Vec<Vec<usize>> = of.into_iter().map(|class| vec![class]).collect();
    let labels: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let options = TeachOptions {
        multi_label: false,
        balance: false,
        regularization: None,
        from_zero_shot: false,
        blend: 0.0,
        seed: SEED,
    };
    let inputs = inputs();
    bencher.bench_local(|| {
        let lesson = Lesson {
            inputs: &inputs,
            labels: &labels,
            rows: &rows,
            of: &of,
            zero_shot: None,
        };
        teach(&lesson, &options).expect("learns")
    });
}
