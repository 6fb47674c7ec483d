//! The trainer as a whole, on drawings that it makes itself: every parameter moves, both forms of
//! a network agree, a small set is learned by heart, and a resumed run is the same run.
//!
//! Over 400 lines: the tests share the drawings, the configurations and the runs made here.

use std::{collections::BTreeMap, path::Path};

use candle_core::{Device, Tensor};
use embedding::Embedding;
use encoders::{
    Card, Model, Picture, Pixels, RgbaPicture, Stored,
    nn::{Form, Network, beside, unit_rows},
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use training::{
    TrainingError,
    augment::augment,
    checkpoint,
    config::{
        AugmentConfig, CaptionConfig, DataConfig, Factors, ImageSection, ModelSection,
        ObjectiveConfig, OptimizerConfig, RunConfig, TextSection,
    },
    export::{export, whitening},
    fit::{Run, StepReport},
    manifest::{Concept, Dataset},
    objective::info_nce,
    parameters::Parameters,
    tokenizer,
};

const SIDE: usize = 16;

fn residual() -> ImageSection {
    ImageSection::Residual {
        image_size: SIDE,
        stem: vec![8],
        stages: vec![8, 16],
        blocks: 1,
        width: 24,
    }
}

fn vit() -> ImageSection {
    ImageSection::Vit {
        image_size: SIDE,
        patch_size: 4,
        width: 24,
        layers: 2,
        heads: 2,
    }
}

fn config(image: ImageSection, batch: usize, steps: usize) -> RunConfig {
    RunConfig {
        seed: 5,
        data: DataConfig::default(),
        objective: ObjectiveConfig::default(),
        model: ModelSection {
            name: "toy".into(),
            dim: 16,
            specific: false,
            from: None,
            freeze: Vec::new(),
            layer_decay: 1.0,
            lora: None,
            image: Some(image),
            text: Some(TextSection {
                vocabulary: 700,
                context_length: 12,
                width: 24,
                layers: 1,
                heads: 2,
            }),
        },
        optimizer: OptimizerConfig {
            batch,
            steps,
            warmup_steps: 5,
            learning_rate: 4e-3,
            logit_scale_factor: 3.0,
            weight_decay: 0.05,
            clip: 1.0,
            average: 0.0,
            factors: Factors::F32,
            accumulate: 1,
            checkpoint_every: 1000,
            evaluate_every: 1000,
        },
        stop: None,
        captions: CaptionConfig {
            tag_share: 0.0,
            tags_from: 1.0,
            carrier_share: 0.0,
            translated_share: 0.0,
            translations_from: 0.0,
        },
        augment: AugmentConfig {
            rotation: 5.0,
            scale: [0.95, 1.05],
            shift: 0.02,
            white_share: 1.0,
            color: 0.05,
            gray_share: 0.0,
            erase_share: 0.0,
            mirror_share: 0.0,
            ..AugmentConfig::STILL
        },
    }
}

/// 64 drawings: one of 8 colors in one of 8 places.
fn drawings() -> Dataset {
    const COLORS: [(&str, [u8; 3]); 8] = [
        ("red", [230, 30, 30]),
        ("green", [30, 180, 40]),
        ("blue", [30, 60, 230]),
        ("yellow", [240, 220, 30]),
        ("black", [10, 10, 10]),
        ("purple", [150, 40, 200]),
        ("orange", [250, 140, 20]),
        ("gray", [140, 140, 140]),
    ];
    const PLACES: [&str; 8] = [
        "north", "east", "south", "west", "middle", "corner", "rim", "stripe",
    ];
    let inside = |place: usize, x: usize, y: usize| match place {
        0 => y < 5,
        1 => x > 10,
        2 => y > 10,
        3 => x < 5,
        4 => (5..11).contains(&x) && (5..11).contains(&y),
        5 => x < 6 && y < 6,
        6 => x < 2 || y < 2 || x > 13 || y > 13,
        _ => (x + y) % 8 < 3,
    };
    let mut training = Vec::new();
    for (color, rgb) in COLORS {
        for (place, word) in PLACES.iter().enumerate() {
            let pixel = |i: usize| {
                let [r, g, b] = rgb;
                if inside(place, i % SIDE, i / SIDE) {
                    [r, g, b, 255]
                } else {
                    [0; 4]
                }
            };
            let rgba = (0..SIDE * SIDE).flat_map(pixel).collect();
            let picture = RgbaPicture::new(SIDE as u32, SIDE as u32, rgba).expect("sizes fit");
            training.push(Concept {
                key: format!("{color}-{word}"),
                name: format!("{color} {word}"),
                tags: Vec::new(),
                skin_tone: false,
                translations: BTreeMap::new(),
                pictures: vec![(picture, 1.0)],
            });
        }
    }
    Dataset {
        training,
        ..Dataset::default()
    }
}

fn run(config: &RunConfig, folder: &Path, until: usize) -> (Run, Vec<StepReport>) {
    let mut run = Run::open(config, drawings(), folder, &Device::Cpu).expect("opens");
    let mut reports = Vec::new();
    run.train(folder, until, &mut |report| reports.push(report.clone()))
        .expect("trains");
    (run, reports)
}

fn pixels(n: usize) -> Tensor {
    let values: Vec<f32> = (0..n * 3 * SIDE * SIDE)
        .map(|i| ((i * i) as f32 * 0.13).sin())
        .collect();
    Tensor::from_vec(values, (n, 3, SIDE, SIDE), &Device::Cpu).expect("shape fits")
}

#[test]
fn every_parameter_of_both_kinds_of_towers_gets_a_gradient() {
    for image in [residual(), vit()] {
        let network = config(image, 4, 10).model.network(700, 699).expect("sizes");
        let mut parameters = Parameters::seeded(3, Device::Cpu);
        let form = Form::Differentiable {
            batch_statistics: true,
        };
        let towers = Network::new(&mut parameters, &network, form).expect("builds");
        // Texts of several lengths, up to the longest, so that every position is used.
        let ids: Vec<Vec<u32>> = [3, 5, 8, 12]
            .map(|n: u32| {
                (0..n)
                    .map(|i| if i + 1 == n { 699 } else { (i * 37 + n) % 699 })
                    .collect()
            })
            .to_vec();
        let images = towers
            .image
            .project(&towers.image.pooled(&pixels(4)).expect("pools"));
        let texts = towers
            .text
            .project(&towers.text.pooled(&ids).expect("pools"));
        let eye = Tensor::eye(4, candle_core::DType::F32, &Device::Cpu).expect("eye");
        let (images, texts) = (images.expect("projects"), texts.expect("projects"));
        let loss = info_nce(&images, &texts, &towers.logit_scale, &eye).expect("a loss");
        let gradients = loss.backward().expect("a backward pass");
        for (name, var) in parameters.trainable() {
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            let largest = gradient
                .abs()
                .and_then(|g| g.max_all())
                .and_then(|g| g.to_scalar::<f32>());
            let largest = largest.expect("a number");
            // Softmax does not see what is added to all keys alike, so that bias never moves.
            let floor = if name.ends_with("k_proj.bias") {
                -1.0
            } else {
                1e-9
            };
            assert!(largest.is_finite() && largest > floor, "{name}: {largest}");
        }
    }
}

#[test]
fn the_serving_form_equals_the_training_form() {
    for image in [residual(), vit()] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(image, 16, 12);
        let (mut run, _) = run(&config, folder.path(), 12);
        let ids = vec![
            vec![698, 5, 6, 699],
            vec![698, 9, 699],
            vec![698, 1, 2, 3, 4, 5, 6, 7, 699],
        ];
        let outputs = [
            Form::Differentiable {
                batch_statistics: false,
            },
            Form::Fused,
        ]
        .map(|form| {
            let towers = Network::new(&mut run.parameters, &run.network, form).expect("builds");
            let image = towers
                .image
                .project(&towers.image.pooled(&pixels(3)).expect("pools"));
            let text = towers
                .text
                .project(&towers.text.pooled(&ids).expect("pools"));
            [image, text].map(|x| unit_rows(&x.expect("projects")).expect("unit rows"))
        });
        let [training, serving] = outputs;
        for (a, b) in training.iter().zip(&serving) {
            let gap = (a - b)
                .and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>())
                .expect("a gap");
            assert!(gap < 1e-5, "{gap}");
        }
    }
}

