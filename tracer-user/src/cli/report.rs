//! `memtrail report`: any view or format of a recording.

use crate::{
    glob::Glob,
    output::{self, Value, views},
    recording, units,
};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::{io::Write as _, path::PathBuf};

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The recording; one that is still being written shows its last whole snapshot.
    #[arg(value_name = "FILE.mtrail")]
    pub file: PathBuf,
    /// What to show; without it, the summary.
    #[arg(long, value_enum)]
    pub view: Option<View>,
    /// Only these cgroups. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only these kinds: anon, file, shmem, hugetlb. May be given again.
    #[arg(long, value_name = "KIND", value_parser = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap"])]
    pub kind: Vec<String>,
    /// Which bytes: live or charged.
    #[arg(long, default_value_t = Value::Live)]
    pub value: Value,
    /// Most rows.
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Write a report instead; the ending chooses the format: .folded .svg .json. May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail report run.mtrail                             the summary again
  memtrail report run.mtrail --view cgroups              the ledger of each cgroup
  memtrail report run.mtrail --view stacks --kind anon   stacks of anonymous memory
  memtrail report run.mtrail --view regions              heaps, arenas, thread stacks, files' copies
  memtrail report run.mtrail --value charged -o out.svg  a flame graph of all charges";

/// Views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Cgroups with the ledger of each kind.
    Cgroups,
    /// Stacks of all cgroups, whole.
    Stacks,
    /// What anonymous memory is for, by process; malloc's arenas.
    Regions,
}

/// Shows a recording.
pub fn run(args: &ReportArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file)?;
    }
    let recording = recording::read(&args.file)?;
    if recording.truncated {
        eprintln!("memtrail: {}: the last frame is cut: showing what is whole", args.file.display());
    }
    let Some(report) = recording.report else {
        let seconds = recording.intervals.last().map_or(0.0, |interval| interval.at_s);
        bail!(
            "{}: it holds {} of readings and no snapshot yet: nothing to show",
            args.file.display(),
            units::seconds(seconds).unwrap_or_else(|| "no time".to_owned())
        );
    };
    let selection = views::Selection { cgroups: args.cgroup.clone(), kinds: args.kind.clone(), value: args.value, top: args.top };
    let selected = selection.apply(&report);
    for file in &args.output {
        output::write(file, &selected, output::WriteOptions { value: args.value, ..Default::default() })?;
    }
    if !args.output.is_empty() {
        return Ok(0);
    }
    let text = match args.view {
        None => output::summary::render(&selected, output::summary::Options { top: args.top.unwrap_or(10), ..Default::default() }),
        Some(View::Cgroups) => views::cgroups(&report, &selection),
        Some(View::Stacks) => views::stacks(&report, &selection),
        Some(View::Regions) => output::regions::render(&report, &selection),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}
