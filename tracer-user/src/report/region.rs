//! Regions of anonymous memory: what they are for, who mapped them, and how malloc fills them.

use serde::{Deserialize, Serialize};

/// How far regions are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Surveyed {
    /// Processes whose mappings were read at the end.
    pub processes: u64,
    /// Living processes that were left out, because there were too many or they could not be read.
    pub left_out: u64,
    /// Live anonymous bytes that were found in no mapping: their process is gone, or they moved meanwhile.
    pub unplaced_bytes: u64,
}

/// Regions of anonymous memory of one class in one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionRow {
    /// Thread-group id on the host.
    pub pid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Region class.
    pub class: String,
    /// What told the class; null for other.
    pub recognised_by: Option<String>,
    /// Regions that are accessible, heaps for glibc-arena; null where the process is no longer in this cgroup.
    pub count: Option<u64>,
    /// Address space, bytes; null as `count`.
    pub reserved: Option<u64>,
    /// Anonymous bytes in the process's page tables, older ones included, whichever cgroup is charged; null as `count`.
    pub resident: Option<u64>,
    /// Of what this cgroup was charged since the start: bytes still there.
    #[serde(default)]
    pub live: u64,
    /// Its standard error.
    #[serde(default)]
    pub live_stderr: u64,
    /// Stack that mapped most of them, outermost first; null where that was not seen.
    pub origin: Option<Vec<String>>,
    /// Stacks that mapped them, those with most address space first; what was not seen is in none.
    #[serde(default)]
    pub origins: Vec<OriginRow>,
    /// Stacks that made them accessible afterwards: brk, mprotect, mmap over a reservation. In the same order.
    pub growers: Vec<OriginRow>,
}

/// Address space of regions by who mapped it, or made it accessible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginRow {
    /// "mmap", "brk", "mremap" or "mprotect".
    pub call: String,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
    /// Outermost first.
    pub frames: Vec<String>,
    /// Bytes of address space, resident or not.
    pub bytes: u64,
    /// Thread id on the host; null if there were several.
    pub tid: Option<u32>,
    /// Function that the thread began with, also where the stack is cut; null where glibc does not tell.
    #[serde(default)]
    pub thread_function: Option<String>,
    /// Seconds from the first such call to the end of the recording.
    pub oldest_s: f64,
}

/// Address space that one stack of one process asked for since the start, given back or not, resident or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MappingRow {
    /// Thread-group id on the host.
    pub pid: u32,
    /// Name of the thread-group leader.
    pub comm: String,
    /// "mmap", "brk" or "mremap".
    pub call: String,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
    /// Outermost first.
    pub frames: Vec<String>,
    /// Bytes.
    pub bytes: u64,
    /// Its standard error; 0 where no call was passed over.
    pub bytes_stderr: u64,
    /// Calls.
    pub calls: u64,
    /// Seconds from the last of them that was recorded to the end of the recording.
    pub last_s: f64,
}

/// How far calls that change address spaces were followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingSummary {
    /// Calls of processes that are followed.
    pub calls: u64,
    /// Of these: passed over because their process mapped in a storm. The others stand for them.
    pub thinned: u64,
    /// Ranges of living processes that are kept, with an origin or without.
    pub ranges: u64,
    /// Ranges that found no room.
    pub dropped: u64,
    /// How often a process of which calls were missing was looked at anew.
    #[serde(default)]
    pub repaired: u64,
    /// Bytes of address space that differed then.
    #[serde(default)]
    pub repaired_bytes: u64,
    /// Bytes of address space of the processes in `surveyed` that differ, at the end, between what their calls told and what they had mapped a
    /// moment before.
    #[serde(default)]
    pub differing_bytes: u64,
}

/// glibc's malloc arenas of one process. What glibc's main arena holds is in the regions brk-heap and mmap-malloc.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArenaRow {
    /// Thread-group id on the host.
    pub pid: u32,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Arenas, the main one included, as glibc counts them; null where only heaps could be told.
    pub arenas: Option<u64>,
    /// Heaps of arenas other than the main one.
    pub heaps: u64,
    /// Their address space, bytes.
    pub reserved: u64,
    /// Their accessible part, bytes.
    pub committed: u64,
    /// Their resident part, bytes.
    pub resident: Option<u64>,
    /// Of what was looked through: bytes of free blocks; null where blocks could not be followed.
    pub free: Option<u64>,
    /// Bytes that were looked through for `free`.
    pub looked_through: Option<u64>,
    /// Of what was charged since the start: bytes still there.
    pub live: u64,
    /// Threads of the process.
    pub threads: Option<u64>,
    /// glibc's own limit: eight arenas a CPU, two in 32-bit processes.
    pub default_limit: u64,
    /// Limit that the environment at exec sets; null for none.
    pub environment_limit: Option<u64>,
    /// MALLOC_ARENA_MAX as it stands in that environment, cut.
    pub malloc_arena_max: Option<String>,
    /// glibc.malloc.arena_max of its GLIBC_TUNABLES, cut.
    pub tunable_arena_max: Option<String>,
}
