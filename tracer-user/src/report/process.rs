//! Processes that were looked into.

use serde::{Deserialize, Serialize};

/// Memory of one process that explains usage beyond its regions. Null where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Thread-group id on the host.
    pub pid: u32,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Anonymous memory in transparent huge pages, bytes.
    pub anon_huge_bytes: Option<u64>,
    /// Pages of 4 KiB that were read in places that may be huge pages.
    pub huge_pages_read: Option<u64>,
    /// Of them, pages of zeros.
    pub huge_pages_zero: Option<u64>,
    /// Freed with MADV_FREE and still resident, bytes.
    pub lazily_freed_bytes: Option<u64>,
    /// Locked in memory (mlock), bytes; of any cgroup and kind.
    pub locked_bytes: Option<u64>,
    /// Pinned for a device or for io_uring, bytes; mapped or not.
    pub pinned_bytes: Option<u64>,
    /// Huge pages of hugetlbfs, bytes.
    pub hugetlb_bytes: Option<u64>,
}
