//! A level's memory by kind, from what the kernel half read of it. On v1 kernel memory has a counter, on v2 it is a figure of memory.stat.

use super::source;
use crate::cgroup::Version;
use crate::kernel_half::events::oom::{known, pages};
use std::collections::BTreeMap;
use tracer_common::{
    layout::STAT_NAMES,
    oom::{OOM_STATS, OomLevel},
};

/// A figure and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Bytes; a remainder may be negative.
    pub bytes: i64,
    /// Where from.
    pub source: String,
}

/// Pages of the limit, `None` for no limit: the kernel's largest number of pages (`PAGE_COUNTER_MAX`), or one close to it.
#[must_use]
pub fn limit_pages(level: &OomLevel) -> Option<u64> {
    known(level.max).filter(|max| *max < (i64::MAX as u64 >> 13))
}

/// Bytes charged, as the counter has it; `None` for the root, whose counter leaves out what its own processes charge.
#[must_use]
pub fn usage(level: &OomLevel, page_bytes: u64) -> Option<u64> {
    if level.depth == 0 { None } else { pages(level.usage, page_bytes) }
}

/// Charges that met the limit. On v2 later kernels keep no count of their own but that of memory.events, which older ones keep too, and
/// which counts only those that began to reclaim: the larger is the right one.
#[must_use]
pub fn failcnt(level: &OomLevel, version: Version) -> Option<u64> {
    match version {
        Version::V1 => known(level.failcnt),
        Version::V2 => [known(level.failcnt), known(level.limit_events)].into_iter().flatten().max(),
    }
}

/// One of memory.stat's figures, in bytes, if it is trusted: was found equal to the file when the recording began.
#[must_use]
pub fn stat(level: &OomLevel, name: &str, trusted: &[bool; OOM_STATS], page_bytes: u64) -> Option<u64> {
    let at = STAT_NAMES.iter().position(|known| *known == name)?;
    if !trusted.get(at).copied()? {
        return None;
    }
    let number = known(*level.stats.get(at)?)?;
    // A sum over CPUs may be below zero for a moment.
    let number = u64::try_from(number as i64).unwrap_or(0);
    Some(number.saturating_mul(unit(name, page_bytes)))
}

/// What the kernel counts a figure in, bytes.
fn unit(name: &str, page_bytes: u64) -> u64 {
    match name {
        "kernel_stack" => 1024,
        "slab_reclaimable" | "slab_unreclaimable" | "percpu" => 1,
        _ => page_bytes,
    }
}

/// Memory by kind. Kinds that cannot be known are left out; without usage there is no remainder.
#[must_use]
pub fn by_kind(
    level: &OomLevel,
    version: Version,
    trusted: &[bool; OOM_STATS],
    page_bytes: u64,
    older: &BTreeMap<String, Figure>,
) -> BTreeMap<String, Figure> {
    let mut kinds = BTreeMap::new();
    let mut put = |kind: &str, bytes: Option<u64>, from: &str| {
        if let Some(bytes) = bytes.and_then(|bytes| i64::try_from(bytes).ok()) {
            kinds.insert(kind.to_owned(), Figure { bytes, source: from.to_owned() });
        }
    };
    let stat = |name| stat(level, name, trusted, page_bytes);
    put("anon", stat("anon"), source::STAT);
    put("shmem", stat("shmem"), source::STAT);
    put("file", stat("file").and_then(|file| Some(file.saturating_sub(stat("shmem")?))), source::STAT);
    let socket = match version {
        Version::V1 => pages(level.sockets, page_bytes),
        Version::V2 => stat("sock"),
    };
    put("sock", socket, if version == Version::V1 { source::PROBE } else { source::STAT });
    match version {
        Version::V1 => put("kernel", pages(level.kernel, page_bytes), source::PROBE),
        Version::V2 => {
            let parts = ["kernel_stack", "slab_reclaimable", "slab_unreclaimable", "percpu"];
            let sum = || parts.iter().filter_map(|part| stat(part)).reduce(u64::saturating_add);
            put("kernel", stat("kernel").or_else(sum), source::STAT);
        }
    }
    let swap = match version {
        // The counter holds memory and swap.
        Version::V1 => known(level.swap).zip(known(level.usage)).map(|(both, memory)| both.saturating_sub(memory) * page_bytes),
        Version::V2 => pages(level.swap, page_bytes),
    };
    put("swap", swap, source::PROBE);
    for (kind, figure) in older {
        kinds.entry(kind.clone()).or_insert_with(|| figure.clone());
    }
    if let Some(usage) = usage(level, page_bytes).and_then(|usage| i64::try_from(usage).ok()) {
        let parts = kinds.iter().filter(|(kind, _)| is_part(kind, version));
        let rest = parts.fold(usage, |rest, (_, figure)| rest.saturating_sub(figure.bytes));
        kinds.insert("remainder".to_owned(), Figure { bytes: rest, source: source::REMAINDER.to_owned() });
    }
    kinds
}

