//! What a cgroup owns for itself, where the kernel only says what it owns together with its children. Pure.
//!
//! `local = subtree - children`. The readings are taken one after another and each may be stale, so a small difference can come
//! out negative: it is kept. Growth between the readings is in the difference; the time between them is stated.
//! On v2 the memory of removed children is in their parent's difference until the ledger takes it out.

use super::CgroupId;
use super::stat::{Source, StatReading};
use std::collections::{BTreeMap, HashMap};

/// One cgroup of a tree of readings. Children must have been read before their parents.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// kernfs id.
    pub id: CgroupId,
    /// The cgroup above, if there is one.
    pub parent: Option<CgroupId>,
    /// What the kernel said.
    pub reading: &'a StatReading,
}

/// How a local figure was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel said so.
    Direct(Source),
    /// The subtree's figure less the children's.
    Difference(Source),
}

/// What a cgroup owns of one kind for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalFigure {
    /// Bytes; slightly negative where a child was read at a higher figure than its parent shows.
    pub bytes: i64,
    /// How it was found.
    pub origin: Origin,
}

/// What a cgroup owns for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFigures {
    /// By kind. A kind that a child does not tell is absent.
    pub kinds: BTreeMap<&'static str, LocalFigure>,
    /// Nanoseconds between the first child's reading and the cgroup's own: growth meanwhile counts as the cgroup's.
    pub skew_ns: u64,
}

/// Local figures of every node.
#[must_use]
pub fn local_figures(nodes: &[Node<'_>]) -> HashMap<CgroupId, LocalFigures> {
    let mut children: HashMap<CgroupId, Vec<&StatReading>> = HashMap::with_capacity(nodes.len());
    for node in nodes {
        if let Some(parent) = node.parent.filter(|p| *p != node.id) {
            children.entry(parent).or_default().push(node.reading);
        }
    }
    let none = Vec::new();
    let figures = |node: &Node<'_>| of_one(node.reading, children.get(&node.id).unwrap_or(&none));
    nodes.iter().map(|node| (node.id, figures(node))).collect()
}

fn of_one(reading: &StatReading, children: &[&StatReading]) -> LocalFigures {
    // A v1 cgroup without use_hierarchy does not hold its children's charges.
    let children = if reading.hierarchical == Some(false) { &[] } else { children };
    let first = children.iter().map(|c| c.at_ns).min().unwrap_or(reading.at_ns);
    let mut figures = LocalFigures { kinds: BTreeMap::new(), skew_ns: reading.at_ns.saturating_sub(first) };
    for (kind, whole) in &reading.subtree.kinds {
        let below = children.iter().map(|c| c.subtree.kinds.get(kind).map(|f| i128::from(f.bytes))).sum::<Option<i128>>();
        let Some(bytes) = below.and_then(|below| i64::try_from(i128::from(whole.bytes) - below).ok()) else { continue };
        figures.kinds.insert(kind, LocalFigure { bytes, origin: Origin::Difference(whole.source) });
    }
    for (kind, own) in &reading.local.kinds {
        let Ok(bytes) = i64::try_from(own.bytes) else { continue };
        figures.kinds.insert(kind, LocalFigure { bytes, origin: Origin::Direct(own.source) });
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::super::stat::CgroupFile;
    use super::*;

    fn reading(version: Version, at_ns: u64, stat: &str) -> StatReading {
        let mut reading = StatReading::new(version, at_ns);
        reading.absorb(CgroupFile::Stat, stat.as_bytes());
        reading
    }

    fn node(id: u64, parent: u64, reading: &StatReading) -> Node<'_> {
        Node { id: CgroupId(id), parent: (parent > 0).then_some(CgroupId(parent)), reading }
    }

    #[test]
    fn v2_local_is_the_subtree_less_the_children() {
        let parent = reading(Version::V2, 100, "anon 1000\nfile 500\nshmem 100\n");
        let a = reading(Version::V2, 70, "anon 300\nfile 450\nshmem 0\n");
        let b = reading(Version::V2, 80, "anon 600\nfile 0\nshmem 0\n");
        let grandchild = reading(Version::V2, 60, "anon 250\nfile 450\nshmem 0\n");
        let local = local_figures(&[node(1, 0, &parent), node(2, 1, &a), node(3, 1, &b), node(4, 2, &grandchild)]);
        let of = |id, kind| local[&CgroupId(id)].kinds[kind];
        assert_eq!(of(1, "anon"), LocalFigure { bytes: 100, origin: Origin::Difference(Source::Stat) });
        assert_eq!(of(1, "file").bytes, -50, "a child read at a higher figure");
        assert_eq!((of(2, "anon").bytes, of(4, "anon").bytes), (50, 250));
        assert_eq!(local[&CgroupId(1)].skew_ns, 30);
    }

    #[test]
    fn a_kind_unknown_in_a_child_is_unknown() {
        let parent = reading(Version::V2, 2, "anon 10\nsock 4\n");
        let child = reading(Version::V2, 1, "anon 3\n");
        let local = local_figures(&[node(1, 0, &parent), node(2, 1, &child)]);
        assert_eq!(local[&CgroupId(1)].kinds.get("sock"), None);
        assert_eq!(local[&CgroupId(1)].kinds["anon"].bytes, 7);
    }

    #[test]
    fn v1_lines_are_local_and_its_counters_are_not() {
        let mut parent = reading(Version::V1, 2, "rss 10\ncache 5\nshmem 1\ntotal_rss 30\n");
        parent.absorb(CgroupFile::Kernel, b"100\n");
        let mut child = reading(Version::V1, 1, "rss 20\ntotal_rss 20\n");
        child.absorb(CgroupFile::Kernel, b"60\n");
        let local = local_figures(&[node(1, 0, &parent), node(2, 1, &child)]);
        let kinds = &local[&CgroupId(1)].kinds;
        assert_eq!(kinds["anon"], LocalFigure { bytes: 10, origin: Origin::Direct(Source::Stat) });
        assert_eq!(kinds["kernel"], LocalFigure { bytes: 40, origin: Origin::Difference(Source::Counter) });
        parent.absorb(CgroupFile::UseHierarchy, b"0\n");
        let flat = local_figures(&[node(1, 0, &parent), node(2, 1, &child)]);
        assert_eq!(flat[&CgroupId(1)].kinds["kernel"].bytes, 100, "children are not charged here");
    }
}
