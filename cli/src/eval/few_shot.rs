//! `diptych eval few-shot`: classes told by a linear classifier that is learned from a few pictures.

use anyhow::{Result, bail};
use clap::ValueEnum;
use embedding::Modality;
use encoders::Model;
use engine::{
    Draws, Head, HeadAspect, Inputs, Lesson, Prompts, TeachOptions,
    metrics::{Interval, student},
    teach,
};
use serde::Serialize;

use super::{
    encode, judged,
    probe::{self, Data, Part, Split},
    report::{self, Figure, Report},
};
use crate::{
    args::{AspectArg, FewShotArgs, Places, StartArg},
    home, output,
};

#[derive(Debug, Serialize)]
struct FewShot {
    aspect: String,
    dim: usize,
    split: Split,
    draws: usize,
    /// `none` or `zero-shot`.
    start: String,
    /// Accuracy of the names alone, where weights are pulled towards them.
    zero_shot: Option<f64>,
    shots: Vec<Shots>,
    /// Numbers of pictures that some class does not have.
    skipped: Vec<usize>,
}

/// What was measured with so many pictures of each class.
#[derive(Debug, Serialize)]
struct Shots {
    k: usize,
    acc1: Figure,
    /// Standard deviation over the draws.
    spread: f64,
    /// `acc1` of each draw.
    accuracies: Vec<f64>,
    /// `C` of each draw.
    c: Vec<f64>,
}

