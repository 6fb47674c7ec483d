//! On an NVIDIA GPU: the same embeddings as on the CPU, for every family and for the built-in model.
//! Only a build with the feature has these tests, and they need a GPU.
#![cfg(feature = "cuda")]

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor, Var};
use embedding::{Embedding, Encoded};
use encoders::{
    Model, ModelError, Picture, Pixels, Place, Precision, PrecisionChoice, RunOptions,
    nn::{
        Activation, Form, ImageConfig, Init, Network, NetworkConfig, Pooling, ResidualConfig,
        Source, TextConfig, TransformerConfig, VitConfig,
    },
};

/// Largest difference of an element of a unit embedding: sums in another order.
const MAX_ABS: f32 = 5e-6;

const GPU: RunOptions = RunOptions {
    precision: PrecisionChoice::Auto,
    place: Place::Cuda(0),
};

const CPU: RunOptions = RunOptions {
    precision: PrecisionChoice::Only(Precision::F32),
    place: Place::Cpu,
};

fn picture(width: u32, height: u32) -> Picture {
    let level = |i: u32| ((i * 37) ^ (i / 11)) as u8;
    let levels = (0..3 * width * height).map(level).collect();
    Picture::new(width, height, levels).expect("sizes fit")
}

fn gap(a: &Embedding, b: &Embedding) -> f32 {
    let pairs = a.as_slice().iter().zip(b.as_slice());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn compare(name: &str, cpu: &[Encoded], gpu: &[Encoded]) {
    assert_eq!(cpu.len(), gpu.len());
    for (a, b) in cpu.iter().zip(gpu) {
        let mut largest = gap(&a.shared, &b.shared);
        if let (Some(a), Some(b)) = (&a.specific, &b.specific) {
            largest = largest.max(gap(a, b));
        }
        assert!(largest <= MAX_ABS, "{name}: {largest:e}");
    }
}

fn both(name: &str, load: impl Fn(RunOptions) -> Result<Model, ModelError>) {
    let (cpu, gpu) = (load(CPU).expect(name), load(GPU).expect(name));
    assert_eq!(gpu.info().image.kernels, "cuda");
    let texts = [
        "",
        "a cat",
        "two dogs on a long, long road to the sea",
        "kedi",
    ];
    let texts = texts.map(str::to_owned);
    let encode = |model: &Model| model.text().encode(&texts).expect("encodes");
    compare(&format!("texts of {name}"), &encode(&cpu), &encode(&gpu));
    let sizes = [(64, 64), (200, 40), (31, 90)];
    let pixels: Vec<Pixels> = sizes.map(|(w, h)| cpu.prepare(&picture(w, h))).to_vec();
    let encode = |model: &Model| model.image().encode(&pixels).expect("encodes");
    compare(&format!("pictures of {name}"), &encode(&cpu), &encode(&gpu));
}

#[test]
fn every_family_has_the_embeddings_of_the_cpu() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    let mut families = 0;
    for entry in std::fs::read_dir(&data).expect("it is committed") {
        let folder = entry.expect("an entry").path();
        let is_model = ["config.json", "open_clip_config.json"];
        if is_model.iter().any(|file| folder.join(file).exists()) {
            both(&folder.display().to_string(), |options| {
                Model::load_with(&folder, options)
            });
            families += 1;
        }
    }
    assert!(families >= 9, "{families} checkpoints");
    both("the built-in model", |options| Model::builtin_with(options));
}

#[test]
fn another_precision_and_a_gpu_that_is_not_there_are_refused() {
    for (options, says) in [
        (
            RunOptions {
                precision: PrecisionChoice::Only(Precision::Int8),
                place: Place::Cuda(0),
            },
            "int8 was asked for",
        ),
        (
            RunOptions {
                precision: PrecisionChoice::Auto,
                place: Place::Cuda(99),
            },
            "cuda:99",
        ),
    ] {
        let error = Model::builtin_with(options)
            .map(|_| ())
            .expect_err("is refused");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Waves by the name of the tensor, the same on every device.
struct Waves {
    device: Device,
    vars: BTreeMap<String, Var>,
}

fn wave(shape: &[usize], step: f32, size: f32) -> Vec<f32> {
    let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * step).sin() * size);
    values.collect()
}

