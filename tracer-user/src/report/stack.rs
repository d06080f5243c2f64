//! Stacks that made memory resident.

use serde::{Deserialize, Serialize};

/// Memory of one kind made resident by one stack of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StackRow {
    /// "anon", "file", "shmem", "hugetlb".
    pub kind: String,
    /// Region class, "other" until known.
    pub region: String,
    /// Thread-group id on the host; null for memory older than the trace.
    pub pid: Option<u32>,
    /// The same in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
    /// Outermost first; kernel frames end in `_[k]`.
    pub frames: Vec<String>,
    /// Bytes.
    pub live: u64,
    /// Its standard error.
    pub live_stderr: u64,
    /// Bytes live when the cgroup held most, by the samples; 0 in recordings made before that was known.
    #[serde(default)]
    pub peak: u64,
    /// Its standard error.
    #[serde(default)]
    pub peak_stderr: u64,
    /// Bytes.
    pub charged: u64,
    /// Samples behind it.
    pub samples: u64,
    /// Age of the oldest sample still live, seconds.
    pub oldest_s: Option<f64>,
    /// `live` by thread, largest first; null where it was not kept. Charged bytes that are no longer live have no thread.
    #[serde(default)]
    pub threads: Option<Vec<ThreadRow>>,
    /// Of `live`: bytes of page cache and shmem by file, the largest files of the stack, largest first.
    #[serde(default)]
    pub files: Vec<StackFile>,
}

/// Live bytes of one file that a stack made resident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFile {
    /// Path, as in the rows of files.
    pub path: String,
    /// Bytes.
    pub live: u64,
}

/// Live bytes that one thread made resident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// Thread id on the host; null in the last row, which sums the threads beyond those kept.
    pub tid: Option<u32>,
    /// Its name, if it was still running when the report was made.
    pub comm: Option<String>,
    /// Bytes.
    pub live: u64,
    /// Its standard error.
    pub live_stderr: u64,
}