#[test]
fn an_exported_folder_gives_the_embeddings_of_the_training_form() {
    for image in [residual(), vit()] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut run, _) = run(&config(image, 16, 12), folder.path(), 12);
        let out = folder.path().join("model");
        export(&run, None, (Card::default(), Stored::F32), &out).expect("exports");
        let model = Model::load(&out).expect("loads");

        let form = Form::Differentiable {
            batch_statistics: false,
        };
        let towers = Network::new(&mut run.parameters, &run.network, form).expect("builds");
        let concepts = &drawings().training[..8];
        let names: Vec<String> = concepts.iter().map(|c| c.name.clone()).collect();
        let context = run.network.text.context_length;
        let tokenizer = tokenizer::load(&run.tokenizer, Path::new("tokenizer.json"), context);
        let tokenizer = tokenizer.expect("loads");
        let ids = names.iter().map(|name| tokenizer.encode(name));
        let ids: Vec<_> = ids.collect::<Result<_, _>>().expect("encodes");
        let texts = towers
            .text
            .pooled(&ids)
            .and_then(|x| towers.text.project(&x));
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut still = |c: &Concept| {
            let picture = &c.pictures[0].0;
            augment(picture, SIDE, false, &AugmentConfig::STILL, &mut random)
        };
        let pixels: Vec<f32> = concepts.iter().flat_map(&mut still).collect();
        let pixels = Tensor::from_vec(pixels, (8, 3, SIDE, SIDE), &Device::Cpu);
        let images = towers.image.pooled(&pixels.expect("shape fits"));
        let images = images.and_then(|x| towers.image.project(&x));

        let prepared: Vec<_> = concepts.iter().map(|c| prepared(&model, c)).collect();
        for (trained, served) in [
            (texts, model.text().encode(&names)),
            (images, model.image().encode(&prepared)),
        ] {
            let trained = unit_rows(&trained.expect("projects")).expect("unit rows");
            let trained = trained.to_vec2::<f32>().expect("rows");
            for (row, served) in trained.into_iter().zip(served.expect("encodes")) {
                let row = Embedding::normalized(row).expect("a unit row");
                let cosine = row.cosine(&served.shared);
                assert!(cosine > 1.0 - 1e-5, "{cosine}");
            }
        }
    }
}

