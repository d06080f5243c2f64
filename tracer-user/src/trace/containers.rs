//! Names of containers as a trace goes on: what is new is looked up at once, what had no files yet a few times more, and the filter and the
//! kernel half are told what that decides.

use super::{
    filter::Filter,
    owners,
    session::{Session, SessionError},
};
use crate::{
    cgroup::{CgroupId, CgroupPath, Registry, StatReading, registry::State},
    containers::{Book, Names},
};
use std::collections::HashMap;

/// Looks for the names of these cgroups, and tells the filter.
pub(super) fn learn<'a>(names: &mut Book, filter: &mut Filter, paths: impl Iterator<Item = &'a CgroupPath>) {
    for path in paths {
        names.learn(path);
        if let Some(names) = names.names(path) {
            filter.learn(path, &names);
        }
    }
}

/// Names that the filter asks for and no cgroup has.
pub(super) fn unmatched(names: &Book, filter: &Filter, registry: &Registry) -> Vec<String> {
    if !filter.has_names() {
        return Vec::new();
    }
    let known: Vec<Names> = registry.iter().filter_map(|cgroup| names.names(&cgroup.path)).collect();
    filter.unmatched_names(&known)
}

impl Session {
    /// Looks again for what had no name. What that decides is told to the kernel half.
    pub(super) fn name_containers(&mut self) -> Result<(), SessionError> {
        let paths = self.names.learn_again();
        let mut decided = Vec::new();
        for path in paths {
            if let Some(names) = self.names.names(&path)
                && self.filter.learn(&path, &names)
            {
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
