//! A run on pairs of a user as a whole: from shards with damage in them to recall, the same with an
//! interruption as without.

use std::path::Path;

use candle_core::Device;
use encoders::RgbaPicture;
use fs_err as fs;
use training::{
    checkpoint,
    config::{ImageSection, RunConfig, StopConfig},
    data::Data,
    fit::{Run, StepReport},
};

const SIDE: u32 = 24;

/// Blocks of a color, at one of four places.
fn picture(color: [u8; 3], place: u32) -> RgbaPicture {
    let pixel = |i: u32| {
        let (x, y) = (i % SIDE, i / SIDE);
        let inside = match place {
            0 => y < 8,
            1 => y > 15,
            2 => x < 8,
            _ => x > 15,
        };
        let [r, g, b] = if inside { color } else { [255; 3] };
        [r, g, b, 255]
    };
    let rgba = (0..SIDE * SIDE).flat_map(pixel).collect();
    RgbaPicture::new(SIDE, SIDE, rgba).expect("sizes fit")
}

/// Two shards of 24 pictures with two captions each; one picture is damaged.
fn shards(folder: &Path) {
    const COLORS: [(&str, [u8; 3]); 6] = [
        ("red", [230, 30, 30]),
        ("green", [30, 180, 40]),
        ("blue", [30, 60, 230]),
        ("black", [10, 10, 10]),
        ("purple", [150, 40, 200]),
        ("gray", [140, 140, 140]),
    ];
    const PLACES: [&str; 4] = ["roof", "floor", "door", "wall"];
    let mut shards = [0, 1].map(|_| tar::Builder::new(Vec::new()));
    for (i, (color, rgb)) in COLORS.iter().enumerate() {
        for (place, word) in PLACES.iter().enumerate() {
            let number = 4 * i + place;
            let png = if number == 5 {
                b"damaged".to_vec()
            } else {
                picture(*rgb, place as u32).to_png()
            };
            let captions = [
                format!("a {color} {word}"),
                format!("the {word} is {color}"),
            ];
            let json = serde_json::json!({ "caption": captions }).to_string();
            for (ending, contents) in [("png", png), ("json", json.into_bytes())] {
                let mut header = tar::Header::new_gnu();
                header.set_size(contents.len() as u64);
                header.set_mode(0o644);
                let name = format!("{number:04}.{ending}");
                let shard = &mut shards[number % 2];
                let added = shard.append_data(&mut header, name, contents.as_slice());
                added.expect("a member");
            }
        }
    }
    for (i, shard) in shards.into_iter().enumerate() {
        let bytes = shard.into_inner().expect("whole");
        fs::write(folder.join(format!("{i:03}.tar")), bytes).expect("written");
    }
}

fn config(folder: &Path, steps: usize) -> RunConfig {
    let shards = folder.join("{000..001}.tar");
    let shards = shards.display();
    let text = format!(
        r#"
seed = 4

[data]
pairs = '{shards}'
validation = '{shards}'
unreadable_share = 0.5

[model]
name = "toy"
dim = 16

[model.image]
kind = "residual"
image_size = 16
stem = [8]
stages = [8, 16]
blocks = 1
width = 24

[model.text]
vocabulary = 600
context_length = 16
width = 24
layers = 1
heads = 2

[optimizer]
batch = 12
steps = {steps}
warmup_steps = 5
learning_rate = 4e-3
logit_scale_factor = 3.0
weight_decay = 0.05
clip = 1.0
checkpoint_every = 1000
evaluate_every = 1000

[augment]
crop = [0.9, 1.0]
"#
    );
    let file = folder.join("run.toml");
    fs::write(&file, text).expect("written");
    RunConfig::read(&file).expect("a configuration")
}

fn run(config: &RunConfig, folder: &Path, until: usize) -> Vec<StepReport> {
    let data = Data::read(&config.data).expect("reads");
    let mut run = Run::open(config, data, folder, &Device::Cpu).expect("opens");
    let mut reports = Vec::new();
    run.train(folder, until, &mut |report| reports.push(report.clone()))
        .expect("trains");
    reports
}

