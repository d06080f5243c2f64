//! A cgroup's row: its names, limits, and the kernel's figures beside the ledger's.

use super::{ArenaRow, FileRow, MappingRow, ProcessRow, RegionRow, StackRow, Trend};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One cgroup, dead or alive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the memory hierarchy's root, starting with `/`; "[unknown cgroup ID]" if its name was never seen; "[removed cgroups]" for
    /// the sum of removed ones that own nothing, but for the last 128.
    pub path: String,
    /// kernfs id, as a string: ids above 2^53 are not safe in JSON numbers.
    pub id: String,
    /// "alive" or "dead".
    pub state: String,
    /// Seconds from its removal to the end of the recording; null for the living, and where the removal was not seen.
    #[serde(default)]
    pub dead_for_s: Option<f64>,
    /// Uid of the pod, where the path tells.
    pub pod: Option<String>,
    /// Id of the container, where the path tells.
    pub container: Option<String>,
    /// Name of the pod, where the runtime or the kubelet left it on disk; so too what follows.
    #[serde(default)]
    pub pod_name: Option<String>,
    /// Namespace of the pod.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name of the container.
    #[serde(default)]
    pub container_name: Option<String>,
    /// Image of the container, as it was asked for.
    #[serde(default)]
    pub image: Option<String>,
    /// "docker", "containerd", "cri-o" or "podman", where the path tells.
    #[serde(default)]
    pub runtime: Option<String>,
    /// Restart count.
    pub restart: Option<u32>,
    /// Limit, bytes; null for none.
    pub limit_bytes: Option<u64>,
    /// Limits that hold for what it is charged: its own and those of living cgroups above, innermost first.
    #[serde(default)]
    pub limits: Vec<LimitRow>,
    /// The one of them with the least room, which is met first by what is charged here; null if there is none.
    #[serde(default)]
    pub binding_limit: Option<LimitRow>,
    /// Usage, bytes; null for the dead.
    pub usage_bytes: Option<u64>,
    /// usage - inactive_file, as the kubelet counts.
    pub working_set_bytes: Option<u64>,
    /// How usage changes at present; null for the dead, and before there are two readings.
    #[serde(default)]
    pub trend: Option<Trend>,
    /// Bytes that a sample of its charges stands for on average; null if there is none.
    #[serde(default)]
    pub mean_bytes: Option<u64>,
    /// By kind: anon, file, shmem, hugetlb, kernel, ...
    pub kinds: BTreeMap<String, KindRow>,
    /// The same, summed over the subtree.
    pub subtree: BTreeMap<String, KindRow>,
    /// usage less all known kinds; null where usage is unknown. Negative when the kernel's batching shows.
    pub uncovered_bytes: Option<i64>,
    /// Dirty page cache, bytes.
    pub dirty_bytes: Option<u64>,
    /// Under writeback, bytes.
    pub writeback_bytes: Option<u64>,
    /// Bytes of its page cache that went from clean to dirty since the start, each time counted: an estimate from samples. Null where that
    /// is not followed; so too what follows.
    #[serde(default)]
    pub dirtied_bytes: Option<u64>,
    /// Its standard error.
    #[serde(default)]
    pub dirtied_stderr: Option<u64>,
    /// Bytes dirtied a second, from the first that was seen to the end of the recording.
    #[serde(default)]
    pub dirtied_bytes_per_s: Option<f64>,
    /// Bytes a second that ceased to be dirty in that time: written to disk, or truncated. What was dirtied less what waits by now.
    #[serde(default)]
    pub cleaned_bytes_per_s: Option<f64>,
    /// Nanoseconds that its processes were made to wait because too much page cache was dirty, all of them together; null where that is not
    /// followed.
    #[serde(default)]
    pub dirty_held_ns: Option<u64>,
    /// Which, the longest first; null likewise.
    #[serde(default)]
    pub dirty_held: Option<Vec<HeldRow>>,
    /// Least sum of the two in the last readings; null with fewer than three of them.
    #[serde(default)]
    pub dirty_sustained_bytes: Option<u64>,
    /// Active and inactive file less dirty, writeback and mlocked.
    pub droppable_bytes: Option<u64>,
    /// inactive_file.
    pub kubelet_reclaimable_bytes: Option<u64>,
    /// active_file: page cache that was used more than once, which the working set counts.
    #[serde(default)]
    pub active_file_bytes: Option<u64>,
    /// The most that it held for itself since the recording began, by the samples: memory from before the start included, kernel memory and swap
    /// not, bytes. The stacks' `peak` are of that moment. Null where that is not known.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
    /// Seconds from the start of the recording to that moment.
    #[serde(default)]
    pub peak_at_s: Option<f64>,
    /// The most that the kernel says it ever used with all below it, kernel memory included (`memory.peak`, `memory.max_usage_in_bytes`), bytes.
    #[serde(default)]
    pub kernel_peak_bytes: Option<u64>,
    /// Locked in memory, or of a file system that cannot be written out, bytes; with what is below it, and so too what follows.
    #[serde(default)]
    pub unevictable_bytes: Option<u64>,
    /// Anonymous memory in transparent huge pages, bytes.
    #[serde(default)]
    pub anon_huge_bytes: Option<u64>,
    /// Anonymous memory that was freed with MADV_FREE, bytes: it is on the lists of page cache, which are longer than the page cache by it.
    #[serde(default)]
    pub lazily_freed_bytes: Option<u64>,
    /// Page cache that was dropped and had to be read again since the start, bytes.
    #[serde(default)]
    pub refaulted_bytes: Option<u64>,
    /// memory.high, bytes (v2); null for none.
    #[serde(default)]
    pub high_bytes: Option<u64>,
    /// Times that its processes, or those below it, went beyond memory.high and were held up since the start (v2).
    #[serde(default)]
    pub high_events: Option<u64>,
    /// Processes in it that were looked into, and in which there is something of the kinds that a row tells; largest first.
    #[serde(default)]
    pub processes: Vec<ProcessRow>,
    /// By owner at charge, largest live first. JSON output keeps 200 and sums the tail in one row with the frame `[other]`.
    pub stacks: Vec<StackRow>,
    /// Files, largest live first; same tail rule.
    pub files: Vec<FileRow>,
    /// Regions of anonymous memory, largest resident first.
    pub regions: Vec<RegionRow>,
    /// Address space asked for since the start, by stack, the 200 largest, largest first; null where that is not followed.
    #[serde(default)]
    pub mappings: Option<Vec<MappingRow>>,
    /// glibc's malloc arenas, of each process that has others than the main one.
    #[serde(default)]
    pub arenas: Vec<ArenaRow>,
    /// Distributions by name (docs/histograms.md).
    pub histograms: BTreeMap<String, HistogramRow>,
    /// Values that found no room in the kernel half's table of distributions.
    #[serde(default)]
    pub histogram_losses: u64,
    /// What memtrail concludes.
    pub verdicts: Vec<Verdict>,
}

