//! `diptych-train`: prepares training pictures, trains, exports model folders.
#![allow(clippy::print_stdout)]

mod ssl_command;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use encoders::{Card, Place, Stored};
use fs_err as fs;
use indicatif::{ProgressBar, ProgressStyle};
use pairs::Skipped;
use training::{
    checkpoint,
    config::RunConfig,
    data::Data,
    distill::{DistillConfig, distill},
    experiment,
    export::{export, whitening},
    fit::Run,
    memory::amount,
    prepare::{PrepareConfig, Source, prepare},
};

/// Trains two-tower models.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn fetched drawings into training pictures and a manifest.
    Prepare {
        /// The folder that `recipes/mini/fetch.sh` filled.
        #[arg(long)]
        raw: PathBuf,
        /// Where pictures and manifest go.
        #[arg(long)]
        out: PathBuf,
        /// Take the share-alike styles instead of the permissive ones.
        #[arg(long)]
        share_alike: bool,
        /// Width and height of a picture in pixels.
        #[arg(long, default_value_t = 72)]
        side: u32,
    },
    /// Train, or go on where the run in the folder stopped.
    Fit {
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
        /// Begin even where a step seems to take more memory than is free.
        #[arg(long)]
        ignore_memory: bool,
        /// On a GPU, round the factors of matrix products to TF32 (10 bits behind the point), for its
        /// faster units.
        #[arg(long)]
        tf32: bool,
    },
    Ssl(ssl_command::Arguments),
    Export(ExportArguments),
    /// Make a smaller, faster text tower that can take the place of its teacher, or go on where the run
    /// in the folder stopped; behind the last step there is `student` in it, and `report.json`.
    Distill {
        /// The run's configuration (TOML).
        #[arg(long)]
        config: PathBuf,
        /// Folder of the run: checkpoint, metrics, student and report.
        #[arg(long)]
        run: PathBuf,
        /// Stop after this many steps in all, to go on later.
        #[arg(long)]
        until: Option<usize>,
    },
    /// Run an experiment on made-up data; fails where it does not show what it claims.
    Experiment {
        /// Which one.
        name: experiment::Name,
        /// Take seconds in place of minutes, with wider bounds.
        #[arg(long)]
        reduced: bool,
        /// For `memory-bank`: the handwritten digits that `recipes/digits/fetch.sh` fetches, as a control.
        #[arg(long, value_name = "FILE")]
        digits: Option<PathBuf>,
        /// Where its table and plot go.
        #[arg(long, default_value = "experiments")]
        out: PathBuf,
    },
}

/// Write the last checkpoint of a run as a model folder.
#[derive(clap::Args)]
struct ExportArguments {
    /// The run's configuration (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Folder of the run.
    #[arg(long)]
    run: PathBuf,
    /// The model folder to write.
    #[arg(long)]
    out: PathBuf,
    /// License of the weights, as an SPDX expression.
    #[arg(long)]
    license: Option<String>,
    /// A text file that says what the model is for; becomes part of the folder.
    #[arg(long)]
    description: Option<PathBuf>,
    /// Keep 32 bits per weight instead of 16.
    #[arg(long)]
    full_precision: bool,
    /// Put a learned whitening of the training pictures in the place of the specific projection of
    /// pictures: those of one thing by different hands then lie together. RIDGE is added to the variation
    /// within things in every direction, as a share of its mean; .03 is a good one.
    #[arg(long, value_name = "RIDGE")]
    whiten: Option<f64>,
    /// Numbers of whitened specific embeddings, at least as many as shared ones have [default: as many]
    #[arg(long, value_name = "DIM", requires = "whiten")]
    specific_dim: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Prepare {
            raw,
            out,
            share_alike,
            side,
        } => {
            let source = if share_alike {
                Source::ShareAlike
            } else {
                Source::Permissive
            };
            let report = prepare(&PrepareConfig {
                raw,
                out,
                source,
                side,
            })?;
            println!("{report:#?}");
            Ok(())
        }
        Command::Fit {
            config,
            run,
            until,
            device,
            ignore_memory,
            tf32,
        } => {
            candle_core::cuda::set_gemm_reduced_precision_f32(tf32);
            let config = RunConfig::read(&config)?;
            let data = Data::read(&config.data).context("reading the training pictures")?;
            println!("{}", data.describe());
            let mut trainer = Run::open(&config, data, &run, &device.open()?)?;
            trainer.ignore_memory = ignore_memory;
            fit(&mut trainer, &run, until.unwrap_or(config.optimizer.steps))
        }
        Command::Distill { config, run, until } => {
            let config = DistillConfig::read(&config)?;
            let until = until.unwrap_or(config.optimizer.steps);
            let bar = progress(until)?;
            let report = distill(&config, &run, until, &mut |report| {
                bar.set_position(report.step as u64);
                let rate = report.texts_per_second;
                bar.set_message(format!("loss {:.3}, {rate:.0} texts/s", report.loss));
            })?;
            bar.finish();
            if let Some(report) = report {
                print!("{report}");
            }
            Ok(())
        }
        Command::Ssl(arguments) => ssl_command::ssl(&arguments),
        Command::Experiment {
            name,
            reduced,
            digits,
            out,
        } => {
            let outcome = experiment::run(name, reduced, digits.as_deref(), &out)?;
            print!("{outcome}");
            anyhow::ensure!(outcome.passed(), "the figures do not show what is claimed");
            Ok(())
        }
        Command::Export(arguments) => export_run(arguments),
    }
}

