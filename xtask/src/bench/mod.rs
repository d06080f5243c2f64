//! `cargo xtask bench`: what tracing costs, against untraced runs, against empty programs on the same hooks, and beside perf and
//! bpftrace.
//!
//! Each round attaches every condition once, in an order that rotates, and runs every storm under it: a change of the machine's load
//! meets all conditions alike. It never fails because of a time: it prints the goal and whether it was met.

mod background;
mod cgroup;
mod condition;
mod figures;
mod lifecycle;
mod storm;
mod table;

use std::{path::PathBuf, process::Command, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{command, programs, workspace};
use condition::{Bench, Condition};
use figures::{Rounds, Samples};
use storm::Storm;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Only these rows
    #[arg(long, value_enum, value_name = "ROW")]
    only: Vec<Row>,
    /// Rounds; each attaches every condition once
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// A second memtrail to measure beside this one, such as one built before a change
    #[arg(long, value_name = "PROGRAM")]
    other: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Page faults of 4 KiB
    Fault,
    /// Page-cache writes of 4 KiB
    File,
    /// Page-cache writes of 64 KiB, which file systems with large folios keep in one
    LargeWrites,
    /// tmpfs writes
    Tmpfs,
    /// mmap and munmap, nothing touched
    Mmap,
    /// System calls that touch no memory
    Getppid,
    /// Programs that are started and end at once
    Starts,
    /// A walk of one stack of 36 frames
    Walk,
    /// Attach, detach, memory, and the idle collector
    Lifecycle,
}

/// Runs of a storm within one attachment. The first of them warms what the attachment has cooled; all of them count.
const RUNS: u32 = 8;

/// What a tracer does after its start is not what is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// The result of one storm under one condition.
struct Cell {
    condition: Condition,
    rounds: Rounds,
}

/// Runs `cargo xtask bench`.
pub fn command(args: &Args) -> Result<()> {
    ensure!(workspace::is_root(), "the benchmark attaches programs: run it as root");
    let wanted = |row: &Row| args.only.is_empty() || args.only.contains(row);
    let storms: Vec<Storm> = storm::ALL.into_iter().filter(|storm| wanted(&storm.row)).collect();
    let mut programs = programs::release()?;
    let mut program = |name: &str| programs.remove(name).with_context(|| format!("cargo built no {name}"));
    let folder = workspace::root()?.join("target/bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let bench = Bench {
        memtrail: program("memtrail")?,
        other: args.other.clone(),
        workload: program("memtrail-workload")?,
        folder,
        cgroup: cgroup::Cgroup::new()?,
        cpu: storm::last_cpu()?,
    };
    println!("{}", table::heading(bench.cpu)?);
    if !storms.is_empty() {
        let results = rounds(&bench, &storms, args.rounds)?;
        table::storms(&results);
    }
    if wanted(&Row::Walk) {
        print!("{}", command::output(Command::new(&bench.memtrail).arg("bench-walk"))?);
    }
    if wanted(&Row::Lifecycle) {
        lifecycle::measure(&bench, args.rounds)?;
    }
    println!("{}", table::load()?);
    Ok(())
}

fn rounds(bench: &Bench, storms: &[Storm], rounds: u32) -> Result<Vec<(Storm, Vec<Cell>)>> {
    let mut results: Vec<(Storm, Vec<Cell>)> = storms.iter().map(|&storm| (storm, Vec::new())).collect();
    let mut conditions = Vec::new();
    for condition in Condition::ALL {
        // What cannot run here says why in one line, and the rest is measured.
        match bench.usable(condition) {
            Ok(true) => conditions.push(condition),
            Ok(false) => {}
            Err(error) => println!("not measured: {}: {error:#}", condition.name()),
        }
    }
    for round in 0..rounds {
        for turn in 0..conditions.len() {
            let condition = conditions[(turn + round as usize) % conditions.len()];
            if !storms.iter().any(|storm| condition.measures(storm.row)) {
                continue;
            }
            let attached = bench.attach(condition).with_context(|| format!("{}, round {round}", condition.name()))?;
            sleep(SETTLE);
            for (storm, cells) in results.iter_mut().filter(|(storm, _)| condition.measures(storm.row)) {
                let mut samples = Samples::of(bench.run(condition, storm)?);
                for _ in 1..RUNS {
                    samples.add(bench.run(condition, storm)?);
                }
                match cells.iter_mut().find(|cell| cell.condition == condition) {
                    Some(cell) => cell.rounds.push(samples),
                    None => cells.push(Cell { condition, rounds: Rounds::of(samples) }),
                }
            }
            if let Some(attached) = attached {
                let status = attached.stop()?;
                if !condition.ended_well(status) {
                    bail!("{} ended with {status}", condition.name());
                }
            }
        }
    }
    Ok(results)
}
