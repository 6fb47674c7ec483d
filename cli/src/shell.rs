//! `diptych completions` and `diptych man`: what a shell and a manual want to know of the command line.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::CommandFactory as _;
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
        clap_mangen::generate_to(Cli::command(), dir)?;
        output::note(&format!("written to {}", dir.display()));
        return Ok(());
    }
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(io::stdout().lock().write_all(&page)?)
}