/// A drawing on white as a model folder wants it.
fn prepared(model: &Model, concept: &Concept) -> Pixels {
    let on_white = concept.pictures[0].0.as_rgba().chunks(4).flat_map(|p| {
        if p[3] == 0 {
            [255; 3]
        } else {
            [p[0], p[1], p[2]]
        }
    });
    let side = SIDE as u32;
    let picture = Picture::new(side, side, on_white.collect());
    model.prepare(&picture.expect("sizes fit"))
}

#[test]
fn sixty_four_pairs_are_learned_by_heart_and_served_from_the_exported_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(residual(), 64, 150);
    let mut held_out = drawings().training;
    for concept in held_out.iter_mut().filter(|c| c.name.starts_with("red")) {
        concept.skin_tone = true;
    }
    let dataset = Dataset {
        held_out: BTreeMap::from([("by heart".to_owned(), held_out)]),
        ..drawings()
    };
    let mut run = Run::open(&config, dataset, folder.path(), &Device::Cpu).expect("opens");
    let mut reports = Vec::new();
    run.train(folder.path(), 150, &mut |report| {
        reports.push(report.clone());
    })
    .expect("trains");
    let (first, last) = (reports[0].loss, reports[reports.len() - 1].loss);
    assert!(last < 0.3 && first > 3.0, "loss {first} to {last}");
    let evaluated: Vec<_> = reports.iter().filter(|r| r.held_out.is_some()).collect();
    assert_eq!(evaluated.len(), 1, "at the end only");
    let gap = evaluated[0].modality_gap.expect("a gap");
    assert!((0.0..2.0).contains(&gap), "{gap}");
    let drawn = std::fs::read_to_string(folder.path().join("gap.svg")).expect("a plot");
    assert!(drawn.contains(&format!("modality gap {gap:.3} (64 held-out")));
    assert!(folder.path().join("similarities.svg").exists());
    let recall = &evaluated[0].held_out.as_ref().expect("recall")["by heart"];
    assert_eq!(recall.pictures, 64);
    assert!(recall.recall_at_1 > 0.9, "{recall:?}");
    assert!(recall.base_recall_at_10 > 0.99, "{recall:?}");
    // No caption of this run has a carrier: words around a name are noise to it.
    let carried = recall.base_carrier_recall_at_10;
    assert!((0.1..1.0).contains(&carried), "{recall:?}");
    let out = folder.path().join("model");
    let card = Card {
        name: "toy".into(),
        ..Card::default()
    };
    export(&run, None, (card, Stored::F16), &out).expect("exports");
    let model = Model::load(&out).expect("loads");
    assert_eq!(model.info().name, "toy");
    let concepts = drawings().training;
    let names: Vec<String> = concepts.iter().map(|c| c.name.clone()).collect();
    let texts = model.text().encode(&names).expect("encodes");
    let prepared: Vec<_> = concepts.iter().map(|c| prepared(&model, c)).collect();
    let images = model.image().encode(&prepared).expect("encodes");
    let found = texts.iter().enumerate().filter(|(i, text)| {
        let own = text.shared.cosine(&images[*i].shared);
        images
            .iter()
            .all(|image| text.shared.cosine(&image.shared) <= own)
    });
    let found = found.count();
    assert!(found >= 60, "{found} of 64 names find their drawing first");
}

