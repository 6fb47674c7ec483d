//! `diptych-train`: prepares training pictures, trains, exports model folders.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use training::{config::RunConfig, fit::Run, manifest::Dataset};

/// Trains two-tower models.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train, or go on where the run in the folder stopped.
    Fit {
        /// The run's configuration (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Folder of the run: checkpoints, tokenizer, metrics.
        #[arg(long)]
        run: PathBuf,
        /// Stop after this many steps in all, to go on later.
        #[arg(long)]
        until: Option<usize>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Fit { config, run, until } => {
            let config = RunConfig::read(&config)?;
            let dataset = Dataset::read(&config.data).context("reading the training pictures")?;
            let pictures: usize = dataset.training.iter().map(|c| c.pictures.len()).sum();
            println!("{pictures} pictures of {} concepts", dataset.training.len());
            let mut trainer = Run::open(&config, dataset, &run)?;
            let until = until.unwrap_or(config.optimizer.steps);
            let template = "{bar:30} {pos}/{len} {per_sec} {eta} left {msg}";
            let bar = ProgressBar::new(until as u64).with_style(ProgressStyle::with_template(template)?);
            bar.set_position(trainer.step() as u64);
            bar.reset_eta();
            trainer.train(&run, until, &mut |report| {
                bar.set_position(report.step as u64);
                let rate = report.samples_per_second;
                bar.set_message(format!("loss {:.3}, {rate:.0} pairs/s", report.loss));
                for (style, recall) in report.held_out.iter().flatten() {
                    bar.println(format!("step {} {style}: {recall:?}", report.step));
                }
            })?;
            bar.finish();
        }
    }
    Ok(())
}
