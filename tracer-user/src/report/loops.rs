//! Kills that repeat, and the limits of the whole host, as the report holds them (docs/report.schema.json, `oom_loops`).

use super::autopsy::{Finding, Growth};
use serde::{Deserialize, Serialize};

/// The kills of the last quarter of an hour, and the host's limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loops {
    /// Kills of so many seconds count.
    pub window_s: f64,
    /// Kills.
    pub kills: u64,
    /// Of these, at a cgroup's limit.
    pub memcg: u64,
    /// Of these, of the whole host.
    pub global: u64,
    /// Who was killed, most often first.
    pub victims: Vec<Killed>,
    /// What grew most before the kills, by the number of kills at which it did.
    pub growers: Vec<Grower>,
    /// Memory of the host, bytes.
    pub memory_bytes: Option<u64>,
    /// What the kernel thinks that new processes could have without swapping, bytes, at the last reading.
    pub available_bytes: Option<u64>,
    /// Sum of the outermost limits below `limits_of`, bytes.
    pub limits_bytes: Option<u64>,
    /// What they are limits of: "/" for the host, or a cgroup whose limit is most of its memory.
    pub limits_of: Option<String>,
    /// Memory of the host less the sum of the outermost limits on it, bytes: what is left for the kernel and the system. Negative when they
    /// promise more than there is.
    pub reserve_bytes: Option<i64>,
    /// Cgroups that no limit holds, of 5 % of the host's memory or more, largest first.
    pub unlimited: Vec<Unlimited>,
    /// `oom-loop`, `no-limit`, `overcommitted-limits`.
    pub verdicts: Vec<Finding>,
}

/// Processes of one name in one unit that were killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Killed {
    /// Pod, container, or else path of the cgroup.
    pub unit: String,
    /// The thread's name.
    pub comm: Option<String>,
    /// Path of its cgroup at the last kill.
    pub cgroup: Option<String>,
    /// Kills: one of a group counts once, however many of them died.
    pub kills: u64,
    /// Processes of that name less one: it was started again so often, at least.
    pub restarts: u64,
    /// oom_score_adj at the last kill.
    pub oom_score_adj: Option<i32>,
    /// Seconds since the recording began, of the first and the last kill.
    pub first_s: f64,
    /// See `first_s`.
    pub last_s: f64,
    /// What grew most before the last kill that knows.
    pub grower: Option<Growth>,
}

/// A cgroup that grew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grower {
    /// Path.
    pub cgroup: String,
    /// Kills at which it had grown most.
    pub kills: u64,
    /// By so many bytes before the last of these kills.
    pub bytes: i64,
    /// In so many seconds.
    pub window_s: f64,
}

/// A cgroup without a limit of its own or above it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unlimited {
    /// Path.
    pub cgroup: String,
    /// Usage, bytes.
    pub usage_bytes: u64,
}