#[test]
fn a_resumed_run_ends_in_the_bytes_of_an_uninterrupted_one() {
    let config = config(residual(), 16, 12);
    let (whole, parts) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let (_, expected) = run(&config, whole.path(), 12);
    let (_, mut seen) = run(&config, parts.path(), 5);
    seen.extend(run(&config, parts.path(), 12).1);
    assert_eq!(losses(&seen), losses(&expected));
    assert!(state(whole.path()) == state(parts.path()), "states differ");
}

#[test]
fn a_run_with_narrow_factors_learns_resumes_and_differs_in_roundings_only() {
    let mut config = config(residual(), 16, 12);
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("one")).collect();
    let (_, exact) = run(&config, folders[0].path(), 12);
    config.optimizer.factors = Factors::Bf16;
    let (_, narrow) = run(&config, folders[1].path(), 12);
    let (_, mut parts) = run(&config, folders[2].path(), 5);
    parts.extend(run(&config, folders[2].path(), 12).1);
    assert_eq!(losses(&parts), losses(&narrow));
    assert_ne!(losses(&exact), losses(&narrow));
    let gap = (exact[0].loss - narrow[0].loss).abs();
    assert!(gap < 0.02 * exact[0].loss, "{gap} of {}", exact[0].loss);
    assert!(narrow[11].loss < narrow[0].loss);
}

/// Every structure at once, and a memory of each item.
fn all_objectives() -> ObjectiveConfig {
    let text = "[contrast]\nmode = \"gamma_sampled\"\ngain_decay = 0.8\nmin_gain = 0.2\n\
                [latent]\nin_modal = 1.0\nseparation = 0.1\nbridge = 0.3\ngeometric = 0.05\n\
                geometric_views = 0.05";
    toml::from_str(text).expect("an objective")
}

#[test]
fn a_resumed_run_with_every_objective_ends_in_the_bytes_of_an_uninterrupted_one() {
    let mut config = config(residual(), 16, 8);
    config.objective = all_objectives();
    // The structures set in between the two parts.
    config.objective.latent_from = 0.5;
    config.model.specific = true;
    config.optimizer.average = 0.5;
    let (whole, parts) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let (_, expected) = run(&config, whole.path(), 8);
    let (_, mut seen) = run(&config, parts.path(), 3);
    seen.extend(run(&config, parts.path(), 8).1);
    assert_eq!(losses(&seen), losses(&expected));
    assert!(state(whole.path()) == state(parts.path()), "states differ");
    assert!(expected[3].terms.in_modal.is_none() && expected[4].terms.in_modal.is_some());
    let last = expected.last().expect("a report");
    let gamma = last.gamma.expect("the gamma-augmented contrast reports");
    assert!(
        gamma.estimate.is_finite() && gamma.capped <= 1.0,
        "{gamma:?}"
    );
    let terms = &last.terms;
    assert!(terms.in_modal.is_some() && terms.bridge.is_some() && terms.uniformity.is_some());
}

