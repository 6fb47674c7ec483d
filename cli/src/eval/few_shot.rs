//! `diptych eval few-shot`: classes told by a linear classifier that is learned from a few pictures.

use anyhow::{Result, bail};
use clap::ValueEnum;
use engine::{Draws, metrics::student};
use serde::Serialize;

use super::{
    judged,
    probe::{self, Data, Split},
    report::{self, Figure, Report},
};
use crate::{
    args::{FewShotArgs, Places},
    home, output,
};

#[derive(Debug, Serialize)]
struct FewShot {
    aspect: String,
    dim: usize,
    split: Split,
    draws: usize,
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
    let bar = output::progress("learning", wanted.len() * args.draws.get());
    let mut shots = Vec::with_capacity(wanted.len());
    for k in wanted {
        shots.push(measure(k, args, &data, &of_class, || bar.inc(1))?);
    }
    bar.finish_and_clear();
    let aspect = args.probe.aspect.to_possible_value();
    let details = FewShot {
        aspect: aspect.map_or_else(String::new, |value| value.get_name().to_owned()),
        dim: data.dim,
        split: data.split,
        draws: args.draws.get(),
        shots,
        skipped,
    };
    let facts = [
        ("drawn from", format!("{} pictures", data.split.train)),
        ("measured on", format!("{} pictures", data.split.test)),
        ("classes", data.labels.len().to_string()),
        ("aspect", details.aspect.clone()),
        ("draws", details.draws.to_string()),
    ];
    let folder = args.probe.data.folder.display().to_string();
    let mut report = Report::new("few-shot", folder, model.spaces(), options, details);
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
    data: &Data,
    of_class: &[Vec<usize>],
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
        let (fit, c, _) = data.learn(&part, args.probe.c, seed)?;
        accuracies.push(judged::accuracy(&data.judge(&fit)));
        all_c.push(c);
        done();
    }
    let (value, spread, interval) = student(&accuracies);
    Ok(Shots {
        k,
        acc1: Figure { value, interval },
        spread,
        accuracies,
        c: all_c,
    })
}