impl Source for Waves {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        let step = 0.3 + name.len() as f32 / 37.0;
        let values = match init {
            Init::Constant(value) => wave(shape, step, 0.1).iter().map(|x| x + value).collect(),
            Init::Normal { deviation } => wave(shape, step, deviation),
        };
        let tensor = Tensor::from_vec(values, shape, &self.device)?;
        let var = Var::from_tensor(&tensor)?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name.to_owned(), var);
        Ok(tensor)
    }
}

fn network(image: ImageConfig) -> NetworkConfig {
    NetworkConfig {
        dim: 6,
        text: TextConfig {
            vocabulary: 50,
            context_length: 12,
            pooling: Pooling::FirstOf(49),
            causal: true,
            projection_bias: false,
            transformer: transformer(24),
        },
        image,
        logit_bias: false,
    }
}

fn transformer(width: usize) -> TransformerConfig {
    TransformerConfig {
        width,
        mlp_width: 4 * width,
        layers: 2,
        heads: 3,
        activation: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}

/// Value, gradients and running statistics of one step, by name.
fn one_step(config: &NetworkConfig, device: &Device) -> BTreeMap<String, Vec<f32>> {
    let mut source = Waves {
        device: device.clone(),
        vars: BTreeMap::new(),
    };
    let form = Form::Differentiable {
        batch_statistics: true,
    };
    let network = Network::new(&mut source, config, form).expect("a network");
    let side = config.image.image_size();
    let shape = [5, 3, side, side];
    let pixels = Tensor::from_vec(wave(&shape, 0.37, 1.0), &shape[..], device).expect("pixels");
    let image = &network.image;
    let images = image
        .project(&image.pooled(&pixels).expect("pools"))
        .expect("projects");
    let texts: Vec<Vec<u32>> = (1..6).map(|n| (0..2 * n).chain([49]).collect()).collect();
    let text = &network.text;
    let texts = text
        .project(&text.pooled(&texts).expect("pools"))
        .expect("projects");
    let loss = images
        .matmul(&texts.t().expect("t"))
        .and_then(|x| x.sin()?.sqr()?.sum_all());
    let loss = loss.expect("a loss");
    let gradients = loss.backward().expect("a backward pass");
    let values = |x: &Tensor| {
        x.flatten_all()
            .and_then(|x| x.to_vec1::<f32>())
            .expect("values")
    };
    let mut seen = BTreeMap::from([("loss".to_owned(), values(&loss))]);
    for (name, var) in &source.vars {
        if let Some(gradient) = gradients.get(var) {
            seen.insert(format!("gradient of {name}"), values(gradient));
        }
    }
    for (name, statistics) in image.take_statistics() {
        seen.insert(format!("mean of {name}"), values(&statistics.mean));
        seen.insert(format!("variance of {name}"), values(&statistics.variance));
    }
    seen
}

#[test]
fn a_training_step_has_the_gradients_of_the_cpu() {
    let gpu = Place::Cuda(0).open().expect("a GPU");
    let residual = ImageConfig::Residual(ResidualConfig {
        image_size: 21,
        stem: vec![5, 40],
        stages: vec![40, 33],
        blocks: 2,
        width: 20,
        norm_eps: 1e-5,
    });
    for config in [
        residual,
        ImageConfig::Vit(VitConfig::clip(16, 8, transformer(18))),
    ] {
        let config = network(config);
        let (cpu, gpu) = (one_step(&config, &Device::Cpu), one_step(&config, &gpu));
        let names: Vec<_> = cpu.keys().collect();
        assert_eq!(names, gpu.keys().collect::<Vec<_>>());
        assert!(names.len() > 40, "{names:?}");
        for (name, cpu) in &cpu {
            let scale = cpu.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
            let gaps = cpu.iter().zip(&gpu[name]).map(|(a, b)| (a - b).abs());
            let gap = gaps.fold(0.0, f32::max) / scale;
            assert!(gap < 2e-3, "{name}: {gap} of {scale}");
        }
    }
}