/// Measures and prints.
///
/// # Errors
/// When the classes or the model cannot be used.
pub fn run(places: &Places, args: &FewShotArgs) -> Result<()> {
    let options = &args.probe.options;
    report::check(options)?;
    let model = home::model(places)?;
    let data = probe::load(&args.probe, &model)?;
    let mut wanted: Vec<usize> = args.shots.iter().map(|k| k.get()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut of_class = vec![Vec::new(); data.labels.len()];
    for (i, class) in data.train.of().iter().enumerate() {
        of_class[*class].push(i);
    }
    let least = of_class.iter().map(Vec::len).min().unwrap_or(0);
    let (wanted, skipped): (Vec<usize>, Vec<usize>) = wanted.into_iter().partition(|k| *k <= least);
    if wanted.is_empty() {
        bail!("a class has {least} pictures to learn from, expected at least {skipped:?}");
    }
    for k in &skipped {
        output::note(&format!(
            "not measured with {k} of each class: one has {least} pictures"
        ));
    }
    let words = match args.start {
        StartArg::None => None,
        StartArg::ZeroShot => Some(words(args, &data, &model)?),
    };
    let bar = output::progress("learning", wanted.len() * args.draws.get());
    let mut shots = Vec::with_capacity(wanted.len());
    for k in wanted {
        shots.push(measure(
            k,
            args,
            (&data, &of_class, words.as_ref()),
            || {
                bar.inc(1);
            },
        )?);
    }
    bar.finish_and_clear();
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let by_words = |words: &Words| {
        let judged = data.judge_by(|row| words.head.row_probabilities(row));
        judged::accuracy(&judged)
    };
    let details = FewShot {
        aspect: name(args.probe.aspect.to_possible_value()),
        dim: data.dim,
        split: data.split,
        draws: args.draws.get(),
        start: name(args.start.to_possible_value()),
        zero_shot: words.as_ref().map(by_words),
        shots,
        skipped,
    };
    let facts = [
        ("drawn from", format!("{} pictures", data.split.train)),
        ("measured on", format!("{} pictures", data.split.test)),
        ("classes", data.labels.len().to_string()),
        ("aspect", details.aspect.clone()),
        ("draws", details.draws.to_string()),
        ("start", details.start.clone()),
    ];
    let folder = args.probe.data.folder.display().to_string();
    let mut report = Report::new("few-shot", folder, model.spaces(), options, details);
    if let Some(value) = report.details.zero_shot {
        let interval = None;
        report
            .metrics
            .add("acc1_zero_shot".to_owned(), Figure { value, interval });
    }
    for shots in &report.details.shots {
        report
            .metrics
            .add(format!("acc1_{}_shot", shots.k), shots.acc1);
    }
    report.failed.clone_from(&data.failed);
    report.finish(options, &facts, |page| {
        let row = |shots: &Shots| {
            let join = |numbers: Vec<String>| numbers.join(", ");
            let percent = |x: &f64| format!("{:.1}", 100.0 * x);
            [
                shots.k.to_string(),
                percent(&shots.acc1.value),
                percent(&shots.spread),
                join(shots.accuracies.iter().map(percent).collect()),
                join(shots.c.iter().map(f64::to_string).collect()),
            ]
        };
        let rows: Vec<[String; 5]> = report.details.shots.iter().map(row).collect();
        let header = ["pictures of each class", "mean", "spread", "each draw", "C"];
        page.table("Accuracy in percent", header, &rows);
    })
}

/// Learns from `k` pictures of each class, several times. A draw with more pictures has those of the
/// same draw with fewer.
fn measure(
    k: usize,
    args: &FewShotArgs,
    (data, of_class, words): (&Data, &[Vec<usize>], Option<&Words>),
    done: impl Fn(),
) -> Result<Shots> {
    let seed = args.probe.options.seed;
    let (mut accuracies, mut all_c) = (Vec::new(), Vec::new());
    for draw in 0..args.draws.get() {
        let mut draws = Draws::new(&[seed, draw as u64]);
        let mut drawn = Vec::with_capacity(k * of_class.len());
        for rows in of_class {
            let mut rows = rows.clone();
            draws.shuffle(&mut rows);
            drawn.extend_from_slice(&rows[..k]);
        }
        let part = data.train.part(&drawn, data.dim);
        let (judged, c) = if let Some(words) = words {
            let (head, c) = words.teach(&part, data, args.probe.c, seed)?;
            (data.judge_by(|row| head.row_probabilities(row)), c)
        } else {
            let (fit, c, _) = data.learn(&part, args.probe.c, seed)?;
            (data.judge(&fit), c)
        };
        accuracies.push(judged::accuracy(&judged));
        all_c.push(c);
        done();
    }
    let (value, spread, interval) = student(&accuracies);
    // Student's distribution does not know that no accuracy is beyond these.
    let interval = interval.map(|Interval { low, high }| Interval {
        low: low.max(0.0),
        high: high.min(1.0),
    });
    Ok(Shots {
        k,
        acc1: Figure { value, interval },
        spread,
        accuracies,
        c: all_c,
    })
}

/// The classifier that the names of the classes make.
struct Words {
    inputs: Inputs,
    head: Head,
}

fn words(args: &FewShotArgs, data: &Data, model: &Model) -> Result<Words> {
    if args.probe.aspect != AspectArg::Shared {
        bail!("names are only in the shared space: use --aspect shared with --start zero-shot");
    }
    let prompts = Prompts::new(data.labels.clone(), None)?;
    let texts = encode::texts("encoding names", prompts.texts(), model)?;
    let inputs = Inputs::of(model.spaces(), HeadAspect::Shared, Some(Modality::Image))?;
    let head = prompts.head(model.spaces().shared(), &texts, model.scoring())?;
    Ok(Words { inputs, head })
}

impl Words {
    /// Learns from `part`, pulled towards the names. Gives the `C`, too.
    fn teach(&self, part: &Part, data: &Data, c: Option<f64>, seed: u64) -> Result<(Head, f64)> {
        let of: Vec<Vec<usize>> = part.of().iter().map(|class| vec![*class]).collect();
        let lesson = Lesson {
            inputs: &self.inputs,
            labels: &data.labels,
            rows: part.rows(),
            of: &of,
            zero_shot: Some(&self.head),
        };
        let options = TeachOptions {
            multi_label: false,
            balance: false,
            regularization: c.map(|c| 1.0 / c),
            from_zero_shot: true,
            blend: 0.0,
            seed,
        };
        let taught = teach(&lesson, &options)?;
        Ok((taught.head, 1.0 / taught.regularization))
    }
}
