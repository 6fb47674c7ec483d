//! Over 400 lines by a few: every mode against the same batches and finite differences.

use candle_core::{Device, Var};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::*;

const MODES: [GammaMode; 2] = [GammaMode::GammaMean, GammaMode::GammaSampled];

fn config(mode: GammaMode) -> GammaConfig {
    GammaConfig {
        mode,
        gain_decay: 0.8,
        min_gain: 0.0,
    }
}

/// Forgets everything between steps.
fn without_memory(mode: GammaMode) -> GammaConfig {
    GammaConfig {
        min_gain: 1.0,
        ..config(mode)
    }
}

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn waves(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| 2.0 * (i as f32 * 0.7).sin()).collect()
}

/// Loss, its gradient by logit, and the report of one step.
fn step(
    config: GammaConfig,
    logits: &[f32],
    positives: &Tensor,
    negatives: f64,
    memory: &mut LogZ,
) -> Result<(f32, Vec<f32>, GammaReport)> {
    let n = positives.dim(0)?;
    let items: Vec<usize> = (0..n).collect();
    let logits = Var::from_slice(logits, (n, n), &Device::Cpu)?;
    let anchors = Anchors {
        logits: &logits,
        positives,
        items: &items,
        negatives,
    };
    let (loss, report) = config.loss(&anchors, memory, &mut random())?;
    let gradients = loss.backward()?;
    let gradient = gradients.get(&logits).expect("a gradient").flatten_all()?;
    Ok((loss.to_scalar()?, gradient.to_vec1()?, report))
}

fn eye(n: usize) -> Result<Tensor> {
    Tensor::eye(n, DType::F32, &Device::Cpu)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.max_by(f32::total_cmp).unwrap_or_default()
}

#[test]
fn equal_logits_give_a_surrogate_of_1_and_the_gradient_of_info_nce() -> Result<()> {
    let (logits, positives) = ([0.0; 16], eye(4)?);
    let gamma = config(GammaMode::GammaMean);
    let (loss, gradient, report) = step(gamma, &logits, &positives, 3.0, &mut LogZ::new(4))?;
    assert!((loss - 1.0).abs() < 1e-6, "{loss}");
    assert!((report.estimate - 4.0_f32.ln()).abs() < 1e-6, "{report:?}");
    let expected: Vec<f32> = (0..16)
        .map(|i| (0.25 - f32::from(i % 5 == 0)) / 4.0)
        .collect();
    assert!(
        largest_difference(&gradient, &expected) < 1e-6,
        "{gradient:?}"
    );
    let plain = config(GammaMode::Infonce);
    let (loss, of_info_nce, _) = step(plain, &logits, &positives, 3.0, &mut LogZ::new(4))?;
    assert!((loss - 4.0_f32.ln()).abs() < 1e-6, "{loss}");
    assert!(largest_difference(&gradient, &of_info_nce) < 1e-6);
    Ok(())
}

#[test]
fn loss_and_gradient_equal_the_formula_and_its_differences() -> Result<()> {
    // Row 0 has a second positive, row 3 nothing but positives.
    let p = [
        1., 1., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 1., 1., 1., 1.,
    ];
    let (n, negatives) = (4, 9.0);
    let positives = Tensor::from_slice(&p.map(|p: f64| p as f32), (n, n), &Device::Cpu)?;
    let start = waves(n);
    for mode in MODES {
        let mut memory = LogZ::new(n);
        memory.update(&[0, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0], &config(mode))?;
        let mut after = memory.clone();
        let (loss, gradient, _) = step(config(mode), &start, &positives, negatives, &mut after)?;
        assert_eq!(after.visits(), [2, 2, 2, 1]);
        // The weights by hand, from the same draws.
        let mut random = random();
        let z = |s: &dyn Fn(usize) -> f64, i: usize| {
            let others: Vec<usize> = (0..n).filter(|j| *j != i && p[i * n + j] < 0.5).collect();
            let each = negatives / others.len() as f64;
            s(i * n + i).exp() + each * others.iter().map(|j| s(i * n + j).exp()).sum::<f64>()
        };
        let u: Vec<f64> = (0..3)
            .map(|i| {
                let gain = 2.0_f64.powf(-0.8);
                let old = f64::from(memory.values()[i]).exp();
                let new = (1.0 - gain) * old + gain * z(&|at| f64::from(start[at]), i);
                f64::from(mode.log_draw(&mut random)).exp() / new
            })
            .collect();
        let by_hand = |moved: usize, by: f64| -> f64 {
            let s = |at: usize| f64::from(start[at]) + if at == moved { by } else { 0.0 };
            let row = |i: usize| u[i] * z(&s, i) - s(i * n + i);
            (0..3).map(row).sum::<f64>() / n as f64
        };
        assert!((f64::from(loss) - by_hand(0, 0.0)).abs() < 1e-5, "{loss}");
        for (i, gradient) in gradient.iter().enumerate() {
            let slope = (by_hand(i, 1e-4) - by_hand(i, -1e-4)) / 2e-4;
            assert!(
                (slope - f64::from(*gradient)).abs() < 1e-5,
                "{mode:?}, {i}: {slope} against {gradient}"
            );
        }
    }
    Ok(())
}

