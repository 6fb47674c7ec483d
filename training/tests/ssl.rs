//! Adapting an image tower to pictures without labels, on pictures that the tests make themselves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::Device;
use encoders::{Card, Model, RgbaPicture, Stored};
use training::{
    TrainingError, checkpoint,
    config::RunConfig,
    export::export,
    fit::Run,
    manifest::{Concept, Dataset},
    ssl::{SslConfig, SslReport, SslRun},
};

const SIDE: usize = 24;

/// One of two kinds of drawings: discs and stripes, in colors, sizes and places of their own.
fn drawing(kind: usize, i: usize) -> RgbaPicture {
    let level = |k: usize| (60 + (i * 53 + k * 97) % 190) as u8;
    let (ink, paper) = (
        [level(0), level(1), level(2)],
        [level(3), level(4), level(5)],
    );
    let (cx, cy, r) = (8 + i % 8, 8 + i / 3 % 8, 4 + i % 4);
    let inside = |x: usize, y: usize| match kind {
        0 => x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < r * r,
        _ => (x + i) % (4 + i % 3) < 2,
    };
    let pixel = |at: usize| {
        let [r, g, b] = if inside(at % SIDE, at / SIDE) {
            ink
        } else {
            paper
        };
        [r, g, b, 255]
    };
    let rgba = (0..SIDE * SIDE).flat_map(pixel).collect();
    RgbaPicture::new(SIDE as u32, SIDE as u32, rgba).expect("sizes fit")
}

/// A folder for each kind, with `count` drawings each, and what cannot be read.
fn gallery(folder: &Path, count: usize) -> PathBuf {
    let gallery = folder.join("pictures");
    for (kind, name) in ["round_disc", "stripes"].iter().enumerate() {
        let of_kind = gallery.join(name);
        std::fs::create_dir_all(&of_kind).expect("makes");
        for i in 0..count {
            let file = of_kind.join(format!("{i:03}.png"));
            std::fs::write(file, drawing(kind, i).to_png()).expect("writes");
        }
    }
    std::fs::write(gallery.join("broken.png"), b"\x89PNG\r\n\x1a\n and no more").expect("writes");
    gallery
}

/// A small tower from nothing, with hard negatives, averages and a probe.
fn from_nothing(gallery: &Path) -> String {
    let gallery = toml::Value::from(gallery.display().to_string());
    format!(
        "seed = 3\n\
         [data]\nfolders = [{gallery}]\n\
         [model.image]\nkind = \"residual\"\nimage_size = 16\nstem = [8]\nstages = [8, 16]\n\
         blocks = 1\nwidth = 24\n\
         [contrast]\ndim = 16\nqueue = 64\nhard_negatives = 48\n\
         [probe]\nfolder = {gallery}\nshots = 4\ntests = 12\n{}",
        optimizer(16, 60, 4e-3)
    )
}

/// The built-in model, or one of a folder.
fn adapting(gallery: &Path, from: Option<&Path>, anchor: f64) -> String {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string());
    let from = from.map_or_else(String::new, |from| {
        format!("[model]\nfrom = {}\n", quoted(from))
    });
    format!(
        "seed = 3\n[data]\nfolders = [{0}]\n{from}[contrast]\nqueue = 64\nanchor = {anchor}\n\
         [probe]\nfolder = {0}\nshots = 4\ntests = 4\n{1}",
        quoted(gallery),
        optimizer(8, 6, 1e-3)
    )
}

fn optimizer(batch: usize, steps: usize, rate: f64) -> String {
    format!(
        "[optimizer]\nbatch = {batch}\nsteps = {steps}\nwarmup_steps = 2\nlearning_rate = {rate}\n\
         weight_decay = 0.05\nclip = 1.0\ncheckpoint_every = 1000\nevaluate_every = 1000\n"
    )
}

fn config(folder: &Path, toml: &str) -> SslConfig {
    let file = folder.join("ssl.toml");
    std::fs::write(&file, toml).expect("writes");
    SslConfig::read(&file).expect("a usable configuration")
}

fn open(config: &SslConfig, folder: &Path) -> Result<SslRun, TrainingError> {
    SslRun::open(config, folder, &Device::Cpu)
}

fn train(config: &SslConfig, folder: &Path, until: usize) -> (SslRun, Vec<SslReport>) {
    let mut run = open(config, folder).expect("opens");
    let mut reports = Vec::new();
    run.train(folder, until, &mut |report| reports.push(report.clone()))
        .expect("trains");
    (run, reports)
}

