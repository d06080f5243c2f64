//! `memtrail report`: any view or format of a recording.

use super::{moment, status::Conflict};
use crate::{
    glob::Glob,
    model::Report,
    output::{self, Value, views},
    recording, units,
};
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use std::{io::Write as _, path::PathBuf};

/// Kinds that can be selected.
pub(super) const KINDS: [&str; 7] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap"];

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
    #[arg(long, value_name = "KIND", value_parser = KINDS)]
    pub kind: Vec<String>,
    /// Which bytes: live, charged, or growth, the change of live bytes over the recording.
    #[arg(long, default_value_t = Value::Live)]
    pub value: Value,
    /// Split live bytes by thread: `comm/tid` for the process, with the thread's own name where known.
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// Most rows.
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Write a report instead; the ending chooses the format: .folded .svg .json .pb.gz. May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail report run.mtrail                             the summary again
  memtrail report run.mtrail --view cgroups              the ledger of each cgroup
  memtrail report run.mtrail --view stacks --kind anon   stacks of anonymous memory
  memtrail report run.mtrail --value charged -o out.svg  a flame graph of all charges
  memtrail report run.mtrail --by thread -o out.folded   live bytes by thread";

/// What stacks are split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Threads. Charged bytes that are freed again have none.
    Thread,
}

/// Views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Cgroups with the ledger of each kind.
    Cgroups,
    /// Stacks of all cgroups, whole.
    Stacks,
}

/// Shows a recording.
pub fn run(args: &ReportArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file)?;
    }
    check(args)?;
    let report = moment::last_report(&args.file, recording::read(&args.file)?)?;
    let value = args.value;
    let report = if value == Value::Growth { growth(&report) } else { report };
    let selection = views::Selection { cgroups: args.cgroup.clone(), kinds: args.kind.clone(), value: args.value, top: args.top };
    let mut selected = selection.apply(&report);
    if args.by == Some(By::Thread) {
        selected = output::threads::split(&selected).with_context(|| args.file.display().to_string())?;
    }
    for file in &args.output {
        output::write(file, &selected, output::WriteOptions { value: args.value, ..Default::default() })?;
    }
    if !args.output.is_empty() {
        return Ok(0);
    }
    let text = match args.view {
        None if value == Value::Growth => views::stacks(&selected, &selection),
        None => output::summary::render(&selected, output::summary::Options { top: args.top.unwrap_or(10), ..Default::default() }),
        Some(View::Cgroups) => views::cgroups(&report, &selection),
        Some(View::Stacks) => views::stacks(&selected, &selection),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}

/// The growth, with a word on what shrank, which no stack output can show.
fn growth(report: &Report) -> Report {
    let growth = output::growth::between(None, report, Value::Growth);
    if growth.shrunk > 0 {
        eprintln!("memtrail: {} stacks shrank, by {} in all: see memtrail diff", growth.shrunk, units::bytes(growth.shrunk_bytes));
    }
    growth.report
}

/// An output that holds live and charged bytes of every stack, so that there is no choice.
fn whole_rows(args: &ReportArgs) -> Option<&PathBuf> {
    args.output.iter().find(|file| matches!(output::Format::of(file), Some(output::Format::Json | output::Format::Pprof)))
}

/// Refuses what cannot be told before anything is read.
fn check(args: &ReportArgs) -> Result<(), Conflict> {
    if args.by == Some(By::Thread) {
        if args.value != Value::Live {
            let value = args.value;
            return Err(Conflict(format!("--by thread: {value} bytes have no thread, only live ones do: leave --value {value} out")));
        }
        if args.view == Some(View::Cgroups) {
            return Err(Conflict("--by thread: the view of cgroups has no stacks: use --view stacks".to_owned()));
        }
        if let Some(file) = whole_rows(args) {
            let name = file.display();
            return Err(Conflict(format!(
                "--by thread: {name}: it has live and charged bytes of each stack, and JSON its threads: leave --by out, or use .folded or .svg"
            )));
        }
    }
    if args.value == Value::Growth {
        if args.view == Some(View::Cgroups) {
            return Err(Conflict(
                "--value growth: the view of cgroups shows growth already: leave --value out, or use --view stacks".to_owned(),
            ));
        }
        if let Some(file) = whole_rows(args) {
            let name = file.display();
            return Err(Conflict(format!("--value growth: {name}: it has no place for growth: use .folded or .svg, or memtrail diff")));
        }
    }
    Ok(())
}
