//! The kernel's figures for one cgroup, read from the text of its files. Pure: no file is opened here.
//!
//! v1 counts each cgroup for itself in memory.stat (`rss`, `cache`) and its subtree in the `total_` lines, while its counters
//! (`usage_in_bytes`, `kmem.usage_in_bytes`) hold the subtree. v2 has figures of the subtree only; [`super::local`] takes the
//! children's away. A line that a kernel does not print is `None`, never zero.

use super::Version;
use std::collections::BTreeMap;

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Source {
    /// A line of memory.stat, or a difference of two of its lines.
    Stat,
    /// A page counter: a file of its own.
    Counter,
    /// A sum of lines of memory.stat which may not be all: a lower bound.
    Parts,
    /// What is left of a whole after its known parts.
    Remainder,
}

impl Source {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Source::Stat => "stat",
            Source::Counter => "counter",
            Source::Parts => "parts",
            Source::Remainder => "remainder",
        }
    }
}

/// Bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Figure {
    /// Bytes.
    pub bytes: u64,
    /// Where they were read.
    pub source: Source,
}

/// A limit that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Limit {
    /// At most so many bytes.
    Bytes(u64),
    /// No limit is set here.
    Unlimited,
}

impl Limit {
    /// The limit, if there is one.
    #[must_use]
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Unlimited => None,
        }
    }
}

/// Figures of one extent: a cgroup for itself, or with everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// By kind: `anon file shmem hugetlb kernel sock swap zswap`, and parts of `kernel` as `kernel.slab` and so on. `file` excludes
    /// shmem. `anon` is mapped anonymous memory.
    #[serde(deserialize_with = "known_kinds")]
    pub kinds: BTreeMap<&'static str, Figure>,
    /// Dirty page cache, bytes.
    pub dirty: Option<u64>,
    /// Under writeback, bytes.
    pub writeback: Option<u64>,
    /// Page cache on the inactive list, bytes.
    pub inactive_file: Option<u64>,
    /// Page cache on the active list, bytes.
    pub active_file: Option<u64>,
    /// Locked in memory, or tmpfs without swap, bytes.
    pub unevictable: Option<u64>,
    /// Page cache mapped by processes, bytes.
    pub mapped_file: Option<u64>,
    /// Anonymous memory in huge pages, bytes.
    #[serde(default)]
    pub anonymous_huge: Option<u64>,
    /// Pages of page cache that were read again after they had been dropped, since the cgroup was made.
    #[serde(default)]
    pub refaulted_pages: Option<u64>,
}

/// Every kind that a reading can have.
const KINDS: [&str; 14] = [
    "anon",
    "file",
    "shmem",
    "hugetlb",
    "kernel",
    "kernel.slab",
    "kernel.stack",
    "kernel.pagetables",
    "kernel.percpu",
    "kernel.vmalloc",
    "kernel.other",
    "sock",
    "swap",
    "zswap",
];

/// Kinds of a stored reading: one of another name is an error, since nothing here could make it.
fn known_kinds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, Figure>, D::Error> {
    use serde::{Deserialize as _, de::Error as _};
    let stored = BTreeMap::<String, Figure>::deserialize(deserializer)?;
    let known = |(name, figure): (String, Figure)| match KINDS.iter().find(|kind| **kind == name) {
        Some(kind) => Ok((*kind, figure)),
        None => Err(D::Error::custom("a reading has a kind that is not known")),
    };
    stored.into_iter().map(known).collect()
}

/// Events counted by the kernel since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Events {
    /// Charges that met the limit (v1 failcnt, v2 `max`).
    pub limit_hits: Option<u64>,
    /// Charges that met memory.high.
    pub high: Option<u64>,
    /// Times that the OOM killer was about to run.
    pub oom: Option<u64>,
    /// Processes killed.
    pub oom_kill: Option<u64>,
    /// Groups killed.
    pub oom_group_kill: Option<u64>,
}

