//! How stale memory.stat may be. Pure: facts about the kernel in, a bound out.
//!
//! The counters (usage, kmem) are exact at once. memory.stat is not: the kernel collects changes per CPU and adds them up later.

use super::Version;
use std::time::Duration;

/// How a kernel collects the changes of memory.stat. Told by its BTF, not by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// 5.10: each CPU keeps up to 32 pages of each item of each cgroup for itself.
    PerCpuItem,
    /// 5.15 to 6.6: a reader flushes when a threshold of all cgroups together is passed and nobody else is flushing; else up to
    /// two seconds pass.
    GlobalThreshold,
    /// 6.8 and later: a reader flushes when the threshold of the cgroup read is passed.
    CgroupThreshold,
}

impl Batching {
    /// From BTF: whether `struct memcg_vmstats` exists, and whether it has a member `stats_updates`.
    #[must_use]
    pub const fn from_btf(memcg_vmstats: bool, stats_updates: bool) -> Self {
        match (memcg_vmstats, stats_updates) {
            (_, true) => Batching::CgroupThreshold,
            (true, false) => Batching::GlobalThreshold,
            (false, false) => Batching::PerCpuItem,
        }
    }
}

/// Which figures are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The cgroup for itself (v1 lines without `total_`).
    Local,
    /// The cgroup and what is below it: so many cgroups, itself included.
    Subtree {
        /// Cgroups in the subtree, removed ones that still own memory too.
        cgroups: u64,
    },
}

/// How far a line of memory.stat can be from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// At most so many bytes; `None` if only the age is bounded.
    pub bytes: Option<u64>,
    /// Changes older than this are in; `None` where the kernel has no periodic flush (the byte bound then holds for ever).
    pub age: Option<Duration>,
}

/// The kernel's periodic flush (FLUSH_TIME in memcontrol.c). It is a deferrable work: an idle CPU may add some.
const PERIODIC_FLUSH: Duration = Duration::from_secs(2);

/// The bound for one line of memory.stat on a host with `cpus` CPUs online and pages of `page_bytes`.
#[must_use]
pub fn staleness(batching: Batching, version: Version, extent: Extent, cpus: u32, page_bytes: u32) -> Staleness {
    let pages =
        |per_cpu: u64, times: u64| per_cpu.saturating_mul(u64::from(cpus)).saturating_mul(u64::from(page_bytes)).saturating_mul(times);
    match (batching, version, extent) {
        // memcg_page_state_local of 5.10 adds up the CPUs at each reading.
        (Batching::PerCpuItem, Version::V1, Extent::Local) => Staleness { bytes: Some(0), age: None },
        // Each cgroup below keeps its own batch before it adds to its ancestors.
        (Batching::PerCpuItem, _, Extent::Subtree { cgroups }) => Staleness { bytes: Some(pages(32, cgroups.max(1))), age: None },
        (Batching::PerCpuItem, Version::V2, Extent::Local) => Staleness { bytes: Some(pages(32, 1)), age: None },
        (Batching::GlobalThreshold, ..) => Staleness { bytes: None, age: Some(PERIODIC_FLUSH) },
        // A flush is skipped up to 64 pages a CPU (memcg_vmstats_needs_flush), and each CPU reports its updates to that threshold
        // in lots of 64 (memcg_rstat_updated): so twice that, and not the once that the kernel's comment says.
        (Batching::CgroupThreshold, ..) => Staleness { bytes: Some(pages(64, 2)), age: Some(PERIODIC_FLUSH) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBTREE: Extent = Extent::Subtree { cgroups: 3 };

    #[test]
    fn told_by_btf() {
        assert_eq!(Batching::from_btf(false, false), Batching::PerCpuItem);
        assert_eq!(Batching::from_btf(true, false), Batching::GlobalThreshold);
        assert_eq!(Batching::from_btf(true, true), Batching::CgroupThreshold);
    }

    #[test]
    fn bounds_in_bytes() {
        let bytes = |batching, version, extent| staleness(batching, version, extent, 4, 4096).bytes;
        assert_eq!(bytes(Batching::PerCpuItem, Version::V2, SUBTREE), Some(32 * 4 * 4096 * 3));
        assert_eq!(bytes(Batching::PerCpuItem, Version::V1, Extent::Local), Some(0));
        assert_eq!(bytes(Batching::GlobalThreshold, Version::V2, SUBTREE), None);
        assert_eq!(bytes(Batching::CgroupThreshold, Version::V2, SUBTREE), Some(2 * 64 * 4 * 4096));
        assert_eq!(staleness(Batching::CgroupThreshold, Version::V1, SUBTREE, u32::MAX, u32::MAX).bytes, Some(u64::MAX));
    }

    #[test]
    fn age_is_bounded_where_there_is_a_periodic_flush() {
        let age = |batching| staleness(batching, Version::V2, SUBTREE, 1, 4096).age;
        assert_eq!(age(Batching::PerCpuItem), None);
        assert_eq!(age(Batching::GlobalThreshold), Some(Duration::from_secs(2)));
        assert_eq!(age(Batching::CgroupThreshold), Some(Duration::from_secs(2)));
    }
}