fn refusal(config: &SslConfig, folder: &Path) -> String {
    open(config, folder).err().expect("is refused").to_string()
}

#[test]
fn a_tower_from_nothing_learns_and_what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 24);
    let config = config(folder.path(), &from_nothing(&gallery));
    let run_folder = folder.path().join("run");
    let (run, reports) = train(&config, &run_folder, 60);
    assert_eq!(run.pictures(), 48);
    assert_eq!(run.skipped.len(), 1, "{:?}", run.skipped);
    let list = std::fs::read_to_string(run_folder.join("skipped.tsv")).expect("a list");
    assert!(
        list.contains("broken.png\t") && list.contains("PNG"),
        "{list}"
    );

    let mean =
        |part: &[SslReport]| part.iter().map(|r| r.contrast).sum::<f32>() / part.len() as f32;
    // The bank holds random keys for its first four batches, which are easy to tell apart.
    let (early, late) = (mean(&reports[5..15]), mean(&reports[50..]));
    assert!(late < early - 0.3, "contrast {early} to {late}");
    let measured = reports[59].measured.as_ref().expect("measured at the end");
    assert!(reports[..59].iter().all(|r| r.measured.is_none()));
    let probe = measured.probe.as_ref().expect("a probe");
    // Twelve of each kind are tested.
    let right = probe.linear_features * 24.0;
    assert!((right - right.round()).abs() < 1e-9, "{probe:?}");
    assert!(run.before.probe.is_some() && run.before != *measured);
    assert!(probe.zero_shot.is_none() && measured.cosine_to_original.is_none());

    let metrics = std::fs::read_to_string(run_folder.join("metrics.jsonl")).expect("metrics");
    let lines: Vec<serde_json::Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .collect();
    assert_eq!(lines.len(), 61);
    for line in [&lines[0], &lines[60]] {
        assert!(
            line["measured"]["probe"]["linear_features"].is_f64(),
            "{line}"
        );
    }
    let loss = std::fs::read_to_string(run_folder.join("loss.svg")).expect("a plot");
    assert!(loss.contains("loss in nats"));
    let refused = run.export(&folder.path().join("model")).err();
    let message = refused.expect("is refused").to_string();
    assert!(message.contains("no text tower"), "{message}");
}

#[test]
fn a_resumed_run_ends_in_the_bytes_of_an_uninterrupted_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 12);
    let mut nothing = config(folder.path(), &from_nothing(&gallery));
    nothing.optimizer.average = 0.5;
    let anchored = config(folder.path(), &adapting(&gallery, None, 2.0));
    for (name, config, first, until) in [("a", nothing, 5, 12), ("b", anchored, 1, 3)] {
        let [whole, parts] = ["whole", "parts"].map(|part| folder.path().join(name).join(part));
        let (_, expected) = train(&config, &whole, until);
        let (_, mut seen) = train(&config, &parts, first);
        // Less memory for copies changes nothing.
        let mut starved = config.clone();
        starved.data.memory_mib = 0;
        seen.extend(train(&starved, &parts, until).1);
        let losses = |reports: &[SslReport]| -> Vec<(usize, u32)> {
            reports.iter().map(|r| (r.step, r.loss.to_bits())).collect()
        };
        assert_eq!(losses(&seen), losses(&expected), "{name}");
        let state = |folder: &Path| std::fs::read(checkpoint::file(folder)).expect("a checkpoint");
        assert!(state(&whole) == state(&parts), "{name}: states differ");
    }
}