/// What the kernel says of one cgroup at one moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StatReading {
    /// Monotonic nanoseconds just before memory.stat was read.
    pub at_ns: u64,
    /// Interface it was read from.
    pub version: Version,
    /// Bytes charged to the subtree. `None` for the root of v2, which has no such file.
    pub usage: Option<u64>,
    /// The cgroup's own limit; one of a cgroup above may be lower.
    pub limit: Option<Limit>,
    /// memory.high (v2).
    pub high: Option<Limit>,
    /// v1 only: whether children are charged here too (`memory.use_hierarchy`); always so where the kernel says nothing.
    pub hierarchical: Option<bool>,
    /// v1 only: whether killing is off and tasks wait at the limit instead (`oom_kill_disable`).
    pub oom_kill_disabled: Option<bool>,
    /// v1 only: whether tasks are out of memory now (`under_oom`).
    pub under_oom: Option<bool>,
    /// The cgroup for itself. Empty on v2.
    pub local: Figures,
    /// The cgroup and everything below it. On v2 that includes removed cgroups.
    pub subtree: Figures,
    /// Event counts.
    pub events: Events,
    /// Files of the interface that could not be read or parsed although the cgroup exists and the file does.
    pub unreadable: u32,
}

/// A file of a memory cgroup that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named in the tables below")]
pub enum CgroupFile {
    Stat,
    Usage,
    Limit,
    High,
    Swap,
    Kernel,
    Sockets,
    FailCount,
    OomControl,
    Events,
    UseHierarchy,
}

impl CgroupFile {
    /// Whether it holds one number that moves with memory, and costs little to read.
    #[must_use]
    pub const fn is_counter(self) -> bool {
        matches!(self, CgroupFile::Usage | CgroupFile::Kernel)
    }
}

/// The files of v1, in the order in which they are read: usage as close to the stat as can be.
pub const V1_FILES: [(CgroupFile, &str); 7] = [
    (CgroupFile::Stat, "memory.stat"),
    (CgroupFile::Usage, "memory.usage_in_bytes"),
    (CgroupFile::Kernel, "memory.kmem.usage_in_bytes"),
    (CgroupFile::Sockets, "memory.kmem.tcp.usage_in_bytes"),
    (CgroupFile::Limit, "memory.limit_in_bytes"),
    (CgroupFile::FailCount, "memory.failcnt"),
    (CgroupFile::OomControl, "memory.oom_control"),
];

/// The files of v2, in the order in which they are read.
pub const V2_FILES: [(CgroupFile, &str); 6] = [
    (CgroupFile::Stat, "memory.stat"),
    (CgroupFile::Usage, "memory.current"),
    (CgroupFile::Swap, "memory.swap.current"),
    (CgroupFile::Limit, "memory.max"),
    (CgroupFile::High, "memory.high"),
    (CgroupFile::Events, "memory.events"),
];

/// Read besides on v1 kernels before 5.11, whose children need not be charged to their parents.
pub const V1_USE_HIERARCHY: (CgroupFile, &str) = (CgroupFile::UseHierarchy, "memory.use_hierarchy");

impl StatReading {
    /// A reading of which nothing is known yet.
    #[must_use]
    pub fn new(version: Version, at_ns: u64) -> Self {
        StatReading {
            at_ns,
            version,
            usage: None,
            limit: None,
            high: None,
            hierarchical: None,
            oom_kill_disabled: None,
            under_oom: None,
            local: Figures::default(),
            subtree: Figures::default(),
            events: Events::default(),
            unreadable: 0,
        }
    }

    /// Takes the text of one file in.
    pub fn absorb(&mut self, file: CgroupFile, text: &[u8]) {
        let parsed = match file {
            CgroupFile::Stat => self.absorb_stat(text),
            CgroupFile::Usage => number(text).map(|n| self.usage = Some(n)),
            CgroupFile::Limit => limit(text).map(|l| self.limit = Some(l)),
            CgroupFile::High => limit(text).map(|l| self.high = Some(l)),
            CgroupFile::Swap => number(text).map(|n| self.set_subtree("swap", n)),
            CgroupFile::Kernel => number(text).map(|n| self.set_subtree("kernel", n)),
            CgroupFile::Sockets => number(text).map(|n| self.set_subtree("sock", n)),
            CgroupFile::FailCount => number(text).map(|n| self.events.limit_hits = Some(n)),
            CgroupFile::OomControl | CgroupFile::Events => self.absorb_events(file, text),
            CgroupFile::UseHierarchy => number(text).map(|n| self.hierarchical = Some(n != 0)),
        };
        if parsed.is_none() {
            self.unreadable += 1;
        }
    }

