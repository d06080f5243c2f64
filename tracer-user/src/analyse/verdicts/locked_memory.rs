//! `locked-memory`: page cache or anonymous memory that the kernel can neither drop nor swap, since it is locked.
//!
//! Fires from 8 MiB and a quarter of usage on. Silent for little of it.

use super::Severity;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "locked-memory";

/// Bytes.
const LEAST: u64 = 8 << 20;
/// Of usage, in percent.
const PERCENT: u64 = 25;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let locked = super::innermost(cgroup, report, LEAST, |cgroup| cgroup.unevictable_bytes)?;
    let usage = cgroup.usage_bytes?;
    if locked < usage / 100 * PERCENT {
        return None;
    }
    // Address space is locked, resident or not; and other things than locks are in the kernel's figure.
    let by_processes = super::processes(cgroup, report).filter_map(|row| row.locked_bytes).fold(0, u64::saturating_add);
    let whose = if by_processes >= locked / 2 {
        super::mostly_of(cgroup, report, |row| Some(row.locked_bytes?.min(locked)))
    } else {
        String::new()
    };
    let how = if whose.is_empty() {
        ", and no process that was looked into has locked so much: ramfs, tmpfs without swap, memfd_secret, or a locked System V segment"
            .to_owned()
    } else {
        format!(" (mlock{whose} locked)")
    };
    // What of the page cache is on no list.
    let file = super::whole(cgroup, "file").and_then(|row| row.stat).unwrap_or(0);
    let lists = cgroup.active_file_bytes.unwrap_or(0).saturating_add(cgroup.kubelet_reclaimable_bytes.unwrap_or(0));
    let cache = file.saturating_sub(lists).min(locked);
    let of_cache = match cache {
        LEAST.. => format!(" {} of it is page cache, which dashboards take for reclaimable.", units::bytes(cache)),
        _ => String::new(),
    };
    Some(super::verdict(
        ID,
        Severity::Info,
        format!("{} cannot be dropped nor swapped{how}.{of_cache}", units::part_of(locked, usage)),
        [("unevictable_bytes", json!(locked)), ("usage_bytes", json!(usage)), ("page_cache_bytes", json!(cache))],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::ProcessRow;

    const MIB: u64 = 1 << 20;

    fn told(locked: u64, usage: u64, file: u64, holder: Option<u64>) -> Option<String> {
        let row = |bytes: u64| ProcessRow { pid: 7, comm: "llama".into(), locked_bytes: Some(bytes * MIB), ..ProcessRow::default() };
        let kind = crate::report::KindRow { stat: Some(file * MIB), ..crate::report::KindRow::default() };
        let cgroup = Cgroup {
            usage_bytes: Some(usage * MIB),
            unevictable_bytes: Some(locked * MIB),
            kinds: [("file".to_owned(), kind)].into(),
            processes: holder.map(row).into_iter().collect(),
            ..Cgroup::default()
        };
        let report = Report { cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| verdict.text)
    }

    #[test]
    fn locked_page_cache_is_told_as_such() {
        assert_eq!(
            told(16, 18, 16, Some(16)).unwrap(),
            "16.0 of 18.0 MiB cannot be dropped nor swapped (mlock, mostly of llama[7] 16.0 MiB locked). 16.0 MiB of it is page cache, which \
             dashboards take for reclaimable."
        );
        assert!(told(16, 18, 0, None).unwrap().ends_with("memfd_secret, or a locked System V segment."));
    }

    #[test]
    fn silent_where_it_is_little() {
        assert_eq!(told(7, 8, 0, Some(7)), None);
        assert_eq!(told(16, 100, 0, Some(16)), None);
        assert!(told(16, 18, 0, Some(1)).unwrap().contains("no process that was looked into has locked so much"));
    }
}
