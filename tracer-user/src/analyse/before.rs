//! What a cgroup held before the recording began: by region of its processes, and by file. Pure.
//!
//! Nobody saw it being charged, so that it has no stack. What holds it is known nevertheless: anonymous memory is where page tables have it,
//! less what was charged since the start; page cache and tmpfs are of a file.

use crate::report::{Cgroup, FileRow, OTHER, RegionRow};
use std::collections::BTreeMap;

/// Less is not worth a line.
const LEAST: u64 = 1 << 20;

/// Memory from before the start, of one sort in the processes of one name, or of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Before<'a> {
    /// What holds it.
    pub holder: Holder<'a>,
    /// Bytes.
    pub bytes: u64,
    /// Its standard error: page tables are exact, and what was charged since is not.
    pub stderr: u64,
}

/// What holds memory from before the start.
#[derive(Clone, Debug, PartialEq)]
pub enum Holder<'a> {
    /// Anonymous memory of one class.
    Region {
        /// Name of the processes.
        comm: &'a str,
        /// Their thread-group ids.
        pids: Vec<u32>,
        /// Region class.
        class: &'a str,
    },
    /// Anonymous memory in no process that was looked into.
    Elsewhere,
    /// Page cache or tmpfs.
    File(&'a FileRow),
    /// Page cache or tmpfs of files that are not told one by one, of that kind.
    OtherFiles(&'a str),
}

/// The memory of a cgroup from before the start, largest first. Its sum is no more than the ledger's.
#[must_use]
pub fn before(cgroup: &Cgroup) -> Vec<Before<'_>> {
    let mut found = regions(cgroup);
    found.extend(files(cgroup));
    found.retain(|before| before.bytes >= LEAST);
    found.sort_by_key(|before| std::cmp::Reverse(before.bytes));
    found
}

fn baseline(cgroup: &Cgroup, kind: &str) -> u64 {
    cgroup.kinds.get(kind).and_then(|row| row.baseline).unwrap_or(0)
}

/// The most that anonymous memory from before the start can be: what the kernel counts less what came since, which is closer than the estimate where
/// little came.
fn most_anonymous(cgroup: &Cgroup) -> u64 {
    let estimate = baseline(cgroup, "anon");
    let row = cgroup.kinds.get("anon").filter(|_| estimate > 0);
    row.and_then(|row| Some(row.stat?.saturating_sub(row.live?).saturating_sub(row.dead_below.unwrap_or(0)))).unwrap_or(0).max(estimate)
}

fn regions(cgroup: &Cgroup) -> Vec<Before<'_>> {
    let mut sums: BTreeMap<(&str, &str), (u64, Vec<u32>, f64)> = BTreeMap::new();
    let older = |row: &RegionRow| row.resident.unwrap_or(0).saturating_sub(row.live);
    for row in cgroup.regions.iter().filter(|row| older(row) > 0) {
        let sum = sums.entry((&row.comm, &row.class)).or_default();
        sum.0 = sum.0.saturating_add(older(row));
        sum.1.extend(row.pid.filter(|pid| !sum.1.contains(pid)));
        sum.2 += (row.live_stderr as f64).powi(2);
    }
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by_key(|(_, (bytes, ..))| std::cmp::Reverse(*bytes));
    // Pages that processes share since a fork are in the page tables of each, and charged once.
    let mut left = most_anonymous(cgroup);
    let mut found = Vec::new();
    for ((comm, class), (bytes, pids, variance)) in rows {
        // Less what was charged since, which is an estimate.
        let stderr = variance.sqrt().round() as u64;
        if bytes / 2 < stderr {
            continue;
        }
        let bytes = bytes.min(left);
        left -= bytes;
        found.push(Before { holder: Holder::Region { comm, pids, class }, bytes, stderr });
    }
    let stderr = cgroup.kinds.get("anon").and_then(|row| row.baseline_stderr).unwrap_or(0);
    if left / 2 > stderr {
        found.push(Before { holder: Holder::Elsewhere, bytes: left, stderr });
    }
    found
}