/// A limit, and how near it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// Path of the cgroup that has it.
    pub path: String,
    /// Bytes.
    pub limit_bytes: u64,
    /// Usage of that cgroup with all below it, bytes.
    pub usage_bytes: Option<u64>,
    /// What may still be charged, bytes.
    pub left_bytes: Option<u64>,
    /// Seconds until nothing is left at that cgroup's present growth; null if it does not grow, or was not followed.
    pub reached_in_s: Option<f64>,
}

/// A distribution: nanoseconds or bytes, as its name says. Values are at most 1.6 % from the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramRow {
    /// Values; pages for `lifetime_ns` and `live_age_ns`.
    pub count: u64,
    /// Median.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// Largest.
    pub max: Option<u64>,
    /// HdrHistogram V2, compressed, base64.
    pub hdr: Option<String>,
}

/// The ledger of one kind: `stat = baseline + live - unmapped + unattributed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KindRow {
    /// The kernel's figure, bytes; null for the dead.
    pub stat: Option<u64>,
    /// "stat", "counter" or "remainder": where `stat` comes from.
    pub source: String,
    /// Resident before the start and still charged, bytes; null if the kind is not followed.
    pub baseline: Option<u64>,
    /// Standard error of `baseline`.
    pub baseline_stderr: Option<u64>,
    /// Charged since the start, bytes.
    pub charged: Option<u64>,
    /// Standard error of `charged`.
    pub charged_stderr: Option<u64>,
    /// Charged since the start and not yet uncharged, bytes.
    pub live: Option<u64>,
    /// Standard error of `live`.
    pub live_stderr: Option<u64>,
    /// Bytes at the moment of the cgroup's peak, older ones included.
    #[serde(default)]
    pub peak: Option<u64>,
    /// Its standard error.
    #[serde(default)]
    pub peak_stderr: Option<u64>,
    /// Charged but not counted as mapped by the kernel (anon), bytes.
    pub unmapped: Option<u64>,
    /// Owned by removed cgroups below this one and included in `stat` (v2), bytes.
    pub dead_below: Option<u64>,
    /// stat less the exact counters, where a tier keeps them.
    pub missed: Option<i64>,
    /// What is left of the identity.
    pub unattributed: Option<i64>,
    /// Growth of `stat` at present, bytes a second: of the last half minute, without a step (see [`Trend`]); null from less than ten seconds.
    pub growth_bytes_per_s: Option<f64>,
}

/// A process that was made to wait because too much page cache was dirty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    /// Thread-group id on the host; null in a row that sums others.
    pub pid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Waits.
    pub times: u64,
    /// Nanoseconds of all of them, as the kernel told it to wait.
    pub ns: u64,
}

/// What memtrail concludes of a cgroup. docs/verdicts.md has a row for each id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub id: String,
    /// "critical", "warning" or "info".
    pub severity: String,
    /// Observation, cause, action.
    pub text: String,
    /// The figures behind it.
    pub evidence: BTreeMap<String, serde_json::Value>,
}
