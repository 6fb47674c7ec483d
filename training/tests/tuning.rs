//! Fine-tuning of model folders: what is written without training is what was read, adapters are added to
//! what they adapt, and what is frozen stands still.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use embedding::{Embedding, Encoded};
use encoders::{
    Card, Model, Picture, Pixels, RgbaPicture, Stored,
    nn::{Form, Network, unit_rows},
};
use fs_err as fs;
use training::{
    checkpoint,
    config::RunConfig,
    data::Data,
    export::export,
    fit::{Run, StepReport},
};

/// A checkpoint that transformers or `OpenCLIP` wrote.
fn reference(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    root.join(name)
}

fn picture(seed: u32) -> Vec<u8> {
    let rgba = (0..30 * 26).flat_map(|i: u32| {
        let shade = |k: u32| (i.wrapping_mul(seed * 7 + k) / 5 % 256) as u8;
        [shade(3), shade(11), shade(29), 255]
    });
    let picture = RgbaPicture::new(30, 26, rgba.collect()).expect("sizes fit");
    picture.to_png()
}

const CAPTIONS: [&str; 8] = [
    "a red dog",
    "two cats",
    "the old tree",
    "rain",
    "a boat",
    "snow on hills",
    "a door",
    "bread",
];

/// A run on eight pairs that begins with a folder; `model` are lines of `[model]`, `more` whole sections.
fn config(folder: &Path, from: &Path, model: &str, more: &str) -> RunConfig {
    for (i, caption) in CAPTIONS.iter().enumerate() {
        fs::write(folder.join(format!("{i}.png")), picture(i as u32)).expect("written");
        fs::write(folder.join(format!("{i}.txt")), caption).expect("written");
    }
    let (data, from) = (folder.display(), from.display());
    let text = format!(
        r#"
seed = 4

[data]
pairs = '{data}'
validation = '{data}'

[model]
name = "tuned"
from = '{from}'
{model}

[optimizer]
batch = 4
steps = 20
warmup_steps = 1
learning_rate = 1e-3
logit_scale_factor = 1.0
weight_decay = 0.0
clip = 1e9
checkpoint_every = 1000
evaluate_every = 1000
{more}
"#
    );
    let file = folder.join("run.toml");
    fs::write(&file, text).expect("written");
    RunConfig::read(&file).expect("a configuration")
}

fn open(config: &RunConfig, folder: &Path) -> Run {
    let data = Data::read(&config.data).expect("reads");
    Run::open(config, data, folder, &Device::Cpu).expect("opens")
}

fn trained(config: &RunConfig, folder: &Path, until: usize) -> (Run, Vec<StepReport>) {
    let mut run = open(config, folder);
    let mut reports = Vec::new();
    run.train(folder, until, &mut |report| reports.push(report.clone()))
        .expect("trains");
    (run, reports)
}

/// Embeddings of all captions and pictures.
fn embeddings(model: &Model) -> [Vec<Encoded>; 2] {
    let texts: Vec<String> = CAPTIONS.map(str::to_owned).to_vec();
    let pixels: Vec<_> = (0..8).map(|i| model.prepare(&decoded(i))).collect();
    [
        model.text().encode(&texts).expect("encodes"),
        model.image().encode(&pixels).expect("encodes"),
    ]
}

fn decoded(i: u32) -> Picture {
    encoders::decode(&picture(i), &encoders::DecodeLimits::default()).expect("decodes")
}