#[test]
fn specific_projections_that_were_trained_are_exported_and_served() {
    let mut config = config(residual(), 16, 6);
    config.objective = all_objectives();
    config.model.specific = true;
    let folder = tempfile::tempdir().expect("a folder");
    let (trained, _) = run(&config, folder.path(), 6);
    let out = tempfile::tempdir().expect("a folder");
    let card = Card {
        name: "specific".to_owned(),
        ..Card::default()
    };
    export(&trained, None, (card, Stored::F32), out.path()).expect("exports");
    let model = Model::load(out.path()).expect("loads");
    let dim = config.model.dim;
    for modality in embedding::Modality::ALL {
        let space = model.spaces().specific(modality).expect("a specific space");
        assert_eq!(
            space.dim, dim,
            "{modality}: trained, not what the shared one leaves over"
        );
    }
}

/// The same drawings by a second hand, darker.
fn by_two_hands() -> Dataset {
    let mut all = drawings();
    for concept in &mut all.training {
        let first = &concept.pictures[0].0;
        let dark = first.as_rgba().chunks(4);
        let dark = dark.flat_map(|p| [p[0] / 2, p[1] / 2, p[2] / 2 + 40, p[3]]);
        let dark = RgbaPicture::new(SIDE as u32, SIDE as u32, dark.collect());
        concept.pictures.push((dark.expect("sizes fit"), 1.0));
    }
    all
}

#[test]
fn whitened_projections_are_exported_and_served() {
    let mut config = config(residual(), 16, 6);
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, _) = run(&config, folder.path(), 6);
    let refused = whitening(&plain, &by_two_hands().into(), 0.01, None).map(|w| w.overlap);
    assert!(
        matches!(refused, Err(TrainingError::NoSpecific)),
        "{refused:?}"
    );

    config.model.specific = true;
    let folder = tempfile::tempdir().expect("a folder");
    let (trained, _) = run(&config, folder.path(), 6);
    let refused = whitening(&trained, &drawings().into(), 0.01, None).map(|w| w.overlap);
    assert!(
        matches!(refused, Err(TrainingError::NoRepeats)),
        "{refused:?}"
    );
    let found = whitening(&trained, &by_two_hands().into(), 0.01, None).expect("learns");
    let out = tempfile::tempdir().expect("a folder");
    let card = (Card::default(), Stored::F32);
    export(&trained, Some(&found), card, out.path()).expect("exports");

    let model = Model::load(out.path()).expect("loads");
    let concepts = drawings().training;
    let pixels: Vec<_> = concepts.iter().map(|c| prepared(&model, c)).collect();
    let served = model.image().encode(&pixels).expect("encodes");
    let mut parameters = trained.parameters.settled().expect("settles");
    let form = Form::Differentiable {
        batch_statistics: false,
    };
    let towers = Network::new(&mut parameters, &trained.network, form).expect("builds");
    for (pixels, served) in pixels.iter().zip(&served) {
        let shown = Tensor::from_slice(pixels.as_slice(), (1, 3, SIDE, SIDE), &Device::Cpu);
        let shown = towers.image.with_details(&shown.expect("shape fits"));
        let (pooled, details) = shown.expect("pools");
        let seen = beside(&pooled, &details.expect("a residual tower has them"));
        let seen = seen
            .and_then(|p| p.to_vec2::<f32>())
            .expect("is a row")
            .remove(0);
        assert_eq!(seen.len(), found.width);
        let rows = found.projection.chunks_exact(found.width);
        let row = rows.map(|p| p.iter().zip(&seen).map(|(a, b)| a * b).sum());
        let row = Embedding::normalized(row.collect()).expect("not zero");
        let cosine = row.cosine(served.specific.as_ref().expect("is specific"));
        assert!(cosine > 1.0 - 1e-4, "{cosine}");
    }
}

