//! The memtrail binary: parses the command line and runs the verb.

use clap::Parser as _;
use memtrail::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run(Cli::parse()))
}
