//! The report: what a recording knows, in the form that every output reads. It is the schema of docs/report.schema.json.
//!
//! Pure data. Unknown is `None` (null in JSON, always present), bytes are integers, times are RFC 3339 or seconds.
//!
//! A field that is added later carries `#[serde(default)]`, since recordings made before it lack it.

pub mod autopsy;
mod cgroup;
pub mod distribution;
mod file;
mod header;
mod interval;
pub mod loops;
mod process;
mod region;
mod stack;
mod tracing;
mod trend;
mod value;

pub use cgroup::{Cgroup, HeldRow, HistogramRow, KindRow, LimitRow, Verdict};
pub use file::{FileOwner, FileRow, FileToucher};
pub use header::{Header, RunningCost};
pub use interval::{Interval, IntervalCgroup};
pub use process::ProcessRow;
pub use region::{ArenaRow, MappingRow, MappingSummary, OriginRow, RegionRow, Surveyed};
pub use stack::{StackFile, StackRow, ThreadRow};
pub use tracing::{Cost, Filter, Host, Migration, PlanRow, Sampling, Table};
pub use trend::{Step, Trend};
pub use value::Value;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the schema. Within a number, changes only add.
pub const SCHEMA: u32 = 1;

/// What stands for the rest of a list that is not shown one by one.
pub const OTHER: &str = "[other]";
/// Name of a process of which nothing else is known.
pub const UNKNOWN_PROCESS: &str = "[unknown process]";

/// A whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// "memtrail X.Y.Z".
    pub tool: String,
    /// Where it was measured.
    pub host: Host,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub ended: String,
    /// Seconds between the two, monotonic.
    pub duration_s: f64,
    /// What was recorded of all that happened.
    #[serde(default)]
    pub filter: Filter,
    /// Which provider each probe used, and why.
    pub plan: Vec<PlanRow>,
    /// How charges were chosen.
    pub sampling: Sampling,
    /// What the tracing cost.
    pub cost: Cost,
    /// Pages that the kernel moved meanwhile.
    #[serde(default)]
    pub migration: Migration,
    /// Counts by cause; null where the kernel does not count it.
    pub losses: BTreeMap<String, Option<u64>>,
    /// One entry a cgroup, largest usage first.
    pub cgroups: Vec<Cgroup>,
    /// OOM kills seen.
    pub oom: Vec<autopsy::Autopsy>,
    /// Those of the last quarter of an hour, by victim and by who grew; null if there was none and the host was not short of memory.
    #[serde(default)]
    pub oom_loops: Option<loops::Loops>,
    /// Calls that changed address spaces; null where they are not followed.
    #[serde(default)]
    pub mapping: Option<MappingSummary>,
    /// How much of the processes' memory was looked at for regions.
    #[serde(default)]
    pub surveyed: Surveyed,
    /// The files that frames of stacks are in, and the kernel.
    #[serde(default)]
    pub binaries: Vec<BinaryRow>,
}

/// A file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryRow {
    /// Path as its process saw it; [`BinaryRow::KERNEL`] for the kernel.
    pub path: String,
    /// Build id, hexadecimal digits; null if it has none or could not be read.
    pub build_id: Option<String>,
    /// Frames of this report that are in it, sorted; a name that two files have is a frame of both. None for the kernel, whose frames end in
    /// `_[k]`.
    pub frames: Vec<String>,
    /// Where the code of the file is, by which its frames can be named later.
    #[serde(default)]
    pub code: Vec<CodeRow>,
}

/// Code of a file that is mapped in one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRow {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// The file's own address of the first.
    pub address: u64,
}

impl CodeRow {
    /// The file's own address of a place in it.
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        offset.checked_sub(self.offset).filter(|at| *at < self.bytes).and_then(|at| self.address.checked_add(at))
    }
}

impl BinaryRow {
    /// The kernel, as perf and pprof call it.
    pub const KERNEL: &str = "[kernel.kallsyms]";
}
