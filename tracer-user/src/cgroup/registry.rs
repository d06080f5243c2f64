//! The cgroups of the memory hierarchy, alive and dead. Pure: events and listings in, names out.
//!
//! The dead keep their names as long as somebody still owns bytes of theirs (the caller says who). Ids are never used again, so
//! death is final: an older listing cannot bring a cgroup back. Everything that a bound refuses or drops is counted.

use super::listing::{Listed, Listing};
use super::{CgroupId, CgroupPath};
use std::collections::{HashMap, HashSet};
use tracer_common::event::{CgroupChange, CgroupEvent, PATH_BYTES};

/// Stands for all removed cgroups that own nothing and of which only sums were kept. No cgroup has this id: they count up from 1.
pub const REMOVED: CgroupId = CgroupId(u64::MAX);

/// Whether a cgroup still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum State {
    /// It does.
    Alive,
    /// It was removed.
    Dead {
        /// Monotonic nanoseconds of the removal, or of the listing that noticed it.
        at_ns: u64,
        /// Whether the time is that of the removal itself.
        exact: bool,
    },
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// kernfs id.
    pub id: CgroupId,
    /// Path below the hierarchy's root.
    pub path: CgroupPath,
    /// The path came from an event that could not hold all of it: its end is missing.
    pub path_cut: bool,
    /// Id of the cgroup above, where known; `None` for the root.
    pub parent: Option<CgroupId>,
    /// Levels below the root.
    pub depth: u32,
    /// Alive or dead.
    pub state: State,
    /// Monotonic nanoseconds at which memtrail learnt of it.
    pub seen_ns: u64,
}

/// What bounds refused and repairs found, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Cgroups without an entry because the registry was full.
    pub refused: u64,
    /// Dead cgroups that still owned bytes, forgotten because there were too many.
    pub forgotten: u64,
    /// Events that made no sense: unknown change, empty path.
    pub malformed: u64,
    /// Cgroups that a listing showed and no event had.
    pub found_by_listing: u64,
    /// Cgroups whose removal only a listing showed.
    pub died_unseen: u64,
    /// Paths that a listing corrected: cut ones and renamed cgroups.
    pub paths_repaired: u64,
}

/// Which cgroups exist or existed.
#[derive(Clone, Debug)]
pub struct Registry {
    hierarchy: u32,
    most: usize,
    cgroups: HashMap<CgroupId, Cgroup>,
    /// The living by path, for finding parents.
    by_path: HashMap<CgroupPath, CgroupId>,
    counters: Counters,
}

/// The name of a cgroup for outputs: its path, with `...` where it `is_cut`, or that it is unknown.
#[must_use]
pub fn name(id: CgroupId, path: Option<(&CgroupPath, bool)>) -> String {
    match path {
        None if id == REMOVED => "[removed cgroups]".to_owned(),
        Some((path, is_cut)) => format!("{path}{}", if is_cut { "..." } else { "" }),
        None => format!("[unknown cgroup {id}]"),
    }
}

impl Registry {
    /// An empty registry of the hierarchy with that number, for at most `most` cgroups.
    #[must_use]
    pub fn new(hierarchy: u32, most: usize) -> Self {
        Registry { hierarchy, most, cgroups: HashMap::new(), by_path: HashMap::new(), counters: Counters::default() }
    }

    /// The cgroup with that id.
    #[must_use]
    pub fn get(&self, id: CgroupId) -> Option<&Cgroup> {
        self.cgroups.get(&id)
    }

