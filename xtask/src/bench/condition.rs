//! What a storm runs under.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result};

use super::{Row, background::Background, cgroup::Cgroup};
use crate::command;

/// What the measurement uses.
pub struct Bench {
    pub memtrail: PathBuf,
    pub other: Option<PathBuf>,
    pub workload: PathBuf,
    /// For files that storms and tracers write.
    pub folder: PathBuf,
    pub cgroup: Cgroup,
    /// The storms' CPU.
    pub cpu: u32,
}

/// One of the things that are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Untraced,
    /// Programs that return at once, on the hooks of the tracepoint tier.
    Empty,
    /// `memtrail record`, the whole host.
    Memtrail,
    /// The same with the program given by `--other`.
    Other,
    /// `memtrail record --exact`, the storm's cgroup only.
    Exact,
    Perf,
    Bpftrace,
}

impl Condition {
    pub const ALL: [Condition; 7] = [
        Condition::Untraced,
        Condition::Empty,
        Condition::Memtrail,
        Condition::Other,
        Condition::Exact,
        Condition::Perf,
        Condition::Bpftrace,
    ];

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Untraced => "untraced",
            Condition::Empty => "empty programs",
            Condition::Memtrail => "memtrail",
            Condition::Other => "other memtrail",
            Condition::Exact => "memtrail --exact --cgroup",
            Condition::Perf => "perf record -e page-faults -c 1 -g",
            Condition::Bpftrace => "bpftrace count by ustack",
        }
    }

    /// Whether a row has this column.
    pub fn measures(self, row: Row) -> bool {
        match self {
            Condition::Perf | Condition::Bpftrace => row == Row::Fault,
            _ => row != Row::Lifecycle,
        }
    }

    /// 3 is memtrail's status for a complete run with losses, which a storm may have.
    pub fn ended_well(self, status: ExitStatus) -> bool {
        matches!(status.code(), Some(0 | 3))
    }
}

/// `interval` is only there to tell us that everything is attached.
const BPFTRACE: &str = r#"software:faults:1 { @[ustack] = count(); } interval:ms:200 { printf("attached\n"); }"#;

impl Bench {
    /// Whether the condition is wanted and can be had; an error says why not.
    pub fn usable(&self, condition: Condition) -> Result<bool> {
        match condition {
            Condition::Other => Ok(self.other.is_some()),
            Condition::Perf => {
                let mut perf = perf(self);
                command::output(perf.arg("true")).map(|_| true)
            }
            Condition::Bpftrace => self.attach(condition)?.map_or(Ok(()), |b| b.stop().map(|_| ())).map(|()| true),
            _ => Ok(true),
        }
    }

    /// Starts what runs beside the storms, if anything does.
    pub fn attach(&self, condition: Condition) -> Result<Option<Background>> {
        let (command, ready) = match condition {
            Condition::Untraced | Condition::Perf => return Ok(None),
            Condition::Empty => {
                let mut memtrail = Command::new(&self.memtrail);
                memtrail.arg("bench-empty");
                (memtrail, "attached")
            }
            Condition::Memtrail => (self.record(&self.memtrail), "recording"),
            Condition::Other => (self.record(self.other.as_ref().context("--other")?), "recording"),
            Condition::Exact => {
                let mut memtrail = self.record(&self.memtrail);
                memtrail.args(["--exact", "--map-memory", "2G", "--cgroup", self.cgroup.name()]);
                (memtrail, "recording")
            }
            Condition::Bpftrace => {
                let mut bpftrace = Command::new("bpftrace");
                bpftrace.args(["-e", BPFTRACE]);
                (bpftrace, "attached")
            }
        };
        Background::start(command, ready).map(Some)
    }

    /// `memtrail record` with a report in [`Bench::report`].
    pub fn record(&self, memtrail: &PathBuf) -> Command {
        let mut command = Command::new(memtrail);
        command.env("RUST_BACKTRACE", "0").args(["record", "-o"]).arg(self.report());
        command
    }

    /// `memtrail oom --follow`.
    pub fn follow_oom(&self, memtrail: &PathBuf) -> Command {
        let mut command = Command::new(memtrail);
        command.env("RUST_BACKTRACE", "0").args(["oom", "--follow"]);
        command
    }

    /// The report of the recording that ended last.
    pub fn report(&self) -> PathBuf {
        self.folder.join("report.json")
    }

    /// What a storm is run by instead of a plain shell.
    pub fn wrapper(&self, condition: Condition) -> Option<Command> {
        (condition == Condition::Perf).then(|| perf(self))
    }
}

fn perf(bench: &Bench) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "page-faults", "-c", "1", "-g", "-o"]).arg(bench.folder.join("perf.data")).arg("--");
    perf
}
