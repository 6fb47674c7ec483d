//! The packed towers against those of [`crate::nn`], which transformers is the reference of, for
//! every instruction set of this machine, precision and number of threads.

use candle_core::Tensor;
use kernels::Precision;

use super::*;
use crate::{
    ModelError, Pixels,
    nn::{self, Activation, Form, Init, Source, TextConfig, TransformerConfig, VitConfig},
    nn::{Pooling, Sizing, VitPooling},
};

mod products;

/// Tensors by a recurrence, away from what they start as.
struct Wild(u64);

impl Wild {
    /// From -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

impl Source for Wild {
    fn tensor(
        &mut self,
        _name: &str,
        shape: &[usize],
        init: Init,
    ) -> std::result::Result<Tensor, ModelError> {
        let values = (0..shape.iter().product()).map(|_| match init {
            Init::Constant(x) => x + 0.2 * self.next(),
            Init::Normal { .. } => {
                let inputs = if shape.len() > 1 {
                    shape[1..].iter().product()
                } else {
                    1
                };
                2.0 * self.next() / f32::sqrt(inputs as f32)
            }
        });
        let values: Vec<f32> = values.collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

/// Sizes that fill no register, tile or word.
fn transformer(width: usize, heads: usize, activation: Activation) -> TransformerConfig {
    TransformerConfig {
        width,
        mlp_width: 2 * width + 3,
        layers: 2,
        heads,
        activation,
        layer_norm_eps: 1e-5,
    }
}

/// Calls `check` with every plan and pool of threads.
fn for_all(check: impl Fn(Plan) + Sync) {
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads start").install(|| {
            for level in Level::all() {
                for precision in Precision::ALL {
                    check(Plan { level, precision });
                }
            }
        });
    }
}

/// Compares rows; narrow precisions only by their direction.
fn compare(what: &str, plan: Plan, ours: &Tensor, theirs: &Tensor) {
    let (ours, theirs) = (ours.to_vec2::<f32>(), theirs.to_vec2::<f32>());
    let (ours, theirs) = (ours.expect("rows"), theirs.expect("rows"));
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let dot = |x: &[f32], y: &[f32]| -> f64 {
            x.iter()
                .zip(y)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum()
        };
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let least = match plan.precision {
            Precision::F32 => 0.999_999_9,
            Precision::Int16 | Precision::Bf16 => 0.999_8,
            Precision::Int8 => 0.998,
        };
        assert!(cosine > least, "{what}, {plan:?}, row {i}: cosine {cosine}");
        if plan.precision == Precision::F32 {
            let worst = a
                .iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-5, "{what}, {plan:?}, row {i}: {worst}");
        }
    }
}

#[test]
fn packed_text_towers_compute_what_the_reference_does() {
    let cases = [
        (45, 3, Activation::QuickGelu, true, Pooling::LargestId),
        (72, 8, Activation::Gelu, true, Pooling::FirstOf(7)),
        (40, 5, Activation::GeluTanh, false, Pooling::Last),
    ];
    for (width, heads, activation, causal, pooling) in cases {
        let config = TextConfig {
            vocabulary: 50,
            context_length: 70,
            pooling,
            causal,
            projection_bias: !causal,
            transformer: transformer(width, heads, activation),
        };
        let lengths = if causal { [70, 1, 5, 33, 12] } else { [70; 5] };
        let mut wild = Wild(9);
        let texts = lengths.map(|n| {
            let ids = (0..n).map(|_| (25.0 * (wild.next() + 1.0)) as u32 % 50);
            ids.collect::<Vec<u32>>()
        });
        let reference = nn::TextTower::new(&mut Wild(5), &config, 24, Form::Fused);
        let reference = reference.expect("it builds");
        let pooled = reference.pooled(&texts).expect("it runs");
        let shared = reference.project(&pooled).expect("it runs");
        for_all(|plan| {
            let (tower, projection) =
                TextTower::new(&mut Wild(5), &config, 24, plan).expect("it builds");
            assert_eq!(projection.dims(), [24, width]);
            assert!(tower.bytes() > 0);
            let ours = tower.pooled(&texts).expect("it runs");
            let what = format!("text {width} {pooling:?}");
            compare(&what, plan, &ours, &pooled);
            compare(
                &what,
                plan,
                &tower.project(&ours).expect("it runs"),
                &shared,
            );
            // Alone as in a batch.
            let alone = tower.pooled(&texts[3..4]).expect("it runs");
            compare(
                &what,
                plan,
                &alone,
                &ours.narrow(0, 3, 1).expect("it is there"),
            );
        });
    }
}

