//! The command line: verbs, their arguments, and what they do. `docs/cli.md` is made from this.

pub mod bench_empty;
mod bench_walk;
pub mod demo;
pub mod diff;
pub mod doctor;
mod documents;
mod drive;
mod failures;
mod interrupts;
mod launch;
mod looks;
pub mod mark;
pub mod mark_socket;
pub mod marking;
pub mod messages;
mod moment;
mod naming;
pub mod oom;
mod patience;
mod pulse;
pub mod record;
pub mod report;
mod rotation;
mod screen;
mod series;
pub mod serve;
pub mod status;
mod streaming;
pub mod top;
mod traced;
#[cfg(test)]
mod traced_double;
pub mod tracing;
mod watch;
pub mod which;

use clap::{Parser, Subcommand};

/// eBPF memory tracer: which call stack, file and process made each cgroup's memory resident.
#[derive(Debug, Parser)]
#[command(name = "memtrail", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// More messages on standard error; twice: the kernel half's own; three times: those of libraries.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  memtrail record --duration 30s                      trace the whole host for 30 seconds
  memtrail record --cgroup '/kubepods/**' -o out.svg  pods only, as a flame graph
  memtrail record --limit 512MiB -- ./server          run a command in a cgroup of its own
  memtrail report run.mtrail --view stacks            look at a recording again
  memtrail diff before.mtrail after.mtrail            what grew between two recordings
  memtrail mark loaded                                name this moment in a running recording
  memtrail top                                        what fills which container, live
  memtrail serve                                      always on: metrics, profiles, kills by HTTP
  memtrail oom --follow                               an autopsy for each OOM kill
  memtrail doctor                                     what this host can do
  memtrail demo                                       three small workloads, traced and explained";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Trace, print the summary, and write reports.
    Record(record::RecordArgs),
    /// Look at a recording: any view, any format.
    Report(report::ReportArgs),
    /// What changed between two recordings, or between marks of one.
    Diff(diff::DiffArgs),
    /// Name this moment in the recordings that run, as the beginning or end of a phase.
    Mark(mark::MarkArgs),
    /// What fills which container, live in the terminal.
    Top(top::TopArgs),
    /// Trace for as long as it runs, and answer by HTTP: metrics, profiles, OOM kills, reports of the last hours.
    Serve(serve::ServeArgs),
    /// Wait for OOM kills and print an autopsy for each: who, at which limit, what filled it, what grew.
    Oom(oom::OomArgs),
    /// What this host can do: facts, the provider of each probe and why, what it would cost.
    Doctor(doctor::DoctorArgs),
    /// Three small workloads under the tracer, and what was found of them. Leaves nothing behind.
    Demo(demo::DemoArgs),
    /// A workload of the demo.
    #[command(hide = true)]
    DemoWorkload(demo::WorkloadArgs),
    /// Man pages and completions.
    #[command(hide = true)]
    Documents(documents::DocumentsArgs),
    /// Empty programs on the same hooks, to measure memtrail against.
    #[command(hide = true)]
    BenchEmpty,
    /// What a walk of a stack takes.
    #[command(hide = true)]
    BenchWalk,
}

/// Runs the verb; the process's exit status.
pub fn run(cli: Cli) -> u8 {
    messages::show(cli.verbose);
    crate::process::give_large_blocks_back();
    let with_command = matches!(&cli.verb, Verb::Record(args) if !args.command.is_empty());
    let result = match cli.verb {
        Verb::Record(args) => record::run(args),
        Verb::Report(args) => report::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Mark(args) => mark::run(&args),
        Verb::Top(args) => top::run(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Oom(args) => oom::run(args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::DemoWorkload(args) => demo::workload(&args),
        Verb::Documents(args) => documents::run(&args),
        Verb::BenchEmpty => bench_empty::run(),
        Verb::BenchWalk => bench_walk::run(),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            status::complain(&error);
            status::of_conflict(&error).or_else(|| launch::status_of(&error)).unwrap_or(if with_command {
                status::FAILED_WITH_COMMAND
            } else {
                status::FAILED
            })
        }
    }
}
