//! Options of the commands that look after a server: keys, settings, shells and manuals.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use server::Role;

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What is done with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, this once
    Add(KeyAddArgs),
    /// List the keys, without what would let anybody in
    List(KeyListArgs),
    /// Remove a key
    Remove(KeyRemoveArgs),
}

/// Options of `key add`.
#[derive(Debug, Args)]
pub struct KeyAddArgs {
    /// Whom or what it is for: a-z, 0-9, _ and -
    pub name: String,
    /// What it may do; each role may do all that those before it may
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// A collection that it may see; may be given again [default: all]
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Search, classify, embed, read.
    Read,
    /// Add, change and delete items, too.
    Write,
    /// Everything.
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Read => Self::Read,
            RoleArg::Write => Self::Write,
            RoleArg::Admin => Self::Admin,
        }
    }
}

/// Options of `key list`.
#[derive(Debug, Args)]
pub struct KeyListArgs {
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `key remove`.
#[derive(Debug, Args)]
pub struct KeyRemoveArgs {
    /// Its name
    pub name: String,
}

/// What is done with settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with a file of settings, the environment and what they name, if anything
    Check(ConfigCheckArgs),
    /// Print every setting with its value, and where that comes from
    Show,
}

/// Options of `config check`.
#[derive(Debug, Args)]
pub struct ConfigCheckArgs {
    /// The file [default: that of --config]
    pub file: Option<PathBuf>,
}