#[test]
fn an_adapted_model_is_exported_and_its_texts_stay_where_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 12);
    let config = config(folder.path(), &adapting(&gallery, None, 0.0));
    let (run, _) = train(&config, &folder.path().join("run"), 6);
    let before = run.before.cosine_to_original.expect("a shared space");
    assert!((before - 1.0).abs() < 1e-5, "{before}");
    assert!(
        run.before
            .probe
            .as_ref()
            .is_some_and(|p| p.zero_shot.is_some())
    );
    let out = folder.path().join("model");
    let measured = run.export(&out).expect("exports");
    let cosine = measured.cosine_to_original.expect("a shared space");
    assert!(cosine < 0.999, "the tower has moved: {cosine}");

    let (builtin, adapted) = (
        Model::builtin().expect("loads"),
        Model::load(&out).expect("loads"),
    );
    assert_eq!(adapted.info().name, "diptych-mini-adapted");
    let says = adapted.info().description.clone().expect("a description");
    assert!(
        says.contains("adapted to 24 unlabeled pictures in 6 steps"),
        "{says}"
    );
    assert_ne!(builtin.spaces().fingerprint, adapted.spaces().fingerprint);
    let texts = ["a red disc".to_owned()];
    let texts = [&builtin, &adapted].map(|m| m.text().encode(&texts).expect("encodes"));
    assert_eq!(texts[0][0].shared.as_slice(), texts[1][0].shared.as_slice());

    // The folder serves what was measured: the same mean cosine, within 16 bits per weight.
    let shown = &gallery;
    let files: Vec<PathBuf> = ["round_disc", "stripes"]
        .iter()
        .flat_map(|kind| (0..12).map(move |i| shown.join(kind).join(format!("{i:03}.png"))))
        .collect();
    let encoded = [&builtin, &adapted].map(|model| {
        let pixels = files.iter().map(|file| {
            let bytes = std::fs::read(file).expect("reads");
            let picture = encoders::decode(&bytes, &encoders::DecodeLimits::default());
            model.prepare(&picture.expect("decodes"))
        });
        model
            .image()
            .encode(&pixels.collect::<Vec<_>>())
            .expect("encodes")
    });
    let pairs = encoded[0].iter().zip(&encoded[1]);
    let served: f64 = pairs
        .map(|(a, b)| f64::from(a.shared.cosine(&b.shared)))
        .sum();
    let served = served / files.len() as f64;
    assert!(
        (served - cosine).abs() < 2e-3,
        "{served} served, {cosine} measured"
    );
}

#[test]
fn an_anchor_keeps_embeddings_nearer_to_where_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 12);
    let cosine = |anchor: f64| {
        let longer = adapting(&gallery, None, anchor).replace("steps = 6", "steps = 18");
        let config = config(folder.path(), &longer);
        let run = folder.path().join(format!("run-{anchor}"));
        let (_, reports) = train(&config, &run, 18);
        let last = reports.last().and_then(|r| r.measured.clone());
        assert_eq!(reports[0].anchor.is_some(), anchor > 0.0);
        last.and_then(|m| m.cosine_to_original).expect("measured")
    };
    let (free, held) = (cosine(0.0), cosine(30.0));
    assert!(
        held > free + 0.02,
        "{free} without an anchor, {held} with one"
    );
}

/// A folder with a small vision transformer, made by the trainer of both towers.
fn vit_folder(folder: &Path) -> PathBuf {
    let recipe = include_str!("../recipes/mini/mini.toml");
    let from = recipe.find("kind =").expect("an image tower");
    let to = recipe.find("[model.text]").expect("a text tower");
    let vit =
        "kind = \"vit\"\nimage_size = 16\npatch_size = 4\nwidth = 24\nlayers = 2\nheads = 2\n";
    let mut config: RunConfig =
        toml::from_str(&recipe.replace(&recipe[from..to], vit)).expect("parses");
    config.optimizer.batch = 4;
    if let Some(text) = &mut config.model.text {
        text.vocabulary = 600;
    }
    let concept = |i: usize| Concept {
        key: format!("{i}"),
        name: format!("drawing {i}"),
        tags: vec!["drawn".to_owned()],
        skin_tone: false,
        translations: BTreeMap::new(),
        pictures: vec![(drawing(i % 2, i), 1.0)],
    };
    let dataset = Dataset {
        training: (0..6).map(concept).collect(),
        ..Dataset::default()
    };
    let run = Run::open(&config, dataset, &folder.join("none"), &Device::Cpu).expect("opens");
    let out = folder.join("vit");
    let card = Card {
        name: "tiny-vit".to_owned(),
        ..Card::default()
    };
    export(&run, None, (card, Stored::F32), &out).expect("exports");
    out
}

#[test]
fn a_vision_transformer_of_a_folder_is_adapted_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 12);
    let vit = vit_folder(folder.path());
    let mut config = config(folder.path(), &adapting(&gallery, Some(&vit), 1.0));
    config.model.name = Some("ours".to_owned());
    let (run, reports) = train(&config, &folder.path().join("run"), 6);
    assert!(reports.iter().all(|r| r.anchor.is_some()));
    let refused = run.export(&vit).expect_err("is refused").to_string();
    assert!(refused.contains("was read from"), "{refused}");
    let out = folder.path().join("model");
    run.export(&out).expect("exports");
    let (old, new) = (
        Model::load(&vit).expect("loads"),
        Model::load(&out).expect("loads"),
    );
    assert_eq!(new.info().name, "ours");
    assert_eq!(new.info().family, "clip");
    let texts = ["drawing 1".to_owned()];
    let texts = [&old, &new].map(|m| m.text().encode(&texts).expect("encodes"));
    assert_eq!(texts[0][0].shared.as_slice(), texts[1][0].shared.as_slice());
}

