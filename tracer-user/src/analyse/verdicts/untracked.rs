//! `untracked`: much of what is charged has no owner that memtrail can name.
//!
//! Fires when a tenth of what is charged to the cgroup itself, and 4 MiB or more, is kernel memory, socket buffers, or of no known kind, or is
//! left of the ledger beyond three of its errors. Silent where anonymous memory, page cache and tmpfs make up the rest.

use super::Severity;
use crate::analyse::figures;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "untracked";

/// In percent of what is charged.
const PERCENT: u64 = 10;
/// From this share on it is a warning, in percent.
const WARNING_PERCENT: u64 = 50;
/// Bytes.
const LEAST: u64 = 4 << 20;
/// A part below this share of the untracked bytes is not named, in percent.
const PART_PERCENT: u64 = 10;

/// Parts of kernel memory that some kernels tell, and what they mostly are.
const PARTS: [(&str, &str); 6] = [
    ("zswap", "compressed swap (zswap)"),
    ("kernel.slab", "slab: inodes and dentries of files that were looked at, sockets, objects of drivers"),
    ("kernel.pagetables", "page tables: many processes, or large sparse mappings"),
    ("kernel.stack", "stacks of threads"),
    ("kernel.percpu", "memory of each CPU: cgroups, BPF maps, network devices"),
    ("kernel.vmalloc", "vmalloc: BPF maps, io_uring, modules"),
];
/// What the rest of kernel memory mostly is.
const REST: &str = "pages: pipes, Unix sockets, large buffers, and page tables where the kernel does not count them";

/// One part of what has no owner.
struct Part {
    bytes: u64,
    words: String,
}

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, _: &Report) -> Option<Verdict> {
    let charged = figures::charged_bytes(cgroup).filter(|_| cgroup.state != "dead")?;
    let stat = |kind: &str| {
        cgroup.kinds.get(kind).filter(|row| kind != "sock" || figures::is_share(kind, row)).and_then(|row| row.stat).unwrap_or(0)
    };
    let kernel = stat("kernel");
    let known = figures::SHARES_OF_USAGE.iter().map(|kind| stat(kind)).fold(0, u64::saturating_add);
    let unmapped: u64 = cgroup.kinds.values().filter_map(|row| row.unmapped).fold(0, u64::saturating_add);
    // What is pinned and unmapped is charged and in no figure, but it has a verdict of its own. What is pinned and mapped is anonymous memory.
    let pinned = cgroup.processes.iter().filter_map(|row| row.pinned_bytes).fold(0, u64::saturating_add);
    let unknown = charged.saturating_sub(known.saturating_add(unmapped));
    let unknown = if unknown >= pinned / 10 * 9 { unknown.saturating_sub(pinned) } else { unknown };
    let parts_of_kernel: u64 = PARTS.iter().map(|(kind, _)| stat(kind)).fold(0, u64::saturating_add);
    let mut parts: Vec<Part> = PARTS.iter().map(|(kind, words)| Part { bytes: stat(kind), words: (*words).to_owned() }).collect();
    let rest = if parts_of_kernel == 0 {
        "kernel memory: page tables, slab (inodes, dentries), pipes and sockets; this kernel does not tell which".to_owned()
    } else {
        REST.to_owned()
    };
    parts.push(Part { bytes: kernel.saturating_sub(parts_of_kernel), words: rest });
    parts.push(Part { bytes: stat("sock"), words: "buffers of network sockets".to_owned() });
    parts.push(Part { bytes: unknown, words: "of no kind that memory.stat tells".to_owned() });
    for kind in figures::FOLLOWED {
        parts.push(Part { bytes: left_over(cgroup, kind), words: format!("{kind} that was not seen being charged") });
    }
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
    // A cgroup of cgroups owns little but kernel memory, which is no news beside what is below it.
    let whole = charged.max(cgroup.usage_bytes.unwrap_or(0));
    if bytes < LEAST || bytes < whole / 100 * PERCENT {
        return None;
    }
    parts.retain(|part| part.bytes >= bytes / 100 * PART_PERCENT);
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let named: Vec<String> = parts.iter().map(|part| format!("{} {}", units::bytes(part.bytes), part.words)).collect();
    let text = format!(
        "{} have no owner here; consistent with {}. memtrail follows what processes touch, page cache and tmpfs; of kernel memory it knows the \
         amount alone.",
        units::part_of(bytes, charged),
        named.join("; ")
    );
    Some(super::verdict(
        ID,
        if bytes >= whole / 100 * WARNING_PERCENT { Severity::Warning } else { Severity::Info },
        text,
        [
            ("untracked_bytes", json!(bytes)),
            ("charged_bytes", json!(charged)),
            ("kernel_bytes", json!(kernel)),
            ("sock_bytes", json!(stat("sock"))),
            ("unknown_bytes", json!(unknown)),
        ],
    ))
}

