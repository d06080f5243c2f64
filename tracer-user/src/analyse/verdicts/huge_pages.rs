//! `huge-pages`: the kernel made whole huge pages of memory of which the program wrote little.
//!
//! Fires when transparent huge pages hold a fifth of the anonymous memory and 16 MiB or more, and half of the pages in them that were read are
//! zeros. Silent where they are full: then they save page tables and faults.

use super::Severity;
use crate::report::{Cgroup, ProcessRow, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "huge-pages";

/// Bytes.
const LEAST: u64 = 16 << 20;
/// Of anonymous memory, in percent.
const PERCENT: u64 = 20;
/// Pages of zeros, in percent of those that were read.
const ZERO_PERCENT: u64 = 50;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    // On 5.10 the figure was zero for twenty huge pages that page tables had: it is told in batches.
    let of_processes = |cgroup: &Cgroup| cgroup.processes.iter().filter_map(|row| row.anon_huge_bytes).fold(0, u64::saturating_add);
    let huge = super::innermost(cgroup, report, LEAST, |cgroup| Some(cgroup.anon_huge_bytes.unwrap_or(0).max(of_processes(cgroup))))?;
    let anon = super::whole(cgroup, "anon")?.stat?;
    let sum = |of: fn(&ProcessRow) -> Option<u64>| super::processes(cgroup, report).filter_map(of).fold(0, u64::saturating_add);
    let (read, zero) = (sum(|row| row.huge_pages_read), sum(|row| row.huge_pages_zero));
    if huge < anon / 100 * PERCENT || read == 0 || u128::from(zero) * 100 < u128::from(read) * u128::from(ZERO_PERCENT) {
        return None;
    }
    let whose = super::mostly_of(cgroup, report, |row| row.anon_huge_bytes);
    Some(super::verdict(
        ID,
        Severity::Warning,
        format!(
            "{} of anon are huge pages of 2 MiB{whose}; {} of what was read of them is zeros: consistent with a program that touches a little \
             here and there, and a kernel that makes whole huge pages of it. Set transparent_hugepage/enabled to madvise, or \
             khugepaged/max_ptes_none to 0, or call prctl(PR_SET_THP_DISABLE).",
            units::bytes(huge),
            super::percent(zero, read),
        ),
        [("huge_bytes", json!(huge)), ("anon_bytes", json!(anon)), ("pages_read", json!(read)), ("pages_of_zeros", json!(zero))],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn told(huge: u64, anon: u64, zero: u64) -> Option<String> {
        let row = ProcessRow {
            pid: 7,
            comm: "thp".into(),
            anon_huge_bytes: Some(huge * MIB),
            huge_pages_read: Some(1000),
            huge_pages_zero: Some(zero),
            ..ProcessRow::default()
        };
        let anon = crate::report::KindRow { stat: Some(anon * MIB), ..crate::report::KindRow::default() };
        let cgroup = Cgroup {
            anon_huge_bytes: Some(huge * MIB),
            kinds: [("anon".to_owned(), anon)].into(),
            processes: vec![row],
            ..Cgroup::default()
        };
        let report = Report { cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| verdict.text)
    }

    #[test]
    fn huge_pages_of_zeros_are_told() {
        let text = told(40, 41, 990).unwrap();
        assert!(text.starts_with("40.0 MiB of anon are huge pages of 2 MiB, mostly of thp[7] 40.0 MiB; 99 % of what was read"), "{text}");
    }

    #[test]
    fn silent_for_full_few_or_small_ones() {
        assert_eq!(told(40, 41, 400), None, "full");
        assert_eq!(told(40, 400, 990), None, "few");
        assert_eq!(told(15, 15, 990), None, "small");
    }
}
