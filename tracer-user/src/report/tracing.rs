//! How it was traced, on which host, and what that cost.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Pages that the kernel moved to other frames (compaction, NUMA balancing), on the whole host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Bytes moved, all memory of the host; null where the kernel does not count them.
    pub moved_bytes: Option<u64>,
    /// Which of it keeps its stack: "all", "mapped" (not page cache that no process maps), or "none".
    pub followed: String,
}

impl Migration {
    /// At most so many bytes lost their stack by being moved; null if unknown.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        if self.followed == "all" { Some(0) } else { self.moved_bytes }
    }
}

/// The traced host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// CPUs online.
    pub cpus: u32,
    /// "v1", "v2" or "hybrid": where the memory controller is.
    pub cgroup: String,
    /// Bytes.
    pub page_size: u32,
}

/// What was recorded of all that happened, where that does not show in the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Thread-group ids on the host of the processes that were followed with their later children; empty: everyone's memory was
    /// recorded.
    pub pids: Vec<u32>,
    /// What was recorded is the cgroup of a command that memtrail started: what it held at its peak is what outputs show.
    #[serde(default)]
    pub command: bool,
}

/// One probe of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRow {
    /// Name of the probe.
    pub probe: String,
    /// "fentry", "kprobe", "tracepoint", or "none".
    pub provider: String,
    /// Why this provider, empty when it is the first choice.
    pub note: String,
}

/// How charges were chosen for attribution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// "sampled" or "exact".
    pub mode: String,
    /// M: mean bytes between two samples; 4096 in exact mode. With a filter, small cgroups are sampled more finely: see their rows.
    pub mean_bytes: u64,
    /// Samples taken.
    pub samples: u64,
}

/// What the tracing cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Nanoseconds in programs: estimated from short moments in which the kernel counts them. Null if there was no such moment.
    pub bpf_ns: Option<u64>,
    /// Program runs, estimated alike.
    pub events: Option<u64>,
    /// CPU time of the collector while it recorded over one CPU's time, percent: from the moment counting began until this report was.
    pub cpu_percent: Option<f64>,
    /// CPU time that starting took before that, milliseconds.
    pub start_cpu_ms: Option<u64>,
    /// CPU time that this report took after that, milliseconds; printing and writing not included.
    pub report_cpu_ms: Option<u64>,
    /// Largest resident set of the collector, bytes.
    pub collector_rss_bytes: Option<u64>,
    /// Memory of the BPF maps, bytes.
    pub map_bytes: u64,
    /// The kernel half's tables by name.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
}

/// How full a table of the kernel half is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Entries at the end; null for a ring.
    pub entries: Option<u64>,
    /// Entries that it has room for; bytes for a ring.
    pub max_entries: u64,
    /// The size was given and not planned: a test.
    pub forced: bool,
}
