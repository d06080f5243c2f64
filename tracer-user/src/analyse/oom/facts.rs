//! What is known of a kill or a warning: everything that an autopsy is made from. Pure data, and its places in the tree of cgroups.

use crate::{
    cgroup::{Version, history::History},
    report::{
        Cgroup,
        autopsy::{Growth, LiveStack},
    },
    text::units,
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::oom::{OOM_STATS, OomKill, OomLevel, OomTask, OomVictim};

/// Windows of growth, seconds.
pub const WINDOWS_S: [f64; 3] = [60.0, 300.0, 900.0];

/// What is known of a cgroup by its id.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Path, or that it is unknown.
    pub path: String,
    /// Pod.
    pub pod: Option<String>,
    /// Container.
    pub container: Option<String>,
    /// It was removed.
    pub dead: bool,
    /// kernfs id of the cgroup above.
    pub parent: Option<u64>,
    /// The last reading of its files before the kill.
    pub read: Option<Reading>,
    /// Readings over time.
    pub history: History,
}

/// A reading of a cgroup's files.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Seconds before the kill.
    pub age_s: f64,
    /// Usage.
    pub usage: Option<u64>,
    /// Bytes by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Page cache on the active list, bytes.
    pub active_file: Option<u64>,
    /// Page cache on the inactive list, bytes.
    pub inactive_file: Option<u64>,
    /// Dirty page cache, bytes.
    pub dirty: Option<u64>,
    /// Under writeback, bytes.
    pub writeback: Option<u64>,
}

/// Why a warning is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warning {
    /// This share of the limit is held, or more.
    Share(f64),
    /// At its present slope the limit is reached in so many seconds.
    Within(f64),
    /// v1: the limit is met, killing is off there, and tasks wait for memory.
    Waiting,
}

/// Everything that an autopsy is made from.
#[derive(Clone, Debug)]
pub struct KillFacts {
    /// Nobody was killed: why this is told.
    pub warning: Option<Warning>,
    /// The kernel half's event; for a warning, made from a reading.
    pub kill: OomKill,
    /// Its victims, in order.
    pub victims: Vec<OomVictim>,
    /// Wall clock, RFC 3339.
    pub time: String,
    /// Seconds since the start of the recording.
    pub at_s: f64,
    /// Interface of the memory hierarchy.
    pub version: Version,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The host has one memory node.
    pub one_node: bool,
    /// Which figures of memory.stat are read rightly by their number (see [`figures::stat`]).
    pub trusted: [bool; OOM_STATS],
    /// Cgroups by kernfs id: all levels, and those below the innermost limit.
    pub places: HashMap<u64, Place>,
    /// What was live, by owner; `None` without a picture. Dead owners included.
    pub stacks: Option<Vec<(u64, LiveStack)>>,
    /// Files and regions; `None` without a picture.
    pub evidence: Option<Evidence>,
    /// Cgroups by what they grew for themselves (see [`growth::of_their_own`]).
    pub growers: Vec<(u64, Growth)>,
    /// The trigger's stacks, outermost first.
    pub user_stack: Option<Vec<String>>,
    /// See `user_stack`.
    pub kernel_stack: Option<Vec<String>>,
    /// Kernel stacks of victims by identity.
    pub victim_stacks: HashMap<u64, Vec<String>>,
    /// What only the kernel's log told: limit's path. `None` where it was not asked.
    pub logged_limit: Option<String>,
}

/// What the collector found.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Rows of owners by kernfs id, as of the picture; those of the living with figures of the last reading of their files.
    pub cgroups: Vec<(u64, Cgroup)>,
    /// So many seconds after the kill it was asked which pages wait for the disk.
    pub swept_after_s: f64,
    /// By kernfs id of the cgroup: so many seconds before the kill the first of its processes was looked into.
    pub surveyed_before_s: HashMap<u64, f64>,
}

pub(super) fn levels(kill: &OomKill) -> &[OomLevel] {
    kill.levels.get(..kill.level_count as usize).unwrap_or_default()
}

pub(super) fn path(facts: &KillFacts, id: u64) -> String {
    facts.places.get(&id).map_or_else(|| format!("[unknown cgroup {id}]"), |place| place.path.clone())
}

pub(super) fn comm(task: &OomTask) -> Option<String> {
    Some(crate::host::proc::comm::text(&task.comm)).filter(|comm| !comm.is_empty())
}

/// The cgroup and those above it.
pub(super) fn ancestry(facts: &KillFacts, id: u64) -> impl Iterator<Item = u64> {
    // As deep as paths can be; a cycle in what came from outside ends there.
    std::iter::successors(Some(id), |id| facts.places.get(id).and_then(|place| place.parent)).take(256)
}

pub(super) fn is_below(facts: &KillFacts, id: u64, above: u64) -> bool {
    ancestry(facts, id).any(|id| id == above)
}

/// `1 min`, or as long as there was something to compare with.
#[must_use]
pub fn window_text(window_s: f64) -> String {
    units::seconds(window_s.round().max(1.0)).unwrap_or_else(|| "?".to_owned())
}