#[test]
fn without_memory_the_gradient_is_that_of_rescaled_info_nce() -> Result<()> {
    let (logits, positives) = (waves(5), eye(5)?);
    let (mut memory, negatives) = (LogZ::new(5), 40.0);
    let expected = config(GammaMode::InfonceRescaled);
    let (_, expected, _) = step(expected, &logits, &positives, negatives, &mut memory)?;
    assert_eq!(memory, LogZ::new(5), "InfoNCE has no memory");
    let gamma = without_memory(GammaMode::GammaMean);
    for _ in 0..2 {
        let (_, gradient, _) = step(gamma, &logits, &positives, negatives, &mut memory)?;
        assert!(largest_difference(&gradient, &expected) < 1e-6);
    }
    // With a memory of something else it is not.
    let gamma = config(GammaMode::GammaMean);
    memory.update(&[0, 1, 2, 3, 4], &[0.0; 5], &gamma)?;
    let (_, gradient, _) = step(gamma, &logits, &positives, negatives, &mut memory)?;
    assert!(largest_difference(&gradient, &expected) > 1e-2);
    Ok(())
}

#[test]
fn with_the_exact_z_the_mean_gradient_of_all_batches_is_that_of_all_data() -> Result<()> {
    let (n, batch) = (6, 3);
    let (logits, negatives) = (waves(n), (n - 1) as f64);
    let rescaled = config(GammaMode::InfonceRescaled);
    let (_, full, _) = step(rescaled, &logits, &eye(n)?, negatives, &mut LogZ::new(n))?;
    let whole = Tensor::from_slice(&logits, (n, n), &Device::Cpu)?;
    let exact = whole.log_sum_exp(1)?.to_vec1::<f32>()?;
    let mean = |config: GammaConfig| -> Result<Vec<f32>> {
        let mut sum = vec![0.0; n * n];
        let mut batches = 0.0;
        for chosen in (0..1_usize << n).filter(|s| s.count_ones() as usize == batch) {
            let items: Vec<usize> = (0..n).filter(|i| chosen >> i & 1 == 1).collect();
            let places: Vec<usize> = items
                .iter()
                .flat_map(|i| items.iter().map(move |j| i * n + j))
                .collect();
            let part: Vec<f32> = places.iter().map(|at| logits[*at]).collect();
            // Seen so often that one batch more changes nothing.
            let lz: Vec<f32> = items.iter().map(|i| exact[*i]).collect();
            let visits = Tensor::full(u32::MAX, batch, &Device::Cpu)?;
            let mut memory = LogZ::from_tensors(&Tensor::new(lz, &Device::Cpu)?, &visits)?;
            let (_, gradient, _) = step(config, &part, &eye(batch)?, negatives, &mut memory)?;
            for (at, gradient) in places.iter().zip(gradient) {
                sum[*at] += gradient;
            }
            batches += 1.0;
        }
        Ok(sum.iter().map(|sum| sum / batches).collect())
    };
    let gamma = largest_difference(&mean(config(GammaMode::GammaMean))?, &full);
    assert!(gamma < 1e-6, "{gamma}");
    let biased = largest_difference(&mean(rescaled)?, &full);
    assert!(biased > 1e-3, "{biased}");
    Ok(())
}

#[test]
fn draws_have_mean_1_and_the_deviation_of_the_gamma_distribution() {
    let four = NonZeroU32::new(4).expect("not 0");
    for (mode, expected) in [
        (GammaMode::GammaSampled, 1.0),
        (GammaMode::GammaK(four), 0.5),
        (GammaMode::GammaMean, 0.0),
    ] {
        let mut random = random();
        let n = 40_000;
        let draws: Vec<f64> = (0..n)
            .map(|_| f64::from(mode.log_draw(&mut random)).exp())
            .collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.015, "{mode:?}: mean {mean}");
        let deviation = variance.sqrt();
        assert!((deviation - expected).abs() < 0.02, "{mode:?}: {deviation}");
    }
}