#[test]
fn averages_are_those_of_all_steps_and_are_what_is_exported() {
    let mut config = config(residual(), 16, 3);
    config.optimizer.average = 0.75;
    config.optimizer.checkpoint_every = 1;
    let folder = tempfile::tempdir().expect("a folder");
    let name = "visual_projection.weight";
    let values = |tensor: &Tensor| {
        let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>());
        values.expect("values")
    };
    let mut by_hand: Option<Vec<f32>> = None;
    let mut trained = None;
    for step in 1..=3 {
        let (run, _) = run(&config, folder.path(), step);
        let now = run
            .parameters
            .all()
            .find(|(n, _)| *n == name)
            .expect("there");
        let now = values(now.1);
        by_hand = Some(match by_hand {
            None => now,
            Some(old) => old
                .iter()
                .zip(now)
                .map(|(a, b)| 0.75 * a + 0.25 * b)
                .collect(),
        });
        trained = Some(run);
    }
    let (trained, by_hand) = (trained.expect("a run"), by_hand.expect("averages"));
    let out = tempfile::tempdir().expect("a folder");
    let card = Card {
        name: "average".to_owned(),
        ..Card::default()
    };
    export(&trained, None, (card, Stored::F32), out.path()).expect("exports");
    let file = out.path().join("model.safetensors");
    let exported = candle_core::safetensors::load(file, &Device::Cpu).expect("loads");
    let gaps = values(&exported[name]);
    let gap = gaps
        .iter()
        .zip(&by_hand)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(gap < 1e-6, "{gap}");
    let last = trained
        .parameters
        .all()
        .find(|(n, _)| *n == name)
        .expect("there");
    assert_ne!(values(last.1), gaps, "the last step is not the average");
}

#[test]
fn a_run_that_is_killed_between_checkpoints_does_the_steps_behind_the_last_one_again() {
    let mut config = config(residual(), 16, 12);
    config.optimizer.checkpoint_every = 4;
    let (whole, killed) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let mut expected = Vec::new();
    let mut uninterrupted =
        Run::open(&config, drawings(), whole.path(), &Device::Cpu).expect("opens");
    let mut observe = |report: &StepReport| {
        expected.push(report.clone());
        if report.step == 6 {
            // What a kill would leave.
            for file in ["checkpoint.safetensors", "metrics.jsonl"] {
                let to = killed.path().join(file);
                std::fs::copy(whole.path().join(file), to).expect("copies");
            }
        }
    };
    uninterrupted
        .train(whole.path(), 12, &mut observe)
        .expect("trains");
    let (_, seen) = run(&config, killed.path(), 12);
    assert_eq!(losses(&seen), losses(&expected)[4..]);
    assert!(state(whole.path()) == state(killed.path()), "states differ");
    let metrics = std::fs::read_to_string(killed.path().join("metrics.jsonl")).expect("a file");
    let steps = metrics.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line");
        line["step"].as_u64().expect("a step")
    });
    assert_eq!(steps.collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
}

fn losses(reports: &[StepReport]) -> Vec<(usize, f32)> {
    reports.iter().map(|r| (r.step, r.loss)).collect()
}

/// Weights, statistics, moments and the step, bit for bit.
fn state(folder: &Path) -> Vec<u8> {
    std::fs::read(checkpoint::file(folder)).expect("a checkpoint")
}

/// An export before the first checkpoint once left a tokenizer of no concept's words behind, which
/// the run then used.
#[test]
fn a_run_without_words_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let refused = Run::open(
        &config(residual(), 16, 12),
        Dataset::default(),
        &run,
        &Device::Cpu,
    );
    let message = refused.err().expect("is refused").to_string();
    assert!(message.contains("0 concepts"), "{message}");
    assert!(!run.exists());
}

#[test]
fn a_run_keeps_the_tokenizer_that_its_weights_were_trained_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(residual(), 16, 12);
    let (first, _) = run(&config, folder.path(), 2);
    let mut renamed = drawings();
    for concept in &mut renamed.training {
        concept.name = format!("quite {} indeed", concept.name);
    }
    let fresh = folder.path().join("fresh");
    let fresh = Run::open(&config, renamed.clone(), &fresh, &Device::Cpu).expect("opens");
    assert_ne!(fresh.tokenizer, first.tokenizer);
    let resumed = Run::open(&config, renamed, folder.path(), &Device::Cpu).expect("opens");
    assert_eq!(resumed.tokenizer, first.tokenizer);
    let exported =
        Run::open(&config, Dataset::default(), folder.path(), &Device::Cpu).expect("opens");
    assert_eq!(exported.tokenizer, first.tokenizer);
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    run(&config(residual(), 16, 12), folder.path(), 2);
    let mut other = config(residual(), 16, 12);
    other.seed += 1;
    let refused = Run::open(&other, drawings(), folder.path(), &Device::Cpu);
    let message = refused.err().expect("is refused").to_string();
    assert!(message.contains("another configuration"), "{message}");
}
