//! `memtrail diff`: what changed between two recordings, or two marks.

use super::{moment::Moment, patience::Patience, status::Conflict};
use crate::{
    output::{
        self, Source, Value,
        diff::{Diff, Options, Shown},
        format,
        selection::Selection,
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
    /// The earlier recording, or a mark in it: FILE@MARK. Or a memtrail that serves: http://HOST:PORT, or the path of its socket.
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// The later one, likewise.
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
    /// Files to write. The help comes from the table of formats.
    #[arg(
        short,
        long,
        value_name = "FILE",
        help = format::help(OUTPUT, Source::Difference),
        long_help = format::long_help(OUTPUT, Source::Difference)
    )]
    pub output: Vec<PathBuf>,
}

/// What `-o` does.
const OUTPUT: &str = "Write the difference instead";

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
        output::check_target(file, Source::Difference)?;
    }
    if args.value == Value::Growth {
        return Err(Conflict("--value growth: a difference of live bytes is their growth: leave --value out".to_owned()).into());
    }
    let [before, after] = [Moment::read(&args.before)?, Moment::read(&args.after)?];
    if args.value == Value::Peak
        && let Some(old) = [&before, &after].into_iter().find(|side| side.report.cgroups.iter().all(|cgroup| cgroup.peak_bytes.is_none()))
    {
        return Err(Conflict(format!("--value peak: {} does not tell peaks: leave --value out", old.name)).into());
    }
    let selection = Selection { cgroups: args.cgroup.clone(), kinds: args.kind.clone(), value: args.value, ..Default::default() };
    let reports = [selection.apply(&before.report), selection.apply(&after.report)];
    let options = Options { value: args.value, normalize: args.normalize, same_recording: before.is_of_the_recording_of(&after) };
    let patience = Patience::with("comparing");
    let diff = Diff::new([before.name, after.name], &reports[0], &reports[1], options);
    drop(patience);
    for file in &args.output {
        let _patience = Patience::with(&format!("writing {}", file.display()));
        output::write_diff(file, &diff)?;
    }
    if !args.output.is_empty() {
        return Ok(0);
    }
    match std::io::stdout().write_all(diff.text(Shown { top: args.top, all: args.all }).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}