/// What is left of the ledger of a kind beyond three of its errors.
fn left_over(cgroup: &Cgroup, kind: &str) -> u64 {
    let Some(row) = cgroup.kinds.get(kind) else { return 0 };
    let left = u64::try_from(row.unattributed.unwrap_or(0)).unwrap_or(0);
    let (_, stderr) = super::followed(row);
    if left as f64 > 3.0 * stderr { left } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::KindRow;

    const MIB: u64 = 1 << 20;

    fn told(kinds: &[(&str, u64)], usage: u64) -> Option<(String, String)> {
        let row = |stat: u64| KindRow { stat: Some(stat * MIB), ..KindRow::default() };
        let kinds = kinds.iter().map(|(kind, mib)| ((*kind).to_owned(), row(*mib))).collect();
        let cgroup = Cgroup { path: "/a".into(), usage_bytes: Some(usage * MIB), kinds, ..Cgroup::default() };
        let report = Report { cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| (verdict.severity, verdict.text))
    }

    #[test]
    fn kernel_memory_is_told_by_its_parts() {
        let (severity, text) = told(&[("anon", 2), ("kernel", 95), ("kernel.slab", 5), ("kernel.pagetables", 80)], 97).unwrap();
        assert_eq!(severity, "warning");
        assert!(text.starts_with("95.0 of 97.0 MiB have no owner here; consistent with 80.0 MiB page tables: "), "{text}");
        assert!(text.contains("10.0 MiB pages: pipes, ") && !text.contains("slab:"), "{text}");
        let (_, v1) = told(&[("anon", 2), ("kernel", 95)], 97).unwrap();
        assert!(v1.contains("95.0 MiB kernel memory: "), "{v1}");
        let (severity, sock) = told(&[("anon", 80), ("sock", 15)], 100).unwrap();
        assert!(severity == "info" && sock.contains("15.0 MiB buffers of network sockets; 5.0 MiB of no kind"), "{sock}");
    }

    #[test]
    fn silent_where_the_rest_is_small() {
        assert_eq!(told(&[("anon", 100), ("kernel", 9)], 109), None, "below a tenth");
        assert_eq!(told(&[("anon", 1), ("kernel", 3)], 4), None, "below 4 MiB");
        assert_eq!(told(&[], 0), None);
    }

    #[test]
    fn what_is_left_of_the_ledger_counts_beyond_its_error() {
        let row = |stderr: u64| KindRow {
            stat: Some(50 * MIB),
            live: Some(10 * MIB),
            live_stderr: Some(stderr * MIB),
            unattributed: Some(40 * MIB as i64),
            ..KindRow::default()
        };
        let of = |stderr| {
            let cgroup = Cgroup { path: "/a".into(), kinds: [("anon".to_owned(), row(stderr))].into(), ..Cgroup::default() };
            let report = Report { cgroups: vec![cgroup], ..Report::default() };
            verdict(&report.cgroups[0], &report)
        };
        assert!(of(1).unwrap().text.contains("40.0 MiB anon that was not seen being charged"));
        assert!(of(14).is_none());
    }
}
