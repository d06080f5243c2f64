//! Files that hold page cache or shmem.

use serde::{Deserialize, Serialize};

/// Page cache or shmem of one file, charged to one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// Path on the host; `memfd:NAME`, `SYSVKEY` and the like for files without a directory; `[other]` for the sum of all others.
    pub path: String,
    /// Device as `major:minor`.
    pub dev: Option<String>,
    /// Inode number, as a string.
    pub inode: Option<String>,
    /// "file", "shmem", "hugetlb"; "other" for the sum of all others.
    pub kind: String,
    /// Type of the file system.
    #[serde(default)]
    pub file_system: Option<String>,
    /// Mount point.
    pub mount: Option<String>,
    /// Path in the mount namespace of a process that touched it, where that is another.
    #[serde(default)]
    pub path_inside: Option<String>,
    /// Volume of a pod or a runtime that it is in.
    #[serde(default)]
    pub volume: Option<String>,
    /// Size of the file, bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Bytes charged since the start and not yet uncharged.
    pub live: u64,
    /// Its standard error.
    #[serde(default)]
    pub live_stderr: u64,
    /// Bytes resident before the start and still charged.
    #[serde(default)]
    pub baseline: u64,
    /// Its standard error.
    #[serde(default)]
    pub baseline_stderr: u64,
    /// Bytes that wait to be written to disk: an estimate from the samples, as of the report.
    pub dirty: Option<u64>,
    /// Bytes on their way to disk, likewise.
    #[serde(default)]
    pub writeback: Option<u64>,
    /// Bytes that went from clean to dirty since the start, whoever was first to make them resident: an estimate. Null where that is not
    /// followed.
    #[serde(default)]
    pub dirtied: Option<u64>,
    /// Its standard error.
    #[serde(default)]
    pub dirtied_stderr: Option<u64>,
    /// Bytes dirtied a second, from the first that was seen to the end of the recording.
    #[serde(default)]
    pub dirtied_bytes_per_s: Option<f64>,
    /// Who made them dirty, largest first; `how` is null.
    #[serde(default)]
    pub dirtiers: Vec<FileToucher>,
    /// "sequential" if what was written since the start came from front to back, "scattered" if not; null where too little was
    /// written to tell.
    #[serde(default)]
    pub write_pattern: Option<String>,
    /// "present" or "deleted"; null where that could not be read.
    pub state: Option<String>,
    /// Cgroup that is charged.
    pub owner: Option<FileOwner>,
    /// Who made it resident by writing, or in a way that is not known; largest first.
    pub writers: Vec<FileToucher>,
    /// Who made it resident by reading or mapping; largest first.
    #[serde(default)]
    pub readers: Vec<FileToucher>,
}

/// The cgroup that is charged for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOwner {
    /// Path.
    pub cgroup: String,
    /// Container id or name.
    pub container: Option<String>,
    /// "alive" or "dead".
    pub state: String,
}

/// A process that made a file's memory resident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileToucher {
    /// Thread-group id on the host.
    pub pid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Live bytes.
    pub bytes: u64,
    /// "write", "read" or "map"; null where the stack does not tell.
    #[serde(default)]
    pub how: Option<String>,
    /// Stack behind most of the bytes, outermost first; empty for all but the largest touchers of the largest files.
    #[serde(default)]
    pub frames: Vec<String>,
}

impl FileRow {
    /// Bytes that are there: of the time since the start, and older ones.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.live.saturating_add(self.baseline)
    }

    /// Standard error of [`FileRow::bytes`].
    #[must_use]
    pub fn stderr(&self) -> u64 {
        (self.live_stderr as f64).hypot(self.baseline_stderr as f64).round() as u64
    }
}
