//! The `diptych` binary.
//!
//! It is **not** where anything is decided about embeddings, search or HTTP: every command opens
//! what it needs, hands over to `encoders`, `engine` or `server`, and prints what comes back.

mod args;
mod classify;
mod demo;
mod embed;
mod eval;
mod export;
mod gallery;
mod home;
mod import;
mod index;
mod inputs;
mod model;
mod named;
mod output;
mod pipeline;
mod search;
mod serve;
mod snapshot;
mod walk;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, ModelCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(&cli.command);
    match run(&cli) {
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

fn run(cli: &Cli) -> Result<ExitCode> {
    let places = &cli.places;
    match &cli.command {
        Command::Demo(args) => demo::run(places, args)?,
        Command::Serve(args) => serve::run(places, args)?,
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
    }
    Ok(ExitCode::SUCCESS)
}

/// Logs to standard error what `RUST_LOG` asks for, or else warnings, and of `serve` every request.
fn log(command: &Command) {
    let usual = match command {
        Command::Serve(_) => "warn,sled=off,server=info",
        // The store tells its failures in its results, too.
        _ => "warn,sled=off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
