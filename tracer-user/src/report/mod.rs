//! The report: what a recording knows, in the form that every output reads. It is the schema of docs/report.schema.json.
//!
//! Pure data. Unknown is `None` (null in JSON, always present), bytes are integers, times are RFC 3339 or seconds.
//!
//! A field that is added later carries `#[serde(default)]`, since recordings made before it lack it.

pub mod autopsy;
pub mod distribution;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the schema. Within a number, changes only add.
pub const SCHEMA: u32 = 1;

/// What stands for the rest of a list that is not shown one by one.
pub const OTHER: &str = "[other]";
/// Name of a process of which nothing else is known.
pub const UNKNOWN_PROCESS: &str = "[unknown process]";

/// A whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// "memtrail X.Y.Z".
    pub tool: String,
    /// Where it was measured.
    pub host: Host,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub ended: String,
    /// Seconds between the two, monotonic.
    pub duration_s: f64,
    /// What was recorded of all that happened.
    #[serde(default)]
    pub filter: Filter,
    /// Which provider each probe used, and why.
    pub plan: Vec<PlanRow>,
    /// How charges were chosen.
    pub sampling: Sampling,
    /// What the tracing cost.
    pub cost: Cost,
    /// Pages that the kernel moved meanwhile.
    #[serde(default)]
    pub migration: Migration,
    /// Counts by cause; null where the kernel does not count it.
    pub losses: BTreeMap<String, Option<u64>>,
    /// One entry a cgroup, largest usage first.
    pub cgroups: Vec<Cgroup>,
    /// OOM kills seen.
    pub oom: Vec<serde_json::Value>,
    /// Those of the last quarter of an hour, by victim and by who grew; null if there was none and the host was not short of memory.
    #[serde(default)]
    pub oom_loops: Option<crate::analyse::oom::loops::Loops>,
    /// Calls that changed address spaces; null where they are not followed.
    #[serde(default)]
    pub mapping: Option<MappingSummary>,
    /// How much of the processes' memory was looked at for regions.
    #[serde(default)]
    pub surveyed: Surveyed,
    /// The files that frames of stacks are in, and the kernel.
    #[serde(default)]
    pub binaries: Vec<BinaryRow>,
}

/// A file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryRow {
    /// Path as its process saw it; [`BinaryRow::KERNEL`] for the kernel.
    pub path: String,
    /// Build id, hexadecimal digits; null if it has none or could not be read.
    pub build_id: Option<String>,
    /// Frames of this report that are in it, sorted; a name that two files have is a frame of both. None for the kernel, whose frames end in
    /// `_[k]`.
    pub frames: Vec<String>,
}

impl BinaryRow {
    /// The kernel, as perf and pprof call it.
    pub const KERNEL: &str = "[kernel.kallsyms]";
}

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

/// Pages that the kernel moved to other frames (compaction, NUMA balancing), on the whole host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Bytes moved, all memory of the host; null where the kernel does not count them.
    pub moved_bytes: Option<u64>,
    /// Which of it keeps its stack: "all", "mapped" (not page cache that no process maps), or "none".
    pub followed: String,
}

impl Migration {
    /// At most so many bytes lost their stack by being moved; null if unknown.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        if self.followed == "all" { Some(0) } else { self.moved_bytes }
    }
}

/// The traced host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// CPUs online.
    pub cpus: u32,
    /// "v1", "v2" or "hybrid": where the memory controller is.
    pub cgroup: String,
    /// Bytes.
    pub page_size: u32,
}

/// What was recorded of all that happened, where that does not show in the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Thread-group ids on the host of the processes that were followed with their later children; empty: everyone's memory was
    /// recorded.
    pub pids: Vec<u32>,
}

/// One probe of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRow {
    /// Name of the probe.
    pub probe: String,
    /// "fentry", "kprobe", "tracepoint", or "none".
    pub provider: String,
    /// Why this provider, empty when it is the first choice.
    pub note: String,
}

/// How charges were chosen for attribution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// "sampled" or "exact".
    pub mode: String,
    /// M: mean bytes between two samples; 4096 in exact mode. With a filter, small cgroups are sampled more finely: see their rows.
    pub mean_bytes: u64,
    /// Samples taken.
    pub samples: u64,
}

/// What the tracing cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Nanoseconds in programs: estimated from short moments in which the kernel counts them. Null if there was no such moment.
    pub bpf_ns: Option<u64>,
    /// Program runs, estimated alike.
    pub events: Option<u64>,
    /// CPU time of the collector while it recorded over one CPU's time, percent: from the moment counting began until this report was.
    pub cpu_percent: Option<f64>,
    /// CPU time that starting took before that, milliseconds.
    pub start_cpu_ms: Option<u64>,
    /// CPU time that this report took after that, milliseconds; printing and writing not included.
    pub report_cpu_ms: Option<u64>,
    /// Largest resident set of the collector, bytes.
    pub collector_rss_bytes: Option<u64>,
    /// Memory of the BPF maps, bytes.
    pub map_bytes: u64,
    /// The kernel half's tables by name.
    #[serde(default)]
    pub tables: BTreeMap<String, Table>,
}

/// How full a table of the kernel half is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Entries at the end; null for a ring.
    pub entries: Option<u64>,
    /// Entries that it has room for; bytes for a ring.
    pub max_entries: u64,
    /// The size was given and not planned: a test.
    pub forced: bool,
}

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
    /// Charged but not counted as mapped by the kernel (anon), bytes.
    pub unmapped: Option<u64>,
    /// Owned by removed cgroups below this one and included in `stat` (v2), bytes.
    pub dead_below: Option<u64>,
    /// stat less the exact counters, where a tier keeps them.
    pub missed: Option<i64>,
    /// What is left of the identity.
    pub unattributed: Option<i64>,
    /// Slope of `stat` over the recording, bytes a second.
    pub growth_bytes_per_s: Option<f64>,
}

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

/// One point of the series of an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Seconds since the start of the recording, monotonic.
    pub at_s: f64,
    /// Monotonic, boot-clock and real nanoseconds of the same moment.
    pub clocks: [u64; 3],
    /// Per cgroup id: usage and kinds' stats, bytes.
    pub cgroups: BTreeMap<String, IntervalCgroup>,
    /// Losses so far.
    pub losses: BTreeMap<String, Option<u64>>,
    /// Entries of the kernel half's tables when they were last read.
    #[serde(default)]
    pub tables: BTreeMap<String, u64>,
}

/// One cgroup at one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntervalCgroup {
    /// Usage, bytes.
    pub usage_bytes: Option<u64>,
    /// stat by kind, bytes.
    pub kinds: BTreeMap<String, u64>,
    /// Live by kind, bytes.
    pub live: BTreeMap<String, u64>,
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
