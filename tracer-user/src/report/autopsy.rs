//! An autopsy as the report holds it (docs/report.schema.json, `oom`). Pure data; unknown is null and present.

use crate::report::{ArenaRow, FileRow, RegionRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One kill: all victims of one call of the OOM killer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autopsy {
    /// RFC 3339, UTC.
    pub time: String,
    /// Seconds since the start of the recording, monotonic.
    pub at_s: f64,
    /// "kill", or "warning": a cgroup is close to its limit, and nobody was killed.
    pub event: String,
    /// The sentence.
    pub verdict: Option<String>,
    /// "memcg", "none", "cpuset" or "mempolicy".
    pub constraint: Option<String>,
    /// Path of the cgroup whose limit was met; null for a global kill.
    pub limit_cgroup: Option<String>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// Its usage.
    pub usage_bytes: Option<u64>,
    /// Charges that met its limit so far.
    pub failcnt: Option<u64>,
    /// Order of the allocation that failed.
    pub order: Option<u32>,
    /// Its flags.
    pub gfp_mask: Option<u32>,
    /// Pages that the constraint allows in all.
    pub total_pages: Option<u64>,
    /// Whose allocation failed.
    pub trigger: Option<Trigger>,
    /// Who was killed, in order.
    pub victims: Vec<Victim>,
    /// Whether all of a cgroup was killed (memory.oom.group).
    pub group_kill: Option<bool>,
    /// Memory of the limit's cgroup by kind, bytes; with `remainder` it sums to the usage. `swap`, and on v1 `sock`, are not part of it.
    pub before: BTreeMap<String, Option<i64>>,
    /// The victim's cgroup and those above it.
    pub levels: Vec<Level>,
    /// Cgroups right below the limit's, largest first.
    pub siblings: Vec<Sibling>,
    /// What was live at the kill, largest first.
    pub stacks: Vec<LiveStack>,
    /// Page cache and shmem by file, below the limit, largest first. Which pages waited for the disk was asked after the kill.
    pub files: Vec<FileRow>,
    /// What anonymous memory was for, by cgroup, as processes were when they were last looked into before the kill.
    pub regions: Vec<RegionsOf>,
    /// Removed cgroups below the limit of which something was live.
    pub dead: Vec<Dead>,
    /// What memtrail concludes of the cgroups below the limit, as of the kill.
    pub verdicts: Vec<Finding>,
    /// What grew.
    pub growth: Vec<Growth>,
    /// Usage of the limit's cgroup over time, to the kill.
    pub series: Vec<Moment>,
    /// "frozen", "live" for a warning, or "not frozen" with the reason.
    pub picture: String,
    /// Where each field comes from.
    pub sources: BTreeMap<String, String>,
}

/// The regions of one cgroup's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionsOf {
    /// Path.
    pub cgroup: String,
    /// So many seconds before the kill the first of the processes was looked into. `live` is as of the kill all the same.
    pub before_s: f64,
    /// Largest resident first.
    pub regions: Vec<RegionRow>,
    /// glibc's malloc arenas, of each process that has others than the main one.
    pub arenas: Vec<ArenaRow>,
}

/// A removed cgroup that still owned memory at the kill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dead {
    /// Path.
    pub cgroup: String,
    /// Container id, where the path tells.
    pub container: Option<String>,
    /// Seconds from its removal to the kill; null where the removal was not seen.
    pub for_s: Option<f64>,
}

/// A verdict on a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// Path.
    pub cgroup: String,
    /// Which (docs/verdicts.md).
    pub id: String,
    /// "critical", "warning" or "info".
    pub severity: String,
    /// Observation, cause, action.
    pub text: String,
    /// The figures behind it.
    pub evidence: BTreeMap<String, serde_json::Value>,
}

/// The task whose allocation failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trigger {
    /// Thread-group id.
    pub pid: Option<u32>,
    /// Thread id.
    pub tid: Option<u32>,
    /// The thread's name.
    pub comm: Option<String>,
    /// Path.
    pub cgroup: Option<String>,
    /// Outermost first.
    pub user_stack: Option<Vec<String>>,
    /// Outermost first.
    pub kernel_stack: Option<Vec<String>>,
}

/// A process that was killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Victim {
    /// Thread-group id.
    pub pid: Option<u32>,
    /// The thread's name.
    pub comm: Option<String>,
    /// Path.
    pub cgroup: Option<String>,
    /// Container id, where the path tells.
    pub container: Option<String>,
    /// oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// Mapped anonymous memory, bytes.
    pub anon: Option<u64>,
    /// Mapped file memory, bytes.
    pub file: Option<u64>,
    /// Mapped shmem, bytes.
    pub shmem: Option<u64>,
    /// Swapped out, bytes.
    pub swap: Option<u64>,
    /// Page tables, bytes.
    pub pagetables: Option<u64>,
    /// Mapped address space, bytes.
    pub total_vm: Option<u64>,
    /// The task was ending anyway: it was given the reserves and no signal.
    pub already_ending: Option<bool>,
}

/// A level of the hierarchy at the kill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Level {
    /// Path.
    pub cgroup: String,
    /// Bytes.
    pub usage_bytes: Option<u64>,
    /// Bytes; null for no limit.
    pub limit_bytes: Option<u64>,
    /// Charges that met the limit.
    pub failcnt: Option<u64>,
}

/// A cgroup right below the limit's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sibling {
    /// Path.
    pub cgroup: String,
    /// "alive" or "dead".
    pub state: String,
    /// Bytes; for the dead what the picture found.
    pub usage_bytes: Option<u64>,
    /// Where from.
    pub source: String,
}

/// Memory that was live at the kill, by one stack of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveStack {
    /// Path of the owner.
    pub cgroup: String,
    /// "alive" or "dead".
    pub state: String,
    /// Kind.
    pub kind: String,
    /// Thread-group id.
    pub pid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
    /// Outermost first.
    pub frames: Vec<String>,
    /// Bytes.
    pub live: u64,
    /// Its standard error.
    pub live_stderr: u64,
    /// Of these, charged in the last 1, 5 and 15 minutes.
    pub young: [u64; 3],
}

/// Something that grew, or shrank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Growth {
    /// Path.
    pub cgroup: String,
    /// A kind, or "usage"; "own" for the usage less that of the cgroups below it.
    pub kind: String,
    /// Over so many seconds before the kill.
    pub window_s: f64,
    /// Bytes. With a stack: charged in that time and still live.
    pub bytes: i64,
    /// Name of the thread-group leader, where this is of one stack.
    pub comm: Option<String>,
    /// Its thread-group id.
    pub pid: Option<u32>,
    /// The stack, outermost first; null where this is of all stacks.
    pub frames: Option<Vec<String>>,
}

/// A reading before the kill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moment {
    /// Seconds before the kill; 0 is the kill.
    pub before_s: f64,
    /// Usage, bytes.
    pub usage_bytes: Option<u64>,
    /// By kind, bytes.
    pub kinds: BTreeMap<String, u64>,
}
