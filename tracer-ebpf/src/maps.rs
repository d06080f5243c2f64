//! Every map of the object. Entries of the sized ones are set by the user half at load; all are preallocated, because an
//! allocation inside a charge would itself be charged.

use crate::values::{Collapse, FileScratch, Managed, SLOTS, Scratch, Stall, Wait};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use tracer_common::{
    attribution::{Grave, KeyRecord, OwnerTotals, Peak, Sample},
    births::Births,
    dirty::{DirtyKey, DirtyRecord},
    file::FileRecord,
    histogram::{HistogramKey, WAITERS},
    loss::{LOSSES, LossCount},
    managed::{
        self, KnownFunction,
        hotspot::{self, Code, HotSpot, JavaProcess},
        python::{PYTHONS as MOST_PYTHONS, Python},
        v8::{V8, V8S as MOST_V8S},
    },
    mapping::{CALLS, Mapper, MappingCall, MappingCounts, MappingRecord},
    oom::{OomCall, OomKill},
    owner::OwnerName,
    process::ProcessRecord,
    sampling::Sampler,
    settings::{CALIBRATION_ADDRESSES, CALIBRATION_FIRST, Control, Followed, OwnerFilter},
    stack::StackRecord,
    unwind::{self, Chunk, FileKey, FileTable, PageRows, Rule},
};

/// Entry 0: what changes while the trace runs.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// One bit a frame: a sample covers it. Asked before any table when a folio is freed.
#[map]
pub static FRAMES: Array<u64> = Array::with_max_entries(1, 0);

/// One bit a frame: charged while the baseline was being taken.
#[map]
pub static NEW_FRAMES: Array<u64> = Array::with_max_entries(1, 0);

/// Live samples by [`tracer_common::attribution::sample_slot`].
#[map]
pub static SAMPLES: HashMap<u64, Sample> = HashMap::with_max_entries(1, 0);

/// Samples that ended while a picture was open.
#[map]
pub static GRAVEYARD: HashMap<Grave, Sample> = HashMap::with_max_entries(1, 0);

/// Keys by identity.
#[map]
pub static KEYS: HashMap<u64, KeyRecord> = HashMap::with_max_entries(1, 0);

/// Stacks by identity.
#[map]
pub static STACKS: HashMap<u64, StackRecord> = HashMap::with_max_entries(1, 0);

/// Processes by identity.
#[map]
pub static PROCESSES: HashMap<u64, ProcessRecord> = HashMap::with_max_entries(1, 0);

/// Files by identity.
#[map]
pub static FILES: HashMap<u64, FileRecord> = HashMap::with_max_entries(1, 0);

/// A file on its way into the table, one slot a program (see [`crate::kernel::file`]).
#[map]
pub static FILE_SCRATCH: PerCpuArray<FileScratch> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Who made page cache dirty.
#[map]
pub static DIRTIED: HashMap<DirtyKey, DirtyRecord> = HashMap::with_max_entries(1, 0);

/// What the cgroup filter says, by owner.
#[map]
pub static OWNERS: HashMap<u64, OwnerFilter> = HashMap::with_max_entries(1, 0);

/// Entry 0: how many cgroups are made these days.
#[map]
pub static BIRTHS: Array<Births> = Array::with_max_entries(1, 0);

/// Processes that are followed, by thread-group id (see [`crate::attribute::followed`]).
#[map]
pub static FOLLOWED: HashMap<u32, Followed> = HashMap::with_max_entries(1, 0);

/// Exact bytes by owner, per CPU.
#[map]
pub static OWNER_TOTALS: PerCpuHashMap<u64, OwnerTotals> = PerCpuHashMap::with_max_entries(1, 0);

/// The peak of each owner.
#[map]
pub static PEAKS: HashMap<u64, Peak> = HashMap::with_max_entries(1, 0);

/// The sampler of each CPU.
#[map]
pub static SAMPLERS: PerCpuArray<Sampler> = PerCpuArray::with_max_entries(1, 0);

/// Losses by cause, per CPU.
#[map]
pub static LOSS_COUNTS: PerCpuArray<LossCount> = PerCpuArray::with_max_entries(LOSSES as u32, 0);

/// Allocations that the kernel passed over and the spare program took, per CPU.
#[map]
pub static PASSED_ON: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Working memory, one slot a program (see [`crate::scratch`]).
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SLOTS, 0);

/// Working memory of walks over interpreters' frames, one at a time (see [`crate::managed`]).
#[map]
pub static MANAGED: PerCpuArray<Managed> = PerCpuArray::with_max_entries(1, 0);

/// `struct page` addresses of frames that the tracer itself was given, to find where the frame table's page structs begin, and what goes with
/// that (see `tracer_common::settings::CALIBRATION_COUNT` and those after it).
#[map]
pub static CALIBRATION: Array<u64> = Array::with_max_entries(CALIBRATION_FIRST + CALIBRATION_ADDRESSES, 0);

/// Results of the programs that user space runs by hand: a raw tracepoint program's return value does not reach it.
/// Entry 0: the sweep; 1: folios kept by the baseline; 2: a file ([`unwind::IDENTIFIED`]); 3: a walk
/// ([`unwind::WALKED`]).
#[map]
pub static RUN_RESULTS: Array<[u64; 4]> = Array::with_max_entries(4, 0);

/// Entry 0: the name that `run_owner_name` found.
#[map]
pub static OWNER_NAME: Array<OwnerName> = Array::with_max_entries(1, 0);