    /// Whether nine tenths of its limit, or of memory.high, are used: there what it holds may change while its usage stands still.
    #[must_use]
    pub fn is_near_a_limit(&self) -> bool {
        let limits = [self.limit, self.high].into_iter().flatten().filter_map(Limit::bytes);
        limits.min().is_some_and(|limit| self.usage.is_none_or(|usage| usage >= limit / 10 * 9))
    }

    /// What the kubelet calls the working set: usage less inactive page cache of the subtree.
    #[must_use]
    pub fn working_set(&self) -> Option<u64> {
        Some(self.usage?.saturating_sub(self.subtree.inactive_file?))
    }

    /// Usage less every known kind that is part of it; `None` if usage or one of anon, file and shmem is unknown. Can be negative: the
    /// counter is exact at once, memory.stat is not.
    #[must_use]
    pub fn uncovered(&self) -> Option<i64> {
        let bytes = |kind| self.subtree.kinds.get(kind).map(|f| i128::from(f.bytes));
        let mut left = i128::from(self.usage?) - bytes("anon")? - bytes("file")? - bytes("shmem")?;
        left -= bytes("kernel").unwrap_or(0) + bytes("hugetlb").unwrap_or(0);
        // v1 counts sockets in a counter of their own (tcpmem); zswap is part of kernel; swap is not memory.
        if self.version == Version::V2 {
            left -= bytes("sock").unwrap_or(0);
        }
        i64::try_from(left).ok()
    }

    fn absorb_stat(&mut self, text: &[u8]) -> Option<()> {
        let lines = Lines::parse(text)?;
        match self.version {
            Version::V1 => {
                self.local = v1_figures(&lines, "");
                let counters = std::mem::take(&mut self.subtree.kinds);
                self.subtree = v1_figures(&lines, "total_");
                self.subtree.kinds.extend(counters);
            }
            Version::V2 => {
                let counters = std::mem::take(&mut self.subtree.kinds);
                self.subtree = v2_figures(&lines);
                self.subtree.kinds.extend(counters);
            }
        }
        Some(())
    }

    fn absorb_events(&mut self, file: CgroupFile, text: &[u8]) -> Option<()> {
        let lines = Lines::parse(text)?;
        self.events.oom_kill = lines.get("oom_kill");
        if file == CgroupFile::OomControl {
            self.oom_kill_disabled = lines.get("oom_kill_disable").map(|n| n != 0);
            self.under_oom = lines.get("under_oom").map(|n| n != 0);
        }
        if file == CgroupFile::Events {
            self.events.limit_hits = lines.get("max");
            self.events.high = lines.get("high");
            self.events.oom = lines.get("oom");
            self.events.oom_group_kill = lines.get("oom_group_kill");
        }
        Some(())
    }

    fn set_subtree(&mut self, kind: &'static str, bytes: u64) {
        self.subtree.kinds.insert(kind, Figure { bytes, source: Source::Counter });
    }
}

