//! The accuracy table: what memtrail's figures must be for workloads with known bytes, against `memory.stat` of their own cgroup.
//!
//! [`Row`] is data, [`judge`] is pure and says which figures are out of bounds, [`run_rows`] runs rows under the tracer and prints them filled in.

mod judge;
mod rows;
mod run;

pub use judge::{Expected, Filled, Observed, judge};
pub use rows::{ROWS, row};
pub use run::{bound, finish_row, run_rows, size};

use crate::memtrail::Mode;

/// How a row is traced: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Exact or sampled.
    pub mode: Mode,
    /// Forced provider; `None` for the best that the kernel has.
    pub provider: Option<&'static str>,
}

impl Column {
    /// As in `cells.txt`.
    pub fn name(&self) -> String {
        let mode = if self.mode == Mode::Exact { "exact" } else { "default" };
        format!("{}/{mode}", self.provider.unwrap_or("best"))
    }
}

/// How far a figure may be off: the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Of the expected figure.
    pub percent: f64,
    /// In bytes.
    pub bytes: u64,
}

impl Bound {
    /// In bytes, for an expected figure.
    pub fn of(self, expected: u64) -> u64 {
        ((expected as f64 * self.percent / 100.0) as u64).max(self.bytes)
    }
}

/// A row's bounds by what the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// fentry and kprobe.
    pub typed: Bound,
    /// Tracepoints, on kernels that have the memory cgroup's own (6.13 and later).
    pub tracepoint: Bound,
    /// Tracepoints on older kernels.
    pub tracepoint_before_6_13: Bound,
}

/// Bounds of most rows.
pub const USUAL: Bounds = Bounds {
    typed: Bound { percent: 0.5, bytes: 256 << 10 },
    tracepoint: Bound { percent: 1.0, bytes: 512 << 10 },
    tracepoint_before_6_13: Bound { percent: 3.0, bytes: 2 << 20 },
};

/// Bounds of rows that end with nothing live.
pub const NEAR_ZERO: Bounds = Bounds {
    typed: Bound { percent: 0.5, bytes: 256 << 10 },
    tracepoint: Bound { percent: 1.0, bytes: 1 << 20 },
    tracepoint_before_6_13: Bound { percent: 3.0, bytes: 2 << 20 },
};

/// Where a row's recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the workload's step of this name, with the workload waiting.
    Step(&'static str),
    /// After the workload has exited, and all its memory with it.
    Exit,
}

/// What becomes of the memory that a row's workload changes while it is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It was all made during the trace: live is the change of `memory.stat`, plus what is no longer mapped. The baseline stays.
    Live,
    /// What is left of it, if anything, is older than the trace: the baseline is all that `memory.stat` has, nothing is live.
    OnlyBaseline,
}

/// How what was charged compares with what the workload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// Equal, within the row's bound.
    Equal,
    /// At least that: every short process also copies pages of its own. Equal for the workload's function.
    AtLeast,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// The kind it is about.
    pub kind: &'static str,
    /// The workload, without `--bytes` and without `--dir`.
    pub args: &'static [&'static str],
    /// Size at full length.
    pub bytes: u64,
    /// The tracer starts when the workload has reached this step.
    pub start_after: &'static str,
    /// And stops here.
    pub stop: Stop,
    /// What becomes of the memory.
    pub relation: Relation,
    /// What is charged.
    pub charged: Charged,
    /// The largest folio that one call of the row's probes may be about, bytes.
    pub folio: u64,
    /// Also compare live with the change of usage: for memory that is charged but not mapped.
    pub compare_usage: bool,
    /// Within what.
    pub bounds: Bounds,
}