fn files(cgroup: &Cgroup) -> Vec<Before<'_>> {
    let is_other = |file: &FileRow| file.path == OTHER && file.inode.is_none();
    let mut found: Vec<Before<'_>> = Vec::new();
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    for file in cgroup.files.iter().filter(|file| !is_other(file) && file.baseline >= LEAST && file.baseline / 2 >= file.baseline_stderr) {
        let sum = told.entry(&file.kind).or_default();
        *sum = sum.saturating_add(file.baseline);
        found.push(Before { holder: Holder::File(file), bytes: file.baseline, stderr: file.baseline_stderr });
    }
    for kind in ["file", "shmem"] {
        let rest = baseline(cgroup, kind).saturating_sub(told.get(kind).copied().unwrap_or(0));
        let stderr = cgroup.kinds.get(kind).and_then(|row| row.baseline_stderr).unwrap_or(0);
        if rest / 2 > stderr {
            found.push(Before { holder: Holder::OtherFiles(kind), bytes: rest, stderr });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::KindRow;

    const MIB: u64 = 1 << 20;

    fn region(pid: u32, comm: &str, class: &str, resident: u64, live: u64) -> RegionRow {
        let resident = Some(resident * MIB);
        RegionRow { pid: Some(pid), comm: comm.into(), class: class.into(), resident, live: live * MIB, ..RegionRow::default() }
    }

    fn cgroup(anon: u64, regions: Vec<RegionRow>) -> Cgroup {
        let kind = KindRow { baseline: Some(anon * MIB), ..KindRow::default() };
        Cgroup { kinds: [("anon".to_owned(), kind)].into(), regions, ..Cgroup::default() }
    }

    fn told<'a>(cgroup: &'a Cgroup) -> Vec<(String, u64)> {
        let name = |holder: &Holder<'a>| match holder {
            Holder::Region { comm, pids, class } => format!("{comm}{pids:?} {class}"),
            Holder::Elsewhere => "elsewhere".to_owned(),
            Holder::File(file) => file.path.clone(),
            Holder::OtherFiles(kind) => format!("other {kind}"),
        };
        before(cgroup).iter().map(|before| (name(&before.holder), before.bytes / MIB)).collect()
    }

    #[test]
    fn what_page_tables_hold_beyond_what_was_charged_since() {
        let one = cgroup(48, vec![region(7, "hog", "brk-heap", 50, 2), region(7, "hog", "thread-stack", 0, 0)]);
        assert_eq!(told(&one), [("hog[7] brk-heap".to_owned(), 48)]);
        let nothing = cgroup(0, vec![region(7, "hog", "brk-heap", 50, 50)]);
        assert_eq!(told(&nothing), []);
    }

    #[test]
    fn processes_of_one_name_are_one_and_shared_pages_count_once() {
        let workers = (1..=4).map(|pid| region(pid, "php", "mmap-malloc", 20, 0)).collect();
        assert_eq!(told(&cgroup(30, workers)), [("php[1, 2, 3, 4] mmap-malloc".to_owned(), 30)]);
        let some = vec![region(1, "a", "other", 10, 0)];
        assert_eq!(told(&cgroup(100, some)), [("elsewhere".to_owned(), 90), ("a[1] other".to_owned(), 10)]);
    }

    #[test]
    fn files_are_told_one_by_one_and_small_ones_together() {
        let file = |path: &str, baseline: u64| FileRow {
            path: path.into(),
            inode: Some("1".into()),
            kind: "file".into(),
            baseline: baseline * MIB / 2,
            ..FileRow::default()
        };
        let kind = KindRow { baseline: Some(40 * MIB), ..KindRow::default() };
        let files = vec![file("/log", 64), file("/small", 1)];
        let cgroup = Cgroup { kinds: [("file".to_owned(), kind)].into(), files, ..Cgroup::default() };
        assert_eq!(told(&cgroup), [("/log".to_owned(), 32), ("other file".to_owned(), 8)]);
    }
}