#[test]
fn packed_vision_transformers_compute_what_the_reference_does() {
    let clip = VitConfig::clip(24, 8, transformer(45, 3, Activation::QuickGelu));
    let siglip = |pooling, sizing| VitConfig {
        sizing,
        class_token: false,
        patch_bias: true,
        pre_norm: false,
        pooling,
        projection: false,
        ..VitConfig::clip(35, 5, transformer(72, 4, Activation::GeluTanh))
    };
    let cases = [
        (clip.clone(), vec![(24, 24); 7]),
        (clip, vec![(40, 33), (40, 33)]),
        (
            siglip(VitPooling::AttentionHead, Sizing::Fixed),
            vec![(35, 35); 3],
        ),
        (
            siglip(VitPooling::AttentionHead, Sizing::Native),
            vec![(5, 60), (35, 35), (41, 12), (35, 35)],
        ),
        (
            siglip(VitPooling::MeanThenNorm, Sizing::Fixed),
            vec![(35, 35); 2],
        ),
        (
            VitConfig {
                class_token: true,
                ..siglip(VitPooling::NormThenMean, Sizing::Fixed)
            },
            vec![(35, 35); 2],
        ),
    ];
    for (config, sizes) in cases {
        let mut wild = Wild(3);
        let pixels: Vec<Pixels> = sizes
            .iter()
            .map(|(h, w)| {
                let values = (0..3 * h * w).map(|_| wild.next()).collect();
                Pixels::new(values, *h, *w).expect("it fills its shape")
            })
            .collect();
        let dim = if config.projection {
            20
        } else {
            config.transformer.width
        };
        let reference = nn::VitTower::new(&mut Wild(5), &config, dim, Form::Fused);
        let reference = reference.expect("it builds");
        let pooled: Vec<Tensor> = pixels
            .iter()
            .map(|p| {
                let shape = (1, 3, p.height(), p.width());
                let x = Tensor::from_vec(p.as_slice().to_vec(), shape, &Device::Cpu);
                reference
                    .pooled(&x.expect("it fills its shape"))
                    .expect("it runs")
            })
            .collect();
        let pooled = Tensor::cat(&pooled, 0).expect("they are alike");
        let shared = reference.project(&pooled).expect("it runs");
        for_all(|plan| {
            let (tower, _) = VitTower::new(&mut Wild(5), &config, dim, plan).expect("it builds");
            assert!(tower.bytes() > 0);
            let ours = tower.pooled(&pixels).expect("it runs");
            let what = format!("{:?} {:?}", config.pooling, sizes);
            compare(&what, plan, &ours, &pooled);
            compare(
                &what,
                plan,
                &tower.project(&ours).expect("it runs"),
                &shared,
            );
            let alone = tower.pooled(&pixels[1..2]).expect("it runs");
            compare(
                &what,
                plan,
                &alone,
                &ours.narrow(0, 1, 1).expect("it is there"),
            );
        });
    }
}

#[test]
fn what_a_tower_cannot_take_is_refused() {
    let config = TextConfig {
        vocabulary: 50,
        context_length: 7,
        pooling: Pooling::LargestId,
        causal: true,
        projection_bias: false,
        transformer: transformer(40, 5, Activation::Gelu),
    };
    let plan = Plan {
        level: Level::best(),
        precision: Precision::F32,
    };
    let (tower, _) = TextTower::new(&mut Wild(5), &config, 24, plan).expect("it builds");
    for texts in [vec![vec![]], vec![vec![1; 8]], vec![vec![1, 2], vec![50]]] {
        assert!(tower.pooled(&texts).is_err(), "{texts:?}");
    }
    let config = VitConfig::clip(24, 8, transformer(45, 3, Activation::QuickGelu));
    let (tower, _) = VitTower::new(&mut Wild(5), &config, 24, plan).expect("it builds");
    let small = Pixels::new(vec![0.0; 3 * 7 * 9], 7, 9).expect("it fills its shape");
    assert!(tower.pooled(&[small]).is_err());
}