fn gap(a: &Embedding, b: &Embedding) -> f32 {
    let each = a.as_slice().iter().zip(b.as_slice());
    each.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn largest_gap(a: &[Vec<Encoded>; 2], b: &[Vec<Encoded>; 2]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs
        .map(|(a, b)| gap(&a.shared, &b.shared))
        .fold(0.0, f32::max)
}

fn exported(run: &Run, folder: &Path) -> PathBuf {
    let out = folder.join("model");
    let card = Card {
        name: "tuned".into(),
        ..Card::default()
    };
    export(run, None, (card, Stored::F32), &out).expect("exports");
    out
}

fn weights(folder: &Path) -> HashMap<String, Tensor> {
    let file = folder.join("model.safetensors");
    candle_core::safetensors::load(file, &Device::Cpu).expect("loads")
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
    difference.expect("of one shape")
}

#[test]
fn what_is_written_without_training_gives_the_embeddings_of_the_folder() {
    for name in [
        "quick_gelu_legacy_eos",
        "gelu_named_eos",
        "open_clip_plain",
        "open_clip_clipa",
    ] {
        let data = tempfile::tempdir().expect("data");
        let config = config(data.path(), &reference(name), "", "");
        let out = exported(&open(&config, &data.path().join("run")), data.path());
        let [source, written] = [reference(name), out].map(|f| Model::load(&f).expect("loads"));
        let gap = largest_gap(&embeddings(&source), &embeddings(&written));
        assert!(gap < 1e-5, "{name}: {gap}");
        assert_eq!(written.info().name, "tuned");
    }
    let data = tempfile::tempdir().expect("data");
    let config = config(data.path(), Path::new("builtin"), "", "");
    let out = exported(&open(&config, &data.path().join("run")), data.path());
    let [source, written] = [Model::builtin(), Model::load(&out)].map(|m| m.expect("loads"));
    let gap = largest_gap(&embeddings(&source), &embeddings(&written));
    assert!(gap < 1e-5, "the built-in model: {gap}");
    assert_eq!(written.info().license, source.info().license);
}

#[test]
fn adapters_move_alone_and_what_is_exported_is_the_sum_that_was_trained() {
    let data = tempfile::tempdir().expect("data");
    let from = reference("quick_gelu_legacy_eos");
    let lora = "lora = { rank = 2, alpha = 6.0, targets = [\"q_proj\", \"v_proj\"] }";
    let config = config(data.path(), &from, lora, "");
    let folder = data.path().join("run");
    let (mut run, _) = trained(&config, &folder, 6);
    let out = exported(&run, data.path());

    let (before, after) = (weights(&from), weights(&out));
    let saved = candle_core::safetensors::load(checkpoint::file(&folder), &Device::Cpu);
    let saved = saved.expect("a checkpoint");
    assert!(!saved.contains_key("text_model.encoder.layers.0.mlp.fc1.weight"));
    let mut adapted = 0;
    for (name, old) in &before {
        let new = &after[name];
        let moved = name == "logit_scale"
            || ["q_proj", "v_proj"]
                .iter()
                .any(|target| name.ends_with(&format!("self_attn.{target}.weight")));
        if moved && name != "logit_scale" {
            adapted += 1;
            let part = |which: &str| &saved[&format!("{name}.lora_{which}")];
            let sum = part("b").matmul(part("a")).and_then(|ba| old + (ba * 3.0)?);
            assert!(difference(&sum.expect("a sum"), new) < 1e-6, "{name}");
        }
        let gap = old.flatten_all().and_then(|old| old - new.flatten_all()?);
        let gap = gap.and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
        assert_eq!(gap.expect("a gap") > 0.0, moved, "{name}");
    }
    assert!(adapted >= 4, "{adapted} maps of both towers");

    // The same towers with the sums made on the way.
    let form = Form::Differentiable {
        batch_statistics: false,
    };
    let towers = Network::new(&mut run.parameters, &run.network, form).expect("builds");
    let model = Model::load(&out).expect("loads");
    let ids = CAPTIONS.map(|text| model.tokenize(text).expect("encodes"));
    let pixels: Vec<_> = (0..8).map(|i| model.prepare(&decoded(i))).collect();
    let (height, width) = (pixels[0].height(), pixels[0].width());
    let values: Vec<f32> = pixels.iter().flat_map(Pixels::as_slice).copied().collect();
    let pixels = Tensor::from_vec(values, (8, 3, height, width), &Device::Cpu).expect("fits");
    let texts = towers
        .text
        .pooled(&ids)
        .and_then(|x| towers.text.project(&x));
    let images = towers
        .image
        .pooled(&pixels)
        .and_then(|x| towers.image.project(&x));
    let source = embeddings(&Model::load(&from).expect("loads"));
    let mut moved = 0.0_f32;
    for ((unmerged, merged), old) in [texts, images]
        .into_iter()
        .zip(embeddings(&model))
        .zip(source)
    {
        let unmerged = unit_rows(&unmerged.expect("projects")).expect("unit rows");
        let unmerged = unmerged.to_vec2::<f32>().expect("rows");
        for ((row, merged), old) in unmerged.into_iter().zip(merged).zip(old) {
            let row = Embedding::normalized(row).expect("a unit row");
            assert!(gap(&row, &merged.shared) < 1e-5);
            moved = moved.max(gap(&row, &old.shared));
        }
    }
    assert!(moved > 1e-3, "nothing was learned: {moved}");
}

#[test]
fn what_is_frozen_stands_still_and_a_resumed_run_is_the_same_run() {
    let data = tempfile::tempdir().expect("data");
    let from = reference("gelu_named_eos");
    let freeze = "freeze = [\"image\", \"*.token_embedding.weight\"]";
    let config = config(data.path(), &from, freeze, "accumulate = 2");
    let (whole, parts) = (data.path().join("whole"), data.path().join("parts"));
    let (run, expected) = trained(&config, &whole, 6);
    let (_, mut seen) = trained(&config, &parts, 2);
    seen.extend(trained(&config, &parts, 6).1);
    let losses = |all: &[StepReport]| all.iter().map(|r| r.loss).collect::<Vec<_>>();
    assert_eq!(losses(&seen), losses(&expected));
    let state = |folder: &Path| fs::read(checkpoint::file(folder)).expect("a checkpoint");
    assert!(state(&whole) == state(&parts), "states differ");
    let (before, after) = (weights(&from), weights(&exported(&run, data.path())));
    for (name, old) in &before {
        let still = name.starts_with("vis") || name.ends_with("token_embedding.weight");
        // Softmax does not see what is added to all keys alike.
        let unseen = name.ends_with("k_proj.bias") || name.ends_with("position_ids");
        if old.dtype() == candle_core::DType::F32 && !unseen {
            let gap = difference(
                &old.flatten_all().expect("flat"),
                &after[name].flatten_all().expect("flat"),
            );
            assert_eq!(gap > 0.0, !still, "{name}: {gap}");
        }
    }
}

#[test]
fn a_layer_moves_slower_the_more_layers_are_above_it() {
    let data = tempfile::tempdir().expect("data");
    let from = reference("quick_gelu_legacy_eos");
    let config = config(data.path(), &from, "layer_decay = 0.5", "");
    let (run, _) = trained(&config, &data.path().join("run"), 1);
    let (before, after) = (weights(&from), weights(&exported(&run, data.path())));
    let layers = run.network.text.transformer.layers;
    // The first step of Adam is as long as the rate, wherever the gradient is not tiny.
    let step = |name: &str| difference(&before[name], &after[name]);
    let fc1 = |layer: usize| format!("text_model.encoder.layers.{layer}.mlp.fc1.weight");
    for layer in 0..layers {
        let expected = 1e-3 * 0.5_f32.powi((layers - 1 - layer) as i32);
        let moved = step(&fc1(layer));
        assert!((moved / expected - 1.0).abs() < 0.02, "{layer}: {moved}");
    }
    let moved = step("text_model.embeddings.position_embedding.weight");
    let expected = 1e-3 * 0.5_f32.powi(layers as i32);
    assert!((moved / expected - 1.0).abs() < 0.02, "embeddings: {moved}");
    let moved = step("text_projection.weight");
    assert!((moved / 1e-3 - 1.0).abs() < 0.02, "the projection: {moved}");
}

#[test]
fn what_cannot_be_tuned_is_refused_in_words() {
    let data = tempfile::tempdir().expect("data");
    let refused = |from: &str, model: &str| {
        let config = config(data.path(), &reference(from), model, "");
        let pairs = Data::read(&config.data).expect("reads");
        let folder = data.path().join("run");
        let refused = Run::open(&config, pairs, &folder, &Device::Cpu).err();
        refused.expect("is refused").to_string()
    };
    for (from, model, says) in [
        ("siglip", "", "sigmoid loss"),
        ("open_clip_custom", "", "sigmoid loss"),
        ("siglip2_naflex", "", "not trained further"),
        ("clip_interpolated", "", "of one size, image_size"),
        (
            "../../../encoders/builtin",
            "specific = true",
            "without `model.specific` the folder's is kept",
        ),
        (
            "gelu_named_eos",
            "freeze = [\"towr\"]",
            "\"towr\" names no tensor",
        ),
        (
            "gelu_named_eos",
            "freeze = [\"image\", \"text\"]\nlora = { rank = 2, alpha = 2.0 }",
            "no attention that is not frozen",
        ),
    ] {
        let message = refused(from, model);
        assert!(message.contains(says), "{from}: {message}");
    }
}

/// A run that went on with other weights than it began with would not be the run that it says it is.
#[test]
fn a_run_goes_on_with_the_model_that_it_began_with_alone() {
    let data = tempfile::tempdir().expect("data");
    let from = data.path().join("from");
    fs::create_dir_all(&from).expect("a folder");
    let copy = |name: &str| {
        for entry in fs::read_dir(reference(name)).expect("is there") {
            let entry = entry.expect("is listed");
            fs::copy(entry.path(), from.join(entry.file_name())).expect("copies");
        }
    };
    copy("quick_gelu_legacy_eos");
    let config = config(data.path(), &from, "freeze = [\"image\"]", "");
    let folder = data.path().join("run");
    trained(&config, &folder, 1);
    let out = exported(&open(&config, &folder), data.path());
    fs::copy(
        out.join("model.safetensors"),
        from.join("model.safetensors"),
    )
    .expect("copies");
    let pairs = Data::read(&config.data).expect("reads");
    let refused = Run::open(&config, pairs, &folder, &Device::Cpu).err();
    let message = refused.expect("is refused").to_string();
    assert!(message.contains("began with another model"), "{message}");
}