    /// All cgroups, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Cgroup> {
        self.cgroups.values()
    }

    /// Number of cgroups known, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cgroups.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cgroups.is_empty()
    }

    /// What was refused, dropped and repaired so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The cgroup and those above it, innermost first, as far as they are known.
    pub fn ancestry(&self, id: CgroupId) -> impl Iterator<Item = &Cgroup> {
        // A parent is always one level higher, so that wrong ids from outside cannot make a cycle.
        std::iter::successors(self.get(id), |c| c.parent.and_then(|p| self.get(p)).filter(|p| p.depth < c.depth))
    }

    /// The name for outputs: the path, with `...` where it is cut, or that the cgroup is unknown.
    #[must_use]
    pub fn name(&self, id: CgroupId) -> String {
        name(id, self.get(id).map(|cgroup| (&cgroup.path, cgroup.path_cut)))
    }

    /// Takes an event in. Events of other hierarchies are passed over. Returns whether the registry should be repaired from a
    /// listing: the path was cut, or the cgroup above is not known.
    pub fn apply(&mut self, event: &CgroupEvent) -> bool {
        if event.hierarchy != self.hierarchy {
            return false;
        }
        let id = CgroupId(event.id);
        let kept = (event.path_length as usize).min(PATH_BYTES);
        let cut = event.path_length as usize > PATH_BYTES;
        // The kernel half may count the terminator in.
        let bytes = without_trailing_nul(&event.path[..kept]);
        let made = event.change == CgroupChange::Made as u32;
        let path = CgroupPath::from_bytes(bytes).filter(|_| bytes.first() == Some(&b'/'));
        let Some(path) = path.filter(|_| made || event.change == CgroupChange::Removed as u32) else {
            self.counters.malformed += 1;
            return true;
        };
        // What a longer path was cut to is not the path of its parent's child: no parent can be found by it.
        let parent = if cut { None } else { path.parent().and_then(|p| self.by_path.get(&p).copied()) };
        let depth = event.level;
        let seen = Cgroup { id, path, path_cut: cut, parent, depth, state: State::Alive, seen_ns: event.at_ns };
        let orphan = parent.is_none() && depth > 0;
        self.insert_unless_known(seen);
        if !made {
            self.bury(id, event.at_ns, true);
        }
        orphan && made
    }

    /// Corrects the registry from a full listing: adds what is missing, corrects paths, and buries what is gone.
    pub fn repair(&mut self, listing: &Listing) {
        let mut listed = HashSet::with_capacity(listing.cgroups.len());
        for cgroup in &listing.cgroups {
            listed.insert(cgroup.id);
            if self.cgroups.contains_key(&cgroup.id) {
                self.correct(cgroup);
            } else if self.insert_unless_known(alive(cgroup, listing.started_ns)) {
                self.counters.found_by_listing += 1;
            }
        }
        if !listing.is_complete() {
            return;
        }
        // One that was made after the walk had begun may stand in a directory that was read before.
        let gone = |c: &&Cgroup| c.state == State::Alive && !listed.contains(&c.id) && c.seen_ns < listing.started_ns;
        let gone: Vec<CgroupId> = self.cgroups.values().filter(gone).map(|c| c.id).collect();
        for id in gone {
            self.counters.died_unseen += 1;
            self.bury(id, listing.started_ns, false);
        }
    }

    /// Forgets the dead for which `owns_bytes` is false, unless they are above one that is kept; of the rest, the
    /// longest dead beyond `most_dead`.
    pub fn retain_dead(&mut self, owns_bytes: impl Fn(CgroupId) -> bool, most_dead: usize) {
        let dead_since = |c: &Cgroup| match c.state {
            State::Alive => None,
            State::Dead { at_ns, .. } => Some(at_ns),
        };
        let mut owners: Vec<(u64, CgroupId)> =
            self.cgroups.values().filter_map(|c| dead_since(c).filter(|_| owns_bytes(c.id)).map(|at| (at, c.id))).collect();
        owners.sort_unstable_by(|a, b| b.cmp(a));
        let forgotten = owners.len().saturating_sub(most_dead);
        owners.truncate(most_dead);
        self.counters.forgotten += forgotten as u64;
        let keep: HashSet<CgroupId> = owners.iter().flat_map(|(_, id)| self.ancestry(*id).map(|c| c.id)).collect();
        self.cgroups.retain(|id, c| c.state == State::Alive || keep.contains(id));
    }

    /// Returns whether there is a new entry.
    pub(crate) fn insert_unless_known(&mut self, cgroup: Cgroup) -> bool {
        if self.cgroups.contains_key(&cgroup.id) {
            return false;
        }
        if self.cgroups.len() >= self.most {
            self.counters.refused += 1;
            return false;
        }
        if cgroup.state == State::Alive && !cgroup.path_cut {
            self.by_path.insert(cgroup.path.clone(), cgroup.id);
        }
        self.cgroups.insert(cgroup.id, cgroup);
        true
    }

    fn correct(&mut self, listed: &Listed) {
        let Some(known) = self.cgroups.get_mut(&listed.id) else { return };
        known.parent = listed.parent;
        known.depth = listed.depth;
        if known.path == listed.path && !known.path_cut {
            return;
        }
        self.counters.paths_repaired += 1;
        let old = std::mem::replace(&mut known.path, listed.path.clone());
        let was_cut = std::mem::replace(&mut known.path_cut, false);
        if known.state == State::Alive {
            if !was_cut && self.by_path.get(&old) == Some(&listed.id) {
                self.by_path.remove(&old);
            }
            self.by_path.insert(listed.path.clone(), listed.id);
        }
    }

    fn bury(&mut self, id: CgroupId, at_ns: u64, exact: bool) {
        let Some(cgroup) = self.cgroups.get_mut(&id) else { return };
        match cgroup.state {
            State::Alive => {}
            // A listing noticed it before the event was read, which has the time.
            State::Dead { exact: false, .. } if exact => {
                cgroup.state = State::Dead { at_ns, exact };
                return;
            }
            State::Dead { .. } => return,
        }
        cgroup.state = State::Dead { at_ns, exact };
        if self.by_path.get(&cgroup.path) == Some(&id) {
            self.by_path.remove(&cgroup.path);
        }
    }
}

fn without_trailing_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)]
}

fn alive(listed: &Listed, seen_ns: u64) -> Cgroup {
    let Listed { id, parent, path, depth } = listed.clone();
    Cgroup { id, path, path_cut: false, parent, depth, state: State::Alive, seen_ns }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
