//! What is known of a recording while it goes on.

use super::Host;
use serde::{Deserialize, Serialize};

/// What is known when a recording begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// "memtrail X.Y.Z".
    pub tool: String,
    /// [`crate::report::SCHEMA`] of the intervals and reports.
    pub schema: u32,
    /// Where it is measured.
    pub host: Host,
    /// RFC 3339, UTC.
    pub started: String,
}

/// What the recording costs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningCost {
    /// CPU time of programs and collector over one CPU's time since the start, percent.
    pub cpu_percent: Option<f64>,
    /// Largest resident set of the collector, bytes.
    pub collector_rss_bytes: Option<u64>,
    /// Memory of the BPF maps, bytes.
    pub map_bytes: u64,
}