#[test]
fn the_sum_of_the_weights_of_a_row_is_capped_and_the_cap_is_reported() -> Result<()> {
    let mut memory = LogZ::new(2);
    let gamma = config(GammaMode::GammaMean);
    // Item 0 remembers a Z far below what it now sees.
    memory.update(&[0, 1], &[-30.0, 60.0], &gamma)?;
    let mut memory = LogZ::from_tensors(
        &Tensor::from_slice(memory.values(), 2, &Device::Cpu)?,
        &Tensor::full(u32::MAX, 2, &Device::Cpu)?,
    )?;
    let logits = [50.0, 50.0, 50.0, 50.0];
    let (loss, gradient, report) = step(gamma, &logits, &eye(2)?, 1.0, &mut memory)?;
    assert!((report.capped - 0.5).abs() < 1e-6, "{report:?}");
    let of_candidates = gradient[0] + gradient[1] + 0.5;
    assert!(
        (of_candidates - MAX_WEIGHTS / 2.0).abs() < 1e-3,
        "{of_candidates}"
    );
    assert!((loss - (MAX_WEIGHTS - 100.0) / 2.0).abs() < 1e-3, "{loss}");
    Ok(())
}

#[test]
fn the_usual_mode_is_info_nce() -> Result<()> {
    let p = [1_f32, 1., 0., 0., 1., 0., 0., 0., 1.];
    let positives = Tensor::from_slice(&p, (3, 3), &Device::Cpu)?;
    let logits = Tensor::from_vec(waves(3), (3, 3), &Device::Cpu)?;
    let mut memory = TwoWay {
        by_row: LogZ::new(3),
        by_column: LogZ::new(3),
    };
    let pairs = Anchors {
        logits: &logits,
        positives: &positives,
        items: &[0, 1, 2],
        negatives: 2.0,
    };
    let config = config(GammaMode::Infonce);
    let (loss, _) = config.both_ways(&pairs, &mut memory, &mut random())?;
    let rows = contrast(&logits, &positives)?.to_scalar::<f32>()?;
    let columns = contrast(&logits.t()?, &positives.t()?)?.to_scalar::<f32>()?;
    let expected = f32::midpoint(rows, columns);
    assert!((loss.to_scalar::<f32>()? - expected).abs() < 1e-6);
    assert!((rows - columns).abs() > 1e-2, "directions differ");
    Ok(())
}

#[test]
fn each_direction_remembers_its_own_z() -> Result<()> {
    let (logits, n) = (waves(3), 3);
    let logits = Tensor::from_vec(logits, (n, n), &Device::Cpu)?;
    let mut memory = TwoWay {
        by_row: LogZ::new(5),
        by_column: LogZ::new(5),
    };
    let pairs = Anchors {
        logits: &logits,
        positives: &eye(n)?,
        items: &[4, 0, 2],
        negatives: 2.0,
    };
    config(GammaMode::GammaMean).both_ways(&pairs, &mut memory, &mut random())?;
    for (memory, axis) in [(memory.by_row, 1), (memory.by_column, 0)] {
        let exact = logits.log_sum_exp(axis)?.to_vec1::<f32>()?;
        let [a, b, c, d, e] = memory.values() else {
            panic!("five items: {memory:?}")
        };
        assert!(largest_difference(&[*e, *a, *c], &exact) < 1e-5);
        assert!(largest_difference(&[*b, *d], &[0.0; 2]) < f32::EPSILON);
        assert_eq!(memory.visits(), [1, 0, 1, 0, 1]);
    }
    Ok(())
}

#[test]
fn the_memory_averages_z_itself_and_survives_a_checkpoint() -> Result<()> {
    let mut memory = LogZ::new(3);
    let gamma = GammaConfig {
        gain_decay: 1.0,
        ..config(GammaMode::GammaMean)
    };
    for z in [2.0_f32, 4.0, 9.0] {
        memory.update(&[1], &[z.ln()], &gamma)?;
    }
    assert!((memory.values()[1].exp() - 5.0).abs() < 1e-4, "{memory:?}");
    let floor = GammaConfig {
        min_gain: 0.5,
        ..gamma
    };
    memory.update(&[1], &[7.0_f32.ln()], &floor)?;
    assert!((memory.values()[1].exp() - 6.0).abs() < 1e-4, "{memory:?}");
    let [(_, log_z), (_, visits)] = memory.to_tensors()?;
    assert_eq!(LogZ::from_tensors(&log_z, &visits)?, memory);
    assert!(LogZ::from_tensors(&log_z, &visits.narrow(0, 0, 2)?).is_err());
    Ok(())
}

