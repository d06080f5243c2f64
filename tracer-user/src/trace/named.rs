//! What the names of containers decide: the filter is told of them, and which of the names that it asks for nobody has.

use super::filter::Filter;
use crate::{
    cgroup::{CgroupPath, Registry},
    containers::{KnownNames, Names},
};
use std::time::Duration;

/// Longest wait for the names of what is there at the start, where they decide what is recorded.
const AT_START: Duration = Duration::from_secs(2);
/// Asks for the names of these cgroups, and tells the filter what is known already.
pub(super) fn learn<'a>(names: &mut KnownNames, filter: &mut Filter, paths: impl Iterator<Item = &'a CgroupPath>) {
    for path in paths {
        names.learn(path);
        tell(names, filter, path);
    }
}

/// The same, and waits for the answers where the filter needs them.
pub(super) fn learn_first<'a>(names: &mut KnownNames, filter: &mut Filter, paths: impl Iterator<Item = &'a CgroupPath>) {
    learn(names, filter, paths);
    let longest = if filter.has_names() { AT_START } else { Duration::ZERO };
    for path in names.settle(longest) {
        tell(names, filter, &path);
    }
}

/// Whether that decides something.
pub(super) fn tell(names: &KnownNames, filter: &mut Filter, path: &CgroupPath) -> bool {
    names.names(path).is_some_and(|names| filter.learn(path, &names))
}

/// Names that the filter asks for and no cgroup has.
pub(super) fn unmatched(names: &KnownNames, filter: &Filter, registry: &Registry) -> Vec<String> {
    if !filter.has_names() {
        return Vec::new();
    }
    let known: Vec<Names> = registry.iter().filter_map(|cgroup| names.names(&cgroup.path)).collect();
    filter.unmatched_names(&known)
}
