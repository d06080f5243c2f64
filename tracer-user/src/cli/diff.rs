//! `memtrail diff`: what changed between two recordings, or two marks.

use super::{moment::Moment, status::Conflict};
use crate::{
    output::{
        self, Format, Value,
        diff::{Diff, Options, Shown},
        views,
    },
    text::glob::Glob,
};
use anyhow::Result;
use clap::Args;
use std::{io::Write as _, path::PathBuf};

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// The earlier recording, or a mark in it: FILE@MARK.
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The later recording, or a mark in it: FILE@MARK.
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// Only these cgroups. May be given again.
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub cgroup: Vec<Glob>,
    /// Only these kinds: anon, file, shmem, hugetlb. May be given again.
    #[arg(long, value_name = "KIND", value_parser = super::report::KINDS)]
    pub kind: Vec<String>,
    /// Which bytes: live or charged.
    #[arg(long, default_value_t = Value::Live)]
    pub value: Value,
    /// Scale A to the length of B: what was charged in one minute, beside what was charged in ten.
    #[arg(long)]
    pub normalize: bool,
    /// Show also what is inside the sampling error.
    #[arg(long)]
    pub all: bool,
    /// Most stacks.
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Write the difference instead; the ending chooses the format: .folded (two columns) .svg .json. May be given again.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  memtrail diff before.mtrail after.mtrail
      what grew and what shrank by more than the sampling error
  memtrail diff before.mtrail after.mtrail -o grown.svg
      a flame graph of it: red grew, blue shrank
  memtrail diff load.mtrail@warm load.mtrail@loaded
      between two marks of one recording
  memtrail diff short.mtrail long.mtrail --value charged --normalize
      charges of recordings of different lengths";

/// Shows a difference.
pub fn run(args: &DiffArgs) -> Result<u8> {
    for file in &args.output {
        output::check_target(file)?;
        if matches!(Format::of(file), Some(Format::Pprof | Format::Hlog | Format::Perfetto | Format::Recording)) {
            return Err(output::OutputError::NotOfDiff(file.clone()).into());
        }
    }
    if args.value == Value::Growth {
        return Err(Conflict("--value growth: a difference of live bytes is their growth: leave --value out".to_owned()).into());
    }
    let [before, after] = [Moment::read(&args.before)?, Moment::read(&args.after)?];
    let selection = views::Selection { cgroups: args.cgroup.clone(), kinds: args.kind.clone(), value: args.value, ..Default::default() };
    let reports = [selection.apply(&before.report), selection.apply(&after.report)];
    let options = Options { value: args.value, normalize: args.normalize, same_recording: before.is_of_the_recording_of(&after) };
    let diff = Diff::new([before.name, after.name], &reports[0], &reports[1], options);
    for file in &args.output {
        diff.write(file)?;
    }
    if !args.output.is_empty() {
        return Ok(0);
    }
    match std::io::stdout().write_all(diff.text(Shown { top: args.top, all: args.all }).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}
