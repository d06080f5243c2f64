//! The cgroups of a snapshot: what they are called, which are above which, and what the kernel says of them.

use crate::{
    cgroup::{
        CgroupId, CgroupPath, StatReading,
        history::Point,
        registry::{self, REMOVED, State},
    },
    report::HistogramRow,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// One cgroup that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// kernfs id.
    pub id: CgroupId,
    /// Path below the hierarchy's root.
    pub path: CgroupPath,
    /// The path's end is missing: the event that brought it could not hold all of it.
    pub path_cut: bool,
    /// The cgroup above.
    pub parent: Option<CgroupId>,
    /// Levels below the root.
    pub depth: u32,
    /// Alive or dead.
    pub state: State,
    /// The filter wants it.
    pub wanted: bool,
    /// What those who run it call it.
    pub names: CgroupNames,
}

/// What those who run a cgroup call it. Not escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupNames {
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// Id of the container.
    pub container: Option<String>,
    /// Runtime.
    pub runtime: Option<String>,
    /// Name of the pod.
    pub pod: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Name of the container.
    pub name: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// Restart count.
    pub restart: Option<u32>,
}

/// Events that the kernel counts since a cgroup was made; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pages of page cache that were read again after they had been dropped.
    pub refaulted_pages: Option<u64>,
    /// Charges beyond memory.high.
    pub high: Option<u64>,
}

impl Counts {
    /// Those of a reading, with what is below the cgroup.
    #[must_use]
    pub fn of(reading: &StatReading) -> Counts {
        Counts { refaulted_pages: reading.subtree.refaulted_pages, high: reading.events.high }
    }
}

/// All cgroups, with the kernel's figures of those that were read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroups {
    /// By kernfs id.
    pub known: HashMap<CgroupId, Known>,
    /// A cgroup without a name is wanted: there is no filter that needs one.
    pub nameless_wanted: bool,
    /// The kernel's figures of wanted ones that are alive.
    pub readings: HashMap<CgroupId, StatReading>,
    /// Those of cgroups that are not wanted, but above one that is.
    pub above: HashMap<CgroupId, StatReading>,
    /// By kind: what each owned for itself right after counting began, bytes.
    pub first: HashMap<CgroupId, BTreeMap<String, i64>>,
    /// Readings of usage and kinds in the last quarter of an hour, oldest first; the last one is that of the snapshot.
    #[serde(default)]
    pub recent: HashMap<CgroupId, Vec<Point>>,
    /// Least dirty and writeback bytes of the last readings.
    pub sustained: HashMap<CgroupId, u64>,
    /// Dirty and writeback bytes at the first reading.
    pub unwritten_first: HashMap<CgroupId, u64>,
    /// The most that the kernel says a cgroup ever used, bytes.
    #[serde(default)]
    pub kernel_peaks: HashMap<CgroupId, u64>,
    /// Counts at the first reading.
    #[serde(default)]
    pub first_counts: HashMap<CgroupId, Counts>,
    /// Distributions by name.
    pub histograms: HashMap<CgroupId, BTreeMap<String, HistogramRow>>,
    /// Values that found no room in them.
    pub histogram_losses: HashMap<CgroupId, u64>,
}

impl Cgroups {
    /// The cgroup with that id.
    #[must_use]
    pub fn get(&self, id: CgroupId) -> Option<&Known> {
        self.known.get(&id)
    }

    /// The cgroup and those above it, innermost first, as far as they are known.
    pub fn ancestry(&self, id: CgroupId) -> impl Iterator<Item = &Known> {
        // A parent is always one level higher, so that wrong ids from outside cannot make a cycle.
        std::iter::successors(self.get(id), |c| c.parent.and_then(|p| self.get(p)).filter(|p| p.depth < c.depth))
    }

    /// The name for outputs: the path, with `...` where it is cut, or that the cgroup is unknown.
    #[must_use]
    pub fn name(&self, id: CgroupId) -> String {
        registry::name(id, self.get(id).map(|cgroup| (&cgroup.path, cgroup.path_cut)))
    }

    /// Whether a cgroup is in the report.
    #[must_use]
    pub fn wanted(&self, id: CgroupId) -> bool {
        match self.get(id) {
            // Only wanted ones are in it.
            None if id == REMOVED => true,
            Some(cgroup) => cgroup.wanted,
            None => self.nameless_wanted,
        }
    }

    /// The kernel's figures of a wanted cgroup that is alive.
    #[must_use]
    pub fn read(&self, id: CgroupId) -> Option<&StatReading> {
        self.readings.get(&id)
    }
}