/// Whether the usage holds that kind: swap is no memory, and v1 counts sockets apart.
#[must_use]
pub fn is_part(kind: &str, version: Version) -> bool {
    kind != "swap" && (kind != "sock" || version == Version::V2)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tracer_common::oom::UNKNOWN;

    fn level() -> OomLevel {
        let mut stats = [UNKNOWN; OOM_STATS];
        // anon, file, shmem
        stats[..3].copy_from_slice(&[100, 50, 20]);
        OomLevel {
            cgroup: 1,
            usage: 200,
            max: 256,
            failcnt: 3,
            swap: 210,
            kernel: 40,
            sockets: 5,
            oom_events: 1,
            limit_events: 9,
            flags: 0,
            depth: 1,
            stats,
        }
    }

    fn bytes(kinds: &BTreeMap<String, Figure>, kind: &str) -> Option<i64> {
        kinds.get(kind).map(|figure| figure.bytes / 4096)
    }

    #[test]
    fn kinds_and_the_remainder_sum_to_the_usage() {
        let kinds = by_kind(&level(), Version::V1, &[true; OOM_STATS], 4096, &BTreeMap::new());
        assert_eq!(bytes(&kinds, "file"), Some(30), "without shmem");
        assert_eq!(bytes(&kinds, "swap"), Some(10), "memory and swap less memory");
        assert_eq!(bytes(&kinds, "remainder"), Some(200 - 100 - 30 - 20 - 40), "v1's sockets are not in it");
        let sum: i64 = kinds.iter().filter(|(kind, _)| is_part(kind, Version::V1)).map(|(_, figure)| figure.bytes).sum();
        assert_eq!(sum, 200 * 4096);
    }

    #[test]
    fn what_is_not_trusted_comes_from_the_last_reading_and_says_so() {
        let older = BTreeMap::from([("anon".to_owned(), Figure { bytes: 4096, source: source::files(2.5) })]);
        let kinds = by_kind(&level(), Version::V1, &[false; OOM_STATS], 4096, &older);
        assert_eq!(kinds["anon"], older["anon"]);
        assert_eq!(kinds["anon"].source, "cgroup files, 2.5 s before");
        assert!(!kinds.contains_key("shmem"), "unknown is not zero");
        let unknown = OomLevel { usage: UNKNOWN, ..level() };
        let root = OomLevel { depth: 0, ..level() };
        for level in [unknown, root] {
            assert!(!by_kind(&level, Version::V1, &[true; OOM_STATS], 4096, &BTreeMap::new()).contains_key("remainder"));
        }
    }

    #[test]
    fn failures_are_counted_in_one_of_two_ways() {
        assert_eq!((failcnt(&level(), Version::V1), failcnt(&level(), Version::V2)), (Some(3), Some(9)));
        let neither = OomLevel { failcnt: UNKNOWN, limit_events: UNKNOWN, ..level() };
        assert_eq!(failcnt(&neither, Version::V2), None);
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(limit_pages(&level()), Some(256));
        assert_eq!(limit_pages(&OomLevel { max: i64::MAX as u64 / 4096, ..level() }), None);
        assert_eq!(limit_pages(&OomLevel { max: UNKNOWN, ..level() }), None);
    }
}