#[test]
fn an_item_outside_the_memory_is_refused_and_nothing_is_remembered() {
    let mut memory = LogZ::new(3);
    let gamma = config(GammaMode::GammaMean);
    let error = memory.update(&[0, 3], &[1.0, 1.0], &gamma);
    let message = error.expect_err("3 is not among 0, 1, 2").to_string();
    assert!(message.contains("item 3"), "{message}");
    assert_eq!(memory, LogZ::new(3));
}

#[test]
fn the_stateless_loss_touches_the_loss_over_all_data_at_log_z() -> Result<()> {
    let n = 4;
    let (start, positives) = (waves(n), eye(n)?);
    let at = |logits: &[f32], offsets: &[f32]| -> Result<(Var, Var, Tensor)> {
        let logits = Var::from_slice(logits, (n, n), &Device::Cpu)?;
        let offsets = Var::from_slice(offsets, n, &Device::Cpu)?;
        let anchors = Anchors {
            logits: &logits,
            positives: &positives,
            items: &[0, 1, 2, 3],
            negatives: 7.0,
        };
        let loss = stateless(&anchors, &offsets)?;
        Ok((logits, offsets, loss))
    };
    let mut memory = LogZ::new(n);
    let rescaled = config(GammaMode::InfonceRescaled);
    let (expected, expected_gradient, _) = step(rescaled, &start, &positives, 7.0, &mut memory)?;
    step(
        config(GammaMode::GammaMean),
        &start,
        &positives,
        7.0,
        &mut memory,
    )?;
    let (logits, offsets, loss) = at(&start, memory.values())?;
    assert!((loss.to_scalar::<f32>()? - expected).abs() < 1e-5);
    let gradients = loss.backward()?;
    let by_logit = gradients.get(&logits).expect("a gradient").flatten_all()?;
    assert!(largest_difference(&by_logit.to_vec1()?, &expected_gradient) < 1e-6);
    let by_offset = gradients.get(&offsets).expect("a gradient").to_vec1()?;
    assert!(largest_difference(&by_offset, &[0.0; 4]) < 1e-6);

    let elsewhere = [1.0, 2.0, 3.0, 4.0];
    let (logits, offsets, loss) = at(&start, &elsewhere)?;
    assert!(loss.to_scalar::<f32>()? > expected);
    let gradients = loss.backward()?;
    let gradient = |var: &Var| -> Result<Vec<f32>> {
        let gradient = gradients.get(var).expect("a gradient");
        gradient.flatten_all()?.to_vec1()
    };
    let moved = |values: &[f32], i: usize, by: f32| {
        let mut values = values.to_vec();
        values[i] += by;
        values
    };
    let h = 1e-2;
    for (i, gradient) in gradient(&offsets)?.iter().enumerate() {
        let loss = |by| at(&start, &moved(&elsewhere, i, by))?.2.to_scalar::<f32>();
        let slope = (loss(h)? - loss(-h)?) / (2.0 * h);
        assert!(
            (slope - gradient).abs() < 2e-3,
            "offset {i}: {slope}, {gradient}"
        );
    }
    for (i, gradient) in gradient(&logits)?.iter().enumerate() {
        let loss = |by| at(&moved(&start, i, by), &elsewhere)?.2.to_scalar::<f32>();
        let slope = (loss(h)? - loss(-h)?) / (2.0 * h);
        assert!(
            (slope - gradient).abs() < 2e-3,
            "logit {i}: {slope}, {gradient}"
        );
    }
    Ok(())
}

#[test]
fn modes_have_names_in_configuration_files() {
    let read = |text: &str| toml::from_str::<GammaConfig>(text).map(|config| config.mode);
    let rest = "gain_decay = 0.8\nmin_gain = 0.1\n";
    for (name, mode) in [
        ("\"infonce\"", GammaMode::Infonce),
        ("\"infonce_rescaled\"", GammaMode::InfonceRescaled),
        ("\"gamma_mean\"", GammaMode::GammaMean),
        ("\"gamma_sampled\"", GammaMode::GammaSampled),
    ] {
        assert_eq!(read(&format!("mode = {name}\n{rest}")), Ok(mode));
    }
    let four = NonZeroU32::new(4).map(GammaMode::GammaK);
    assert_eq!(
        read(&format!("mode = {{ gamma_k = 4 }}\n{rest}")).ok(),
        four
    );
    assert!(read(&format!("mode = {{ gamma_k = 0 }}\n{rest}")).is_err());
}
