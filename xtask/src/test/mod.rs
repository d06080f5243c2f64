//! `cargo xtask test`: sets up what the tests need and runs them in three tiers.
//!
//! *pure* needs no privileges, *native* traces on this machine's own kernel, *vm* on the kernels under test with the same programs. A
//! failed step does not end the run, so that one run shows all that is wrong; a skipped one fails it, unless skips are allowed.

mod cells;
mod outcome;
mod tiers;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use outcome::{Counts, End, Step};

use crate::{supervise, vm::Kernel};

/// A set of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Format, lints, the eBPF object, unit tests
    Pure,
    /// On this machine's kernel, as root
    Native,
    /// On each kernel under test
    Vm,
}

/// Run the tests.
#[derive(clap::Args)]
pub struct Args {
    /// Tier to run; may be given several times [default: all]
    #[arg(long)]
    tier: Vec<Tier>,
    /// Kernel of the vm tier; may be given several times [default: all]
    #[arg(long)]
    kernel: Vec<Kernel>,
    /// Of the native and vm tiers, run only tests whose names contain this; may be given several times
    #[arg(long)]
    filter: Vec<String>,
    /// Full sizes and everything that takes long
    #[arg(long)]
    long: bool,
    /// Let what cannot run here be skipped
    #[arg(long)]
    allow_skip: bool,
}

/// Runs what `args` ask for and prints the summary; an error if it did not pass.
pub fn command(args: &Args) -> Result<()> {
    supervise::catch_signals()?;
    let mut run = Run::default();
    tiers::run(args, &mut run);
    println!("\n{}", outcome::summary(&run.steps, args.allow_skip));
    if let Some(signal) = supervise::interrupted() {
        bail!("the tests were interrupted by signal {signal}");
    }
    ensure!(outcome::passed(&run.steps, args.allow_skip), "the tests did not pass");
    Ok(())
}

/// The steps made so far.
#[derive(Default)]
pub struct Run {
    steps: Vec<Step>,
    /// Cells of the accuracy table, by machine.
    machines: BTreeMap<String, cells::Filled>,
}

impl Run {
    /// Makes a step: says so, does it, says how it ended and how long it took.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Counts) -> Result<T>) -> Option<T> {
        if let Some(signal) = supervise::interrupted() {
            self.skip(name, &format!("interrupted by signal {signal}"));
            return None;
        }
        println!("\n== {name}");
        let start = Instant::now();
        let mut counts = Counts::default();
        let result = work(&mut counts);
        let (end, value) = match result {
            Ok(value) => (End::Passed, Some(value)),
            Err(error) => (End::Failed(format!("{error:#}")), None),
        };
        self.done(name, end, start.elapsed(), counts);
        value
    }

    fn done(&mut self, name: &str, end: End, time: Duration, counts: Counts) {
        match &end {
            End::Failed(why) => println!("== {name}: FAILED after {:.1} s: {why}", time.as_secs_f64()),
            _ => println!("== {name}: ok, {:.1} s", time.as_secs_f64()),
        }
        self.steps.push(Step { name: name.to_owned(), end, time, counts });
    }

    /// Notes a step that was made on `machine`, and the cells that it filled in.
    pub fn done_on(&mut self, machine: &str, name: &str, result: Result<()>, time: Duration, counts: Counts) {
        self.machines.insert(machine.to_owned(), counts.cells.clone());
        let end = result.map_or_else(|error| End::Failed(format!("{error:#}")), |()| End::Passed);
        self.done(name, end, time, counts);
    }

    /// Makes a step that fills in cells of the accuracy table for `machine`.
    pub fn step_on(&mut self, machine: &str, name: &str, work: impl FnOnce(&mut Counts) -> Result<()>) {
        self.step(name, work);
        if let Some(step) = self.steps.last().filter(|step| !matches!(step.end, End::Skipped(_))) {
            self.machines.insert(machine.to_owned(), step.counts.cells.clone());
        }
    }

    /// Notes a step that cannot be made here.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("\n== {name}: skipped: {why}");
        let end = End::Skipped(why.to_owned());
        self.steps.push(Step { name: name.to_owned(), end, time: std::time::Duration::ZERO, counts: Counts::default() });
    }
}
