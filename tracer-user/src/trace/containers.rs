//! Names of containers as a trace goes on: what is new is asked for at once, what had no files yet a few times more, and the filter and the
//! kernel half are told what the answers decide, whenever they come. Until then nothing is refused that may be wanted.

use super::{
    named::tell,
    owners,
    session::{Session, SessionError},
};
use crate::cgroup::{CgroupId, CgroupPath, StatReading, registry::State};
use std::{collections::HashMap, time::Duration};

/// Longest wait for names before a report or an autopsy.
const AT_REPORT: Duration = Duration::from_millis(500);

impl Session {
    /// Asks again for what had no name, and takes in what was found. At each interval; it never waits.
    pub(super) fn name_containers(&mut self) -> Result<(), SessionError> {
        let paths = self.names.learn_again();
        self.tell_names(paths, Duration::ZERO)
    }

    /// The same before a report or an autopsy: what was asked for a moment ago is waited for, but not long.
    pub(super) fn settle_names(&mut self) -> Result<(), SessionError> {
        let paths = self.names.learn_again();
        self.tell_names(paths, AT_REPORT)
    }

    /// Takes in what was found by now.
    pub(super) fn take_names_in(&mut self) -> Result<(), SessionError> {
        self.tell_names(Vec::new(), Duration::ZERO)
    }

    /// What names decide of these cgroups, and of those that answers are about, is told to the kernel half.
    fn tell_names(&mut self, paths: Vec<CgroupPath>, longest: Duration) -> Result<(), SessionError> {
        let answered = self.names.settle(longest);
        let mut decided = Vec::new();
        for path in paths.into_iter().chain(answered) {
            if tell(&self.names, &mut self.filter, &path) {
                decided.push(path);
            }
        }
        if decided.is_empty() {
            return Ok(());
        }
        // What is below a pod is decided with it.
        let is_below =
            |path: &CgroupPath| std::iter::successors(Some(path.clone()), CgroupPath::parent).any(|path| decided.contains(&path));
        let living = self.registry.iter().filter(|cgroup| cgroup.state == State::Alive && is_below(&cgroup.path));
        let cgroups = living.map(|cgroup| (cgroup.id, &cgroup.path));
        Ok(owners::write(&mut self.running.bpf, &self.filter, &self.running.rates, &HashMap::new(), cgroups)?)
    }

    /// Figures of the living cgroups above those that are read: their limits hold for them too.
    pub(super) fn above(&mut self, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, StatReading> {
        let read: std::collections::HashSet<CgroupId> = readings.iter().map(|(id, _)| *id).collect();
        let wanted = self.registry.iter().filter(|cgroup| self.filter.wants(&cgroup.path));
        let above = wanted.flat_map(|cgroup| self.registry.ancestry(cgroup.id)).filter(|cgroup| cgroup.state == State::Alive);
        let above: HashMap<CgroupId, &CgroupPath> = above.map(|cgroup| (cgroup.id, &cgroup.path)).collect();
        let above = above.into_iter().filter(|(id, _)| !read.contains(id));
        above.filter_map(|(id, path)| Some((id, self.poller.read_one(id, path).ok().flatten()?))).collect()
    }
}