/// `rss` is mapped anonymous memory; `cache` includes shmem.
fn v1_figures(lines: &Lines, prefix: &str) -> Figures {
    let get = |key: &str| lines.get_prefixed(prefix, key);
    let mut figures = Figures {
        kinds: BTreeMap::new(),
        dirty: get("dirty"),
        writeback: get("writeback"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        mapped_file: get("mapped_file"),
        anonymous_huge: get("rss_huge"),
        refaulted_pages: get("workingset_refault_file"),
    };
    insert(&mut figures, "anon", get("rss"));
    insert(&mut figures, "shmem", get("shmem"));
    insert(&mut figures, "file", less(get("cache"), get("shmem")));
    insert(&mut figures, "swap", get("swap"));
    figures
}

/// Parts of `kernel` by their line in memory.stat.
const KERNEL_PARTS: [(&str, &str); 5] = [
    ("kernel.slab", "slab"),
    ("kernel.stack", "kernel_stack"),
    ("kernel.pagetables", "pagetables"),
    ("kernel.percpu", "percpu"),
    ("kernel.vmalloc", "vmalloc"),
];

fn v2_figures(lines: &Lines) -> Figures {
    let get = |key: &str| lines.get(key);
    let mut figures = Figures {
        kinds: BTreeMap::new(),
        dirty: get("file_dirty"),
        writeback: get("file_writeback"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        mapped_file: get("file_mapped"),
        anonymous_huge: get("anon_thp"),
        refaulted_pages: get("workingset_refault_file"),
    };
    for kind in ["anon", "shmem", "sock", "zswap", "hugetlb"] {
        insert(&mut figures, kind, get(kind));
    }
    insert(&mut figures, "file", less(get("file"), get("shmem")));
    let mut parts = None;
    for (kind, key) in KERNEL_PARTS {
        let Some(bytes) = get(key) else { continue };
        insert(&mut figures, kind, Some(bytes));
        parts = Some(parts.unwrap_or(0_u64).saturating_add(bytes));
    }
    match (get("kernel"), parts) {
        // 5.18 and later. zswap's pool is charged as kernel memory too, so it is no part of the rest.
        (Some(kernel), parts) => {
            insert(&mut figures, "kernel", Some(kernel));
            let known = parts.unwrap_or(0).saturating_add(get("zswap").unwrap_or(0));
            figures.kinds.insert("kernel.other", Figure { bytes: kernel.saturating_sub(known), source: Source::Remainder });
        }
        (None, Some(bytes)) => {
            figures.kinds.insert("kernel", Figure { bytes, source: Source::Parts });
        }
        (None, None) => {}
    }
    figures
}

fn insert(figures: &mut Figures, kind: &'static str, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        figures.kinds.insert(kind, Figure { bytes, source: Source::Stat });
    }
}

/// A difference of two lines. The kernel updates them apart from each other, so the part can be the larger one for a moment.
fn less(whole: Option<u64>, part: Option<u64>) -> Option<u64> {
    Some(whole?.saturating_sub(part?))
}

/// `key value` lines. A line of another form is passed over; a text without any is refused.
struct Lines<'a>(Vec<(&'a [u8], u64)>);

impl<'a> Lines<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let line = |line: &'a [u8]| {
            let blank = line.iter().position(|&b| b == b' ')?;
            Some((&line[..blank], number(&line[blank + 1..])?))
        };
        let lines: Vec<_> = text.split(|&b| b == b'\n').filter_map(line).collect();
        if lines.is_empty() { None } else { Some(Lines(lines)) }
    }

    fn get(&self, key: &str) -> Option<u64> {
        self.0.iter().find(|(k, _)| *k == key.as_bytes()).map(|(_, n)| *n)
    }

    fn get_prefixed(&self, prefix: &str, key: &str) -> Option<u64> {
        let rest = |k: &'a [u8]| k.strip_prefix(prefix.as_bytes()) == Some(key.as_bytes());
        self.0.iter().find(|(k, _)| rest(k)).map(|(_, n)| *n)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// v1 prints a missing limit as PAGE_COUNTER_MAX pages, which is i64::MAX rounded down to whole pages; v2 as `max`.
fn limit(text: &[u8]) -> Option<Limit> {
    const UNLIMITED_FROM: u64 = i64::MAX as u64 & !0xffff;
    match text.trim_ascii() {
        b"max" => Some(Limit::Unlimited),
        digits => number(digits).map(|n| if n >= UNLIMITED_FROM { Limit::Unlimited } else { Limit::Bytes(n) }),
    }
}

#[cfg(test)]
#[path = "stat_tests.rs"]
mod tests;
