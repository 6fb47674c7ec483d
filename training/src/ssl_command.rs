//! `diptych-train ssl`.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use encoders::Place;
use indicatif::{ProgressBar, ProgressStyle};
use training::ssl::{SslConfig, SslRun, table};

/// Skipped files that are named on the screen.
const NAMED: usize = 10;

/// Adapt an image tower to pictures without labels, or go on where the run in the folder stopped.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run's configuration (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Folder of the run: checkpoint and metrics.
    #[arg(long)]
    run: PathBuf,
    /// Stop after this many steps in all, to go on later.
    #[arg(long)]
    until: Option<usize>,
    /// What computes: `cpu`, or `cuda` or `cuda:N` in a build with that feature.
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Write the adapted model to this folder at the end.
    #[arg(long)]
    export: Option<PathBuf>,
}

pub(crate) fn ssl(arguments: &Arguments) -> anyhow::Result<()> {
    let config = SslConfig::read(&arguments.config)?;
    let device = arguments.device.open()?;
    anyhow::ensure!(
        arguments.export.is_none() || config.model.image.is_none(),
        training::TrainingError::NoTextTower
    );
    println!("reading pictures");
    let mut run = SslRun::open(&config, &arguments.run, &device)?;
    println!("{} pictures", run.pictures());
    name_skipped(&run, &arguments.run);
    let until = arguments.until.unwrap_or(config.optimizer.steps);
    let template = "{bar:30} {pos}/{len} {eta} left {msg}";
    let bar = ProgressBar::new(until as u64).with_style(ProgressStyle::with_template(template)?);
    bar.set_position(run.step() as u64);
    bar.reset_eta();
    let before = run.before.clone();
    let mut last = None;
    run.train(&arguments.run, until, &mut |report| {
        bar.set_position(report.step as u64);
        let rate = report.samples_per_second;
        bar.set_message(format!("loss {:.3}, {rate:.0} pictures/s", report.loss));
        if let Some(measured) = &report.measured {
            bar.println(format!(
                "step {}\n{}",
                report.step,
                table(&before, measured)
            ));
        }
        last.clone_from(&report.measured);
    })?;
    bar.finish();
    let after = if let Some(folder) = &arguments.export {
        let after = run.export(folder)?;
        println!("step {} written to {}", run.step(), folder.display());
        after
    } else {
        match last {
            Some(measured) => measured,
            None => run.measure()?,
        }
    };
    println!("{}", table(&before, &after));
    Ok(())
}

fn name_skipped(run: &SslRun, folder: &Path) {
    let skipped = &run.skipped;
    if skipped.is_empty() {
        return;
    }
    println!("{} files cannot be used and are skipped:", skipped.len());
    for one in skipped.iter().take(NAMED) {
        println!("  {}: {}", one.file.display(), one.reason);
    }
    if skipped.len() > NAMED {
        let list = folder.join("skipped.tsv");
        println!(
            "  and {} more, see {}",
            skipped.len() - NAMED,
            list.display()
        );
    }
}
