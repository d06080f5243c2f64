//! Cgroups that were removed before memtrail started, from what the kernel half found of them. Pure.
//!
//! No event and no listing has them. They are known to be dead, and not since when.

use super::{
    CgroupId,
    registry::{Cgroup, Registry, State},
};
use tracer_common::{
    file::NAME_BYTES,
    owner::{MOST_LEVELS, OwnerName},
};

impl Registry {
    /// Takes in the owner of that name, and those above it that are not known either. Returns whether anything was learnt: not so if the
    /// walk did not come to a cgroup that is known, or to the root.
    pub fn learn_dead(&mut self, name: &OwnerName, now_ns: u64) -> bool {
        let levels = levels(name);
        let known = levels.iter().position(|(id, _)| self.get(*id).is_some());
        let (mut above, unknown) = match known {
            Some(at) => (levels.get(at).and_then(|(id, _)| self.get(*id)).cloned(), &levels[..at]),
            None if name.whole == 1 => (self.iter().find(|cgroup| cgroup.depth == 0).cloned(), &levels[..]),
            None => return false,
        };
        let mut learnt = false;
        for (id, component) in unknown.iter().rev() {
            let Some(parent) = above else { return learnt };
            let dead = Cgroup {
                id: *id,
                path: parent.path.join(component),
                path_cut: parent.path_cut,
                parent: Some(parent.id),
                depth: parent.depth + 1,
                state: State::Dead { at_ns: now_ns, exact: false },
                seen_ns: now_ns,
            };
            learnt |= self.insert_unless_known(dead.clone());
            above = Some(dead);
        }
        learnt
    }
}

/// Ids and names, the owner's own first.
fn levels(name: &OwnerName) -> Vec<(CgroupId, &[u8])> {
    let count = (name.levels as usize).min(MOST_LEVELS);
    let names = name.names[..NAME_BYTES].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    name.ids[..count].iter().map(|id| CgroupId(*id)).zip(names).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cgroup::{
        CgroupPath,
        listing::{Listed, Listing},
    };

    fn name(levels: &[(u64, &str)], whole: u32) -> OwnerName {
        let mut name = OwnerName { ids: [0; MOST_LEVELS], levels: levels.len() as u32, whole, names: [0; NAME_BYTES] };
        let mut at = 0;
        for (index, (id, component)) in levels.iter().enumerate() {
            name.ids[index] = *id;
            name.names[at..at + component.len()].copy_from_slice(component.as_bytes());
            at += component.len() + 1;
        }
        name
    }

    fn registry() -> Registry {
        let mut registry = Registry::new(1, 100);
        let listed = |id, parent: Option<u64>, path: &str, depth| Listed {
            id: CgroupId(id),
            parent: parent.map(CgroupId),
            path: CgroupPath::from_bytes(path.as_bytes()).unwrap(),
            depth,
        };
        let cgroups = vec![listed(1, None, "/", 0), listed(5, Some(1), "/pod", 1)];
        registry.repair(&Listing { cgroups, ..Listing::default() });
        registry
    }

    #[test]
    fn the_dead_are_named_below_the_living() {
        let mut registry = registry();
        assert!(registry.learn_dead(&name(&[(9, "old"), (5, "pod")], 1), 7));
        let old = registry.get(CgroupId(9)).unwrap();
        assert_eq!((old.path.to_string().as_str(), old.parent, old.depth), ("/pod/old", Some(CgroupId(5)), 2));
        assert_eq!(old.state, State::Dead { at_ns: 7, exact: false });
        assert!(!registry.learn_dead(&name(&[(9, "old"), (5, "pod")], 1), 8), "known by now");
    }

    #[test]
    fn dead_ones_above_are_learnt_too_and_a_cut_walk_nothing() {
        let mut registry = registry();
        assert!(!registry.learn_dead(&name(&[(9, "c"), (8, "gone")], 0), 7));
        assert!(registry.learn_dead(&name(&[(9, "c"), (8, "gone")], 1), 7));
        assert_eq!(registry.name(CgroupId(9)), "/gone/c");
        assert_eq!(registry.name(CgroupId(8)), "/gone");
        assert!(!registry.learn_dead(&name(&[], 0), 7));
    }

    #[test]
    fn any_record_is_harmless() {
        let mut wild = name(&[(9, "a/b\n")], 1);
        wild.levels = u32::MAX;
        assert!(registry().learn_dead(&wild, 7));
        wild.names = [b'x'; NAME_BYTES];
        registry().learn_dead(&wild, 7);
    }
}
