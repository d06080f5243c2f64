//! Build and test tasks of the workspace. Only wiring here; a subject has a file of its own, and none holds product logic.

mod apt;
mod bench;
mod cgroup;
mod command;
mod dist;
mod ebpf;
mod inputs;
mod programs;
mod signals;
mod supervise;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build and test tasks of memtrail")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object, check it, and put it where it is committed
    BuildEbpf {
        /// Change nothing that is committed; fail if the committed object is stale
        #[arg(long)]
        check: bool,
    },
    /// Run a command on the kernels under test, each in a virtual machine
    Vm(vm::Args),
    /// Run the tests, in three tiers: pure, on this machine's kernel, on the kernels under test
    Test(test::Args),
    /// Make what people install: a static program with man pages and completions, as a Debian package and as an archive
    Dist,
    /// Measure what tracing costs, beside empty programs, perf and bpftrace
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match work(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One chain of causes; a backtrace of a build task helps nobody.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(task: Task) -> Result<()> {
    match task {
        Task::Dist => dist::run(),
        Task::BuildEbpf { check } => {
            let built = ebpf::build()?;
            if check {
                println!("committed object: {:?}", built.compare()?);
                return Ok(());
            }
            built.commit()
        }
        Task::Vm(args) => vm::command(args),
        Task::Test(args) => test::command(&args),
        Task::Bench(args) => bench::command(&args),
    }
}
