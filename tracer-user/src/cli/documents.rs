//! Man pages and completions of shells, made from the command line itself. For packages.

use super::Cli;
use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use std::path::PathBuf;

/// Arguments of `documents`.
#[derive(Debug, clap::Args)]
pub struct DocumentsArgs {
    /// Where they are written.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Writes them.
pub fn run(args: &DocumentsArgs) -> Result<u8> {
    let named = || args.directory.display().to_string();
    std::fs::create_dir_all(&args.directory).with_context(named)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).with_context(named)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "memtrail", &args.directory).with_context(named)?;
    }
    Ok(0)
}