/// Rare events, in order.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// What khugepaged is at.
#[map]
pub static COLLAPSE: Array<Collapse> = Array::with_max_entries(1, 0);

/// Tracepoint tier: frames whose mapping is a migration entry, by thread and address. The oldest makes room.
#[map]
pub static MIGRATIONS: LruHashMap<[u64; 2], u64> = LruHashMap::with_max_entries(4096, 0);

/// OOM kills and their victims, in order; a ring of its own, so that no churn of cgroups loses one.
#[map]
pub static OOM_EVENTS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);

/// Entry 0: the kill that is being described; 1: the tracer's look at itself.
#[map]
pub static OOM_RECORD: Array<OomKill> = Array::with_max_entries(2, 0);

/// Entry 0: the OOM killer's running call.
#[map]
pub static OOM_CALL: Array<OomCall> = Array::with_max_entries(1, 0);

/// kprobe tier: folios on their way through shmem_add_to_page_cache, by thread.
#[map]
pub static SHMEM_CALLS: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);

/// Distributions: counts by cgroup, metric and bucket.
#[map]
pub static HISTOGRAMS: HashMap<HistogramKey, u64> = HashMap::with_max_entries(1, 0);

/// Values that found no room there, by cgroup.
#[map]
pub static HISTOGRAM_LOSSES: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);

/// Reclaims that run, by thread.
#[map]
pub static RECLAIMS: HashMap<u64, Wait> = HashMap::with_max_entries(WAITERS, 0);

/// Charges that have waited for reclaim, by thread.
#[map]
pub static STALLS: HashMap<u64, Stall> = HashMap::with_max_entries(WAITERS, 0);

/// Entry 0: as many as there are entries in `STALLS`.
#[map]
pub static STALLED: Array<u64> = Array::with_max_entries(1, 0);

/// Tasks that are held up for being over memory.high, by thread.
#[map]
pub static HIGH_CALLS: HashMap<u64, Wait> = HashMap::with_max_entries(WAITERS, 0);

/// How much each process maps, by thread-group id. The one that is idle for longest makes room.
#[map]
pub static MAPPERS: LruHashMap<u32, Mapper> = LruHashMap::with_max_entries(1, 0);

/// Calls that change an address space and are not over, by thread.
#[map]
pub static MAPPING_CALLS: Array<MappingCall> = Array::with_max_entries(CALLS, 0);

/// Address space asked for, by [`tracer_common::mapping::MappingKey`].
#[map]
pub static MAPPINGS: HashMap<u64, MappingRecord> = HashMap::with_max_entries(1, 0);

/// What calls did to address spaces, in order.
#[map]
pub static MAPPING_EVENTS: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);

/// How many calls there were, per CPU.
#[map]
pub static MAPPING_COUNTS: PerCpuArray<MappingCounts> = PerCpuArray::with_max_entries(1, 0);

/// Entry 0: how many calls are missing there. Whoever keeps address spaces then looks at them anew.
#[map]
pub static MAPPINGS_LOST: Array<u64> = Array::with_max_entries(1, 0);

/// Tables for unwinding, by file. All of them are written by user space, through mappings where that is possible.
#[map]
pub static UNWIND_FILES: HashMap<FileKey, FileTable> = HashMap::with_max_entries(unwind::FILES, 0);

/// Where the rows of each page of a file are.
#[map]
pub static UNWIND_PAGES: Array<PageRows> = Array::with_max_entries(1, MMAPABLE);

/// The rows.
#[map]
pub static UNWIND_ROWS: Array<Chunk> = Array::with_max_entries(1, MMAPABLE);

/// The rules.
#[map]
pub static UNWIND_RULES: Array<Rule> = Array::with_max_entries(unwind::RULES, MMAPABLE);

/// Files whose tables are wanted.
#[map]
pub static UNWIND_MISSES: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// Builds of CPython, by the number that their files have in `UNWIND_FILES`.
#[map]
pub static PYTHONS: Array<Python> = Array::with_max_entries(MOST_PYTHONS, 0);

/// Builds of V8, alike.
#[map]
pub static V8S: Array<V8> = Array::with_max_entries(MOST_V8S, 0);

/// Builds of HotSpot, alike.
#[map]
pub static HOTSPOTS: Array<HotSpot> = Array::with_max_entries(hotspot::HOTSPOTS, 0);

/// Where a process with a JVM has its code. The one that is idle for longest makes room.
#[map]
pub static JAVA_PROCESSES: LruHashMap<u64, JavaProcess> = LruHashMap::with_max_entries(hotspot::PROCESSES, 0);

/// What stands at places in the code of JVMs. Those that are not met for longest make room.
#[map]
pub static JAVA_CODE: LruHashMap<u64, Code> = LruHashMap::with_max_entries(hotspot::PLACES, 0);

/// Functions that interpreters run (see [`managed`]). Those that are not met for longest make room.
#[map]
pub static FUNCTIONS: LruHashMap<u64, KnownFunction> = LruHashMap::with_max_entries(managed::FUNCTIONS, 0);

/// Where a runtime keeps what it knows of a thread, by thread-group id and thread id. The one that is idle for longest makes room.
#[map]
pub static RUNTIME_THREADS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(managed::THREADS, 0);

/// Functions that are met for the first time.
#[map]
pub static FUNCTION_EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// BPF_F_MMAPABLE (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;