/// Those that `fit` does not take: of the sigmoid loss, in either form, and of pictures of another size
/// than the positions were learned for.
#[test]
fn towers_of_every_form_but_naflex_are_adapted() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 12);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    // Its positions were learned for 24 by 24 pixels, and it sees what is no square.
    let square = folder.path().join("square");
    std::fs::create_dir_all(&square).expect("makes");
    for entry in std::fs::read_dir(data.join("clip_interpolated")).expect("is there") {
        let entry = entry.expect("is listed");
        std::fs::copy(entry.path(), square.join(entry.file_name())).expect("copies");
    }
    let file = square.join("preprocessor_config.json");
    let contents = std::fs::read(&file).expect("is there");
    let mut json: serde_json::Value = serde_json::from_slice(&contents).expect("JSON");
    json["size"] = serde_json::json!({ "height": 32, "width": 32 });
    std::fs::write(&file, json.to_string()).expect("writes");
    for (name, from) in [
        ("siglip", data.join("siglip")),
        ("open_clip", data.join("open_clip_custom")),
        ("interpolated", square),
    ] {
        let config = config(folder.path(), &adapting(&gallery, Some(&from), 1.0));
        let (run, _) = train(&config, &folder.path().join(name), 2);
        let out = folder.path().join(format!("{name}-adapted"));
        run.export(&out).expect("exports");
        let [old, new] = [&from, &out].map(|folder| Model::load(folder).expect("loads"));
        let texts = ["drawing 1".to_owned()];
        let texts = [&old, &new].map(|m| m.text().encode(&texts).expect("encodes"));
        let shared = texts.map(|rows| rows[0].shared.as_slice().to_vec());
        assert_eq!(shared[0], shared[1], "{name}");
        let picture = std::fs::read(gallery.join("stripes/001.png")).expect("is there");
        let picture = encoders::decode(&picture, &encoders::DecodeLimits::default());
        let picture = picture.expect("decodes");
        let images = [&old, &new].map(|m| m.image().encode(&[m.prepare(&picture)]));
        let shared = images.map(|rows| rows.expect("encodes")[0].shared.as_slice().to_vec());
        assert_ne!(shared[0], shared[1], "{name}");
    }
    let config = config(
        folder.path(),
        &adapting(&gallery, Some(&data.join("siglip2_naflex")), 1.0),
    );
    let message = refusal(&config, &folder.path().join("naflex"));
    assert!(message.contains("NaFlex"), "{message}");
}

#[test]
fn what_a_run_cannot_work_with_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let gallery = gallery(folder.path(), 10);
    let run = folder.path().join("run");
    let good = config(folder.path(), &from_nothing(&gallery));

    let mut few = good.clone();
    few.optimizer.batch = 32;
    let message = refusal(&few, &run);
    for part in ["20 pictures", "(1 files cannot)", "needs 32"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let mut greedy = good.clone();
    greedy.probe.as_mut().expect("a probe").shots = 10;
    let message = refusal(&greedy, &run);
    assert!(
        message.contains("class round_disc has 10 pictures"),
        "{message}"
    );
    let mut flat = good.clone();
    flat.probe.as_mut().expect("a probe").folder = gallery.join("stripes");
    let message = refusal(&flat, &run);
    assert!(message.contains("0 folders of classes"), "{message}");
    let mut nowhere = good.clone();
    nowhere.data.folders = vec![gallery.join("nothing")];
    assert!(refusal(&nowhere, &run).contains("nothing"));
    let mut wild = good.clone();
    wild.optimizer.learning_rate = 1e30;
    let mut diverging = open(&wild, &run).expect("opens");
    let stopped = diverging.train(&run, 60, &mut |_| {});
    let message = stopped.expect_err("it diverges").to_string();
    assert!(message.contains("lower the learning rate"), "{message}");

    let run = folder.path().join("other");
    train(&good, &run, 1);
    let mut other = good.clone();
    other.seed += 1;
    assert!(refusal(&other, &run).contains("another configuration"));
    std::fs::remove_file(gallery.join("stripes/009.png")).expect("removes");
    let message = refusal(&good, &run);
    assert!(
        message.contains("learned from 20 pictures and 19"),
        "{message}"
    );
}