/// All of a report but what is of the process: how fast it was, and its memory.
fn seen(reports: &[StepReport]) -> Vec<StepReport> {
    let one = |r: &StepReport| StepReport {
        samples_per_second: 0.0,
        memory_estimate: None,
        memory_peak: None,
        ..r.clone()
    };
    reports.iter().map(one).collect()
}

#[test]
fn a_resumed_run_on_damaged_shards_ends_in_the_bytes_of_an_uninterrupted_one() {
    let data = tempfile::tempdir().expect("data");
    shards(data.path());
    let config = config(data.path(), 8);
    let (whole, parts) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let expected = run(&config, whole.path(), 8);
    let mut resumed = run(&config, parts.path(), 3);
    resumed.extend(run(&config, parts.path(), 8));
    assert_eq!(seen(&resumed), seen(&expected));
    let state = |folder: &Path| fs::read(checkpoint::file(folder)).expect("a checkpoint");
    assert!(state(whole.path()) == state(parts.path()), "states differ");
    // Four epochs of two steps, and the evaluation at the end.
    let skipped: Vec<_> = expected.iter().flat_map(|r| &r.skipped).collect();
    assert!(skipped.len() >= 4, "{skipped:?}");
    assert!(
        skipped
            .iter()
            .all(|s| s.path.ends_with("001.tar, 0005.png"))
    );
    let metrics = fs::read_to_string(whole.path().join("metrics.jsonl")).expect("a file");
    assert!(metrics.contains("0005.png"), "the damage is in the metrics");
}

#[test]
fn pairs_of_shards_are_learned_and_both_ways_of_search_find_them() {
    let data = tempfile::tempdir().expect("data");
    shards(data.path());
    let config = config(data.path(), 150);
    let folder = tempfile::tempdir().expect("a run");
    let reports = run(&config, folder.path(), 150);
    let (first, last) = (&reports[0], reports.last().expect("a report"));
    assert!(
        last.loss < 0.5 && first.loss > 2.0,
        "{} to {}",
        first.loss,
        last.loss
    );
    let found = last.validation.as_ref().expect("recall");
    assert!(
        (found["pictures"] - 23.0).abs() < 1e-9,
        "one is damaged: {found:?}"
    );
    assert!((found["captions"] - 46.0).abs() < 1e-9, "{found:?}");
    for way in ["image", "text"] {
        assert!(
            found[&format!("{way}_retrieval_recall@1")] > 0.7,
            "{found:?}"
        );
        assert!(
            found[&format!("{way}_retrieval_recall@10")] > 0.95,
            "{found:?}"
        );
    }
}

/// A run that does not learn: the first evaluation is the best one, and the second brings nothing better.
#[test]
fn a_run_stops_when_nothing_better_comes_and_keeps_the_best_interrupted_or_not() {
    let data = tempfile::tempdir().expect("data");
    shards(data.path());
    let mut config = config(data.path(), 20);
    // Without statistics that move by themselves.
    config.model.image = Some(ImageSection::Vit {
        image_size: 16,
        patch_size: 4,
        width: 24,
        layers: 1,
        heads: 2,
    });
    config.optimizer.learning_rate = 1e-12;
    config.optimizer.evaluate_every = 2;
    config.stop = Some(StopConfig {
        metric: "text_retrieval_recall@5".to_owned(),
        patience: 2,
    });
    let (whole, parts) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let steps = |folder: &Path, until: usize| {
        let pairs = Data::read(&config.data).expect("reads");
        let mut run = Run::open(&config, pairs, folder, &Device::Cpu).expect("opens");
        let best = run.train(folder, until, &mut |_| ()).expect("trains");
        (run.step(), best.expect("an evaluation"))
    };
    let (step, best) = steps(whole.path(), 20);
    assert_eq!((step, best.step, best.stopped), (6, 2, true), "{best:?}");
    let (step, best) = steps(parts.path(), 5);
    assert_eq!((step, best.stopped), (5, false), "{best:?}");
    for _ in 0..2 {
        let (step, best) = steps(parts.path(), 20);
        assert_eq!((step, best.step, best.stopped), (6, 2, true), "{best:?}");
    }
    for folder in [whole.path(), parts.path()] {
        let best = Run::best(&config, folder, &Device::Cpu).expect("opens");
        assert_eq!(best.step(), 2);
    }
}
