//! `diptych completions` and `diptych man`: what a shell and a manual want to know of the command line.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_complete::generate;
use clap_mangen::Man;

use crate::{
    args::{Cli, CompletionsArgs, ManArgs},
    output,
};

const NAME: &str = "diptych";

/// Prints a script that completes commands and options.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    // Written at once: clap panics where a pipe has ended.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

/// Prints the page of the manual, or writes a page for each command into a folder.
///
/// # Errors
/// When standard output or the folder cannot be written.
pub fn man(args: &ManArgs) -> Result<()> {
    if let Some(dir) = &args.dir {
        fs_err::create_dir_all(dir)?;
        let mut all = Cli::command().disable_help_subcommand(true);
        all.build();
        write_pages(all, dir)?;
        output::note(&format!("written to {}", dir.display()));
        return Ok(());
    }
    let mut page = Vec::new();
    page_of(Cli::command()).render(&mut page)?;
    Ok(io::stdout().lock().write_all(&page)?)
}

/// Writes the page of a command, and those of the commands below it.
fn write_pages(command: Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().cloned() {
        write_pages(below, dir)?;
    }
    page_of(command).generate_to(dir).map(drop)
}

/// A page that says which program it is of. Without a date, what comes after it would be taken for one.
fn page_of(command: Command) -> Man {
    Man::new(command)
        .date(" ")
        .source(concat!("diptych ", env!("CARGO_PKG_VERSION")))
        .manual("Diptych")
}
