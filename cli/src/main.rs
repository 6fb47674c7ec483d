//! The `diptych` binary.
//!
//! It is **not** where anything is decided about embeddings, search or HTTP: every command opens
//! what it needs, hands over to `encoders`, `engine` or `server`, and prints what comes back.

mod args;
mod classify;
mod config;
mod demo;
mod embed;
mod eval;
mod export;
mod gallery;
mod home;
mod import;
mod index;
mod inputs;
mod key;
mod model;
mod named;
mod output;
mod pipeline;
mod search;
mod serve;
mod settings;
mod shell;
mod snapshot;
mod telemetry;
mod walk;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Cli, Command, ModelCommand},
    settings::{LogFormat, LogSettings, Settings},
};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // `diptych search ... | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let what = console::style("error:").red().bold().for_stderr();
            output::note(&format!("{what} {}", output::chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let (mut places, command) = (cli.places, cli.command);
    // These need no settings, or say themselves what is wrong with them.
    let alone = match &command {
        Command::Config(command) => Some(config::run(&places, command)),
        Command::Completions(args) => Some(shell::completions(args)),
        Command::Man(args) => Some(shell::man(args)),
        _ => None,
    };
    if let Some(done) = alone {
        return done.map(|()| ExitCode::SUCCESS);
    }
    let mut layers = settings::read(places.config.as_deref())?;
    if let Command::Serve(args) = &command {
        serve::flags(&mut layers, args)?;
    }
    let settings: Settings = layers.settle()?;
    places.settle(&settings)?;
    log(&command, &settings.log)?;
    let places = &places;
    match &command {
        Command::Demo(args) => demo::run(places, args, &settings)?,
        Command::Serve(args) => serve::run(places, args, &settings)?,
        Command::Index(args) => return index::run(places, args),
        Command::Export(args) => export::run(places, args)?,
        Command::Import(args) => return import::run(places, args),
        Command::Search(args) => search::run(places, args)?,
        Command::Classify(args) => classify::run(places, args)?,
        Command::Embed(args) => embed::run(places, args)?,
        Command::Snapshot(command) => snapshot::run(places, command)?,
        Command::Eval(command) => eval::run(places, command)?,
        Command::Model(ModelCommand::Info(args)) => model::info(places, args)?,
        Command::Model(ModelCommand::Check(args)) => return model::check(places, args),
        Command::Openapi => output::line(server::openapi_json().trim_end())?,
        Command::Key(command) => key::run(places, command, &settings)?,
        Command::Config(_) | Command::Completions(_) | Command::Man(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs to standard error what `RUST_LOG` or the settings ask for, or else warnings, and of `serve`
/// every request.
fn log(command: &Command, settings: &LogSettings) -> Result<()> {
    let usual = match command {
        Command::Serve(_) => "warn,sled=off,server=info",
        // The store tells its failures in its results, too.
        _ => "warn,sled=off",
    };
    let filter = match settings.filter.as_str() {
        "" => EnvFilter::new(usual),
        filter => EnvFilter::try_new(filter).context("log.filter")?,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or(filter);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .init(),
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