/// Writes what a run has learned as a model folder.
fn export_run(arguments: ExportArguments) -> anyhow::Result<()> {
    let ExportArguments {
        config,
        run,
        out,
        license,
        description,
        full_precision,
        whiten,
        specific_dim,
    } = arguments;
    let config = RunConfig::read(&config)?;
    let has_checkpoint = checkpoint::file(&run).exists();
    anyhow::ensure!(has_checkpoint, "{} has no checkpoint", run.display());
    let trained = Run::best(&config, &run, &candle_core::Device::Cpu)?;
    let description = description.map(fs::read_to_string).transpose()?;
    let description = description.map(|d| d.trim().to_owned());
    let card = Card {
        name: config.model.name.clone(),
        license,
        description,
        ..Card::default()
    };
    let stored = if full_precision {
        Stored::F32
    } else {
        Stored::F16
    };
    let whitening = whiten.map(|ridge| {
        let positive = ridge.is_finite() && ridge >= 0.0;
        anyhow::ensure!(
            positive,
            "--whiten is {ridge}, expected a number of at least 0"
        );
        let data = Data::read(&config.data).context("reading the training pictures")?;
        anyhow::Ok(whitening(&trained, &data, ridge, specific_dim)?)
    });
    let whitening = whitening.transpose()?;
    export(&trained, whitening.as_ref(), (card, stored), &out)?;
    if let Some(whitening) = whitening {
        println!(
            "specific embeddings of pictures are whitened; mean squared product with shared ones {:.4}",
            whitening.overlap
        );
    }
    println!("step {} written to {}", trained.step(), out.display());
    Ok(())
}

fn fit(trainer: &mut Run, run: &Path, until: usize) -> anyhow::Result<()> {
    // Each picture is named once, however often it comes.
    let mut said = HashSet::new();
    let bar = progress(until)?;
    bar.set_position(trainer.step() as u64);
    bar.reset_eta();
    // A bar that is not shown, as in a log, would keep it to itself.
    let say = |line: String| bar.suspend(|| println!("{line}"));
    let mut recall = String::new();
    let best = trainer.train(run, until, &mut |report| {
        bar.set_position(report.step as u64);
        if let Some((name, value)) = report.recall() {
            recall = format!(", {name} {value:.3}");
        }
        let rate = report.samples_per_second;
        bar.set_message(format!(
            "loss {:.3}{recall}, {rate:.0} pairs/s",
            report.loss
        ));
        if let Some(estimate) = report.memory_estimate {
            say(format!("a step takes about {}", amount(estimate)));
        }
        if let Some(peak) = report.memory_peak {
            say(format!(
                "step {}: at most {} so far",
                report.step,
                amount(peak)
            ));
        }
        for Skipped { path, reason } in &report.skipped {
            if said.insert(path.clone()) {
                say(format!("step {}: left out {path}: {reason}", report.step));
            }
        }
        for (style, recall) in report.held_out.iter().flatten() {
            say(format!("step {} {style}: {recall:?}", report.step));
        }
        for (name, value) in report.validation.iter().flatten() {
            say(format!("step {} {name}: {value:.4}", report.step));
        }
    })?;
    bar.finish();
    if let Some(best) = best {
        let kept = "its weights are kept in best.safetensors and are what is exported";
        let (name, value, step) = (best.metric, best.value, best.step);
        println!("the best {name} is {value:.4}, of step {step}: {kept}");
        if best.stopped {
            println!("stopped early: nothing better came within stop.patience evaluations");
        }
    }
    Ok(())
}

/// A bar of so many steps.
fn progress(steps: usize) -> anyhow::Result<ProgressBar> {
    let template = "{bar:30} {pos}/{len} {eta} left {msg}";
    let style = ProgressStyle::with_template(template)?;
    Ok(ProgressBar::new(steps as u64).with_style(style))
}
