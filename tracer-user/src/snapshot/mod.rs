//! One moment of a trace as a value: everything that thinking needs, and nothing that asks.
//!
//! A snapshot is owned and can be stored. [`crate::trace`] makes it, with all the reading, asking and looking up that a moment takes;
//! [`crate::analyse`] turns it into what a person is told, and can do so again years later on another machine. Addresses are names here,
//! cgroups have their readings beside them, and what could not be known is absent.
//!
//! | part | holds |
//! |---|---|
//! | [`Taken`] | when |
//! | [`Tracing`] | how it was traced, and what that cost and lost |
//! | [`Cgroups`] | names, places in the tree, the kernel's figures |
//! | [`Charges`] | keys, live samples, exact totals, what was retired |
//! | [`Names`] | stacks in words |
//! | [`Files`] | files by identity, and who made them dirty |
//! | [`Surveys`] | regions of processes, and which sample is in which |
//! | [`Spaces`] | who mapped what |

mod cgroups;
mod charges;
mod files;
mod names;
mod spaces;
mod surveys;

pub use cgroups::{CgroupNames, Cgroups, Counts, Known};
pub use charges::{Charges, Retired, Swept};
pub use files::{DirtiedBefore, File, Files};
pub use names::{FrameId, KeyWords, Names, Process, StackWords};
pub use spaces::{MappedRange, Space, Spaces, between};
pub use surveys::{Arenas, Malloc, Place, Region, SurveyedProcess, Surveys};

use crate::kernel_half::probes::ProbeId;
use crate::report::{Cost, Host, Migration, PlanRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A moment of a trace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// When.
    pub taken: Taken,
    /// The host.
    pub host: Host,
    /// How it was traced.
    pub tracing: Tracing,
    /// Cgroups.
    pub cgroups: Cgroups,
    /// What was charged.
    pub charges: Charges,
    /// Stacks, processes and threads in words.
    pub names: Names,
    /// Files.
    pub files: Files,
    /// Regions of processes.
    pub surveys: Surveys,
    /// Who mapped what; `None` where that is not followed.
    pub spaces: Option<Spaces>,
}

/// When a snapshot was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Start of the trace, RFC 3339, UTC.
    pub started: String,
    /// This moment likewise.
    pub now: String,
    /// Start of the trace, monotonic nanoseconds.
    pub started_ns: u64,
    /// This moment likewise.
    pub now_ns: u64,
}

impl Taken {
    /// Seconds from a monotonic time to this moment.
    #[must_use]
    pub fn seconds_since(&self, at_ns: u64) -> f64 {
        self.now_ns.saturating_sub(at_ns) as f64 / 1e9
    }
}

/// How it was traced, and what that cost and lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tracing {
    /// Which provider each probe used.
    pub plan: Vec<PlanRow>,
    /// Every charge was taken.
    pub exact: bool,
    /// M: mean bytes between two samples of the host.
    pub mean_bytes: u64,
    /// The exact totals by owner are whole.
    pub totals: bool,
    /// Thread-group ids of the processes that were followed; empty for everyone.
    pub followed: Vec<u32>,
    /// What is recorded is the cgroup of a command that memtrail started.
    #[serde(default)]
    pub command: bool,
    /// What it cost.
    pub cost: Cost,
    /// Pages that the kernel moved meanwhile.
    pub migration: Migration,
    /// Losses by cause; `None` where the kernel does not count.
    pub losses: BTreeMap<String, Option<u64>>,
}

impl Tracing {
    /// Whether a probe has a provider.
    #[must_use]
    pub fn has(&self, probe: ProbeId) -> bool {
        self.plan.iter().any(|row| row.probe == probe.name() && row.provider != "none")
    }
}
