//! The memtrail binary: parses the command line and runs the verb.

use clap::Parser as _;
use memtrail::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(cli::run(cli)),
        Err(error) => ExitCode::from(cli::status::usage(&error)),
    }
}
