//! Points of the series over time.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One point of the series of an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Seconds since the start of the recording, monotonic.
    pub at_s: f64,
    /// Monotonic, boot-clock and real nanoseconds of the same moment.
    pub clocks: [u64; 3],
    /// Per cgroup id: usage and kinds' stats, bytes.
    pub cgroups: BTreeMap<String, IntervalCgroup>,
    /// Losses so far.
    pub losses: BTreeMap<String, Option<u64>>,
    /// Entries of the kernel half's tables when they were last read.
    #[serde(default)]
    pub tables: BTreeMap<String, u64>,
}

/// One cgroup at one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntervalCgroup {
    /// Usage, bytes.
    pub usage_bytes: Option<u64>,
    /// stat by kind, bytes.
    pub kinds: BTreeMap<String, u64>,
    /// Live by kind, bytes.
    pub live: BTreeMap<String, u64>,
}
