//! Facts of a process's memory that explain usage beyond its regions: huge pages, what it freed lazily, what it locked or pinned.

use super::{
    huge::{self, Probed},
    maps::Maps,
    memory::ProcessMemory,
};
use crate::host::proc::Process;

/// The page tables of a larger process are not walked for sums: the kernel holds the lock of its mappings for reading meanwhile, some 14 ms for a
/// GiB of small pages.
const MOST_WALKED_BYTES: u64 = 1 << 30;
/// Huge pages of less than this are not looked into.
const LEAST_HUGE_BYTES: u64 = 8 << 20;

/// Bytes of a process; `None` where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Held {
    /// Anonymous memory in huge pages; unknown of processes of more than 1 GiB.
    pub anonymous_huge: Option<u64>,
    /// Freed with MADV_FREE and still resident; unknown likewise.
    pub lazily_freed: Option<u64>,
    /// Locked in memory.
    pub locked: Option<u64>,
    /// Pinned for a device or io_uring.
    pub pinned: Option<u64>,
    /// Huge pages of hugetlbfs.
    pub hugetlb: Option<u64>,
    /// What was found in memory that may be huge pages.
    pub probed: Option<Probed>,
}

impl Held {
    /// Reads a living process.
    pub fn of_process(process: &Process, maps: &Maps, memory: &mut ProcessMemory) -> Held {
        let Ok(status) = process.status() else { return Held::default() };
        let small = status.resident.unwrap_or(0).saturating_add(status.swapped.unwrap_or(0)) <= MOST_WALKED_BYTES;
        let rollup = if small { process.rollup().unwrap_or_default() } else { crate::host::proc::rollup::Rollup::default() };
        // Where most anonymous memory is in huge pages, what is wholly resident is one.
        let anonymous = status.resident_anonymous.unwrap_or(u64::MAX);
        let may_be_huge = rollup.anonymous_huge.is_some_and(|bytes| bytes >= LEAST_HUGE_BYTES && bytes >= anonymous / 2);
        Held {
            anonymous_huge: rollup.anonymous_huge,
            lazily_freed: rollup.lazily_freed,
            locked: status.locked,
            pinned: status.pinned,
            hugetlb: status.hugetlb,
            probed: if may_be_huge { huge::probe(memory, maps) } else { None },
        }
    }
}
