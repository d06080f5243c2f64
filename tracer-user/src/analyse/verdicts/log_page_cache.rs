//! `log-page-cache`: the cgroup's memory is mostly page cache of files that are written from front to back. What was also read again is on
//! the active list, which the kubelet counts as needed, though the kernel would drop it; the rest fills the limit and harms nobody.
//! (Since 4.7 writes alone do not make page cache active.)

use super::{Severity, place};
use crate::analyse::figures;
use crate::{
    report::{Cgroup, FileRow, Report, Verdict},
    text::units,
};
use serde_json::json;

pub(super) const ID: &str = "log-page-cache";

/// Less page cache is not worth a word.
const WORTH_BYTES: u64 = 16 << 20;
/// Of the limit, from which on people's alarms are near.
const NEAR_PERCENT: u128 = 80;

pub(super) fn verdict(cgroup: &Cgroup, _report: &Report) -> Option<Verdict> {
    let (usage, working_set, active) = (cgroup.usage_bytes?, cgroup.working_set_bytes?, cgroup.active_file_bytes?);
    let page_cache = active.saturating_add(cgroup.kubelet_reclaimable_bytes?);
    let is_near = |bytes: u64| cgroup.limit_bytes.is_some_and(|limit| u128::from(bytes) * 100 >= u128::from(limit) * NEAR_PERCENT);
    let fills_working_set = active >= WORTH_BYTES && active >= working_set / 2;
    let fills_limit = page_cache >= WORTH_BYTES && page_cache >= usage / 2 && is_near(usage);
    if !fills_working_set && !fills_limit {
        return None;
    }
    let mut logs: Vec<&FileRow> = cgroup.files.iter().filter(|file| is_log(file)).collect();
    logs.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
    let (bytes, variance) = logs
        .iter()
        .fold((0_u64, 0.0), |(bytes, variance), file| (bytes.saturating_add(file.bytes()), variance + (file.stderr() as f64).powi(2)));
    if bytes < page_cache / 2 || (bytes as f64) < 2.0 * f64::sqrt(variance) {
        return None;
    }
    let largest = logs.first()?;
    let seen = if fills_working_set {
        format!("{} of the working set of {} is active page cache", units::bytes(active), units::bytes(working_set))
    } else {
        format!("{} of the usage of {} is page cache", units::bytes(page_cache), units::bytes(usage))
    };
    let more = if logs.len() > 1 { format!(" and {} more files", logs.len() - 1) } else { String::new() };
    let droppable =
        cgroup.droppable_bytes.map_or_else(String::new, |bytes| format!(" ({} at once, the rest once written back)", units::bytes(bytes)));
    let disagreement = if fills_working_set { "; kubectl top counts it, tools that subtract all cache do not" } else { "" };
    let text = format!(
        "{seen}, mostly of {}{more}, appended to by {}: consistent with logs that grow. The kernel drops it under \
         pressure{droppable}{disagreement}. Rotate the log, or write it past the page cache (O_DIRECT, or POSIX_FADV_DONTNEED after \
         fdatasync).",
        place(largest),
        figures::touchers(&largest.writers),
    );
    let evidence = [
        ("active_file_bytes", json!(active)),
        ("working_set_bytes", json!(working_set)),
        ("droppable_bytes", json!(cgroup.droppable_bytes)),
        ("log_bytes", json!(bytes)),
        ("files", json!(logs.len())),
        ("largest_file", json!(largest.path)),
    ];
    let severity = if fills_working_set && is_near(working_set) { Severity::Warning } else { Severity::Info };
    Some(super::verdict(ID, severity, text, evidence))
}

/// Written from front to back, and by whoever is known to have written most of what came since the start.
fn is_log(file: &FileRow) -> bool {
    let written: u64 = file.writers.iter().filter(|writer| writer.how.as_deref() == Some("write")).map(|writer| writer.bytes).sum();
    file.kind == "file" && file.write_pattern.as_deref() == Some("sequential") && written > file.live / 2
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::FileToucher;

    const MIB: u64 = 1 << 20;

    fn cgroup(active: u64, working_set: u64) -> Cgroup {
        let writer = FileToucher { pid: Some(7), comm: "java".into(), bytes: active, how: Some("write".into()), frames: vec![] };
        let log = FileRow {
            path: "/var/log/app.log".into(),
            inode: Some("1".into()),
            kind: "file".into(),
            live: active,
            write_pattern: Some("sequential".into()),
            writers: vec![writer],
            ..FileRow::default()
        };
        Cgroup {
            usage_bytes: Some(working_set + 10 * MIB),
            working_set_bytes: Some(working_set),
            active_file_bytes: Some(active),
            kubelet_reclaimable_bytes: Some(10 * MIB),
            droppable_bytes: Some(active),
            limit_bytes: Some(256 * MIB),
            files: vec![log],
            ..Cgroup::default()
        }
    }

    fn fires(cgroup: &Cgroup) -> Option<Verdict> {
        verdict(cgroup, &Report::default())
    }

    #[test]
    fn a_working_set_of_logs_is_named_with_file_writer_and_what_can_be_dropped() {
        let found = fires(&cgroup(200 * MIB, 210 * MIB)).unwrap();
        assert_eq!((found.id.as_str(), found.severity.as_str()), (ID, "warning"));
        assert!(found.text.starts_with(
            "200.0 MiB of the working set of 210.0 MiB is active page cache, mostly of /var/log/app.log, appended to by java[7] 200.0 MiB: \
             consistent with logs that grow. The kernel drops it under pressure (200.0 MiB at once, the rest once written back); kubectl top counts it"
        ));
        assert_eq!(fires(&cgroup(100 * MIB, 110 * MIB)).unwrap().severity, "info");
    }

    #[test]
    fn logs_that_fill_the_limit_without_being_needed_are_worth_knowing() {
        let inactive = Cgroup { kubelet_reclaimable_bytes: Some(200 * MIB), active_file_bytes: Some(MIB), ..cgroup(200 * MIB, 20 * MIB) };
        let full = Cgroup { usage_bytes: Some(220 * MIB), ..inactive.clone() };
        let found = fires(&full).unwrap();
        assert_eq!(found.severity, "info");
        assert!(found.text.starts_with("201.0 MiB of the usage of 220.0 MiB is page cache, mostly of"), "{}", found.text);
        assert_eq!(fires(&Cgroup { limit_bytes: None, ..full }), None);
    }

    #[test]
    fn a_working_set_of_heap_or_little_cache_is_no_verdict() {
        assert_eq!(fires(&cgroup(90 * MIB, 210 * MIB)), None);
        assert_eq!(fires(&cgroup(10 * MIB, 11 * MIB)), None);
    }

    #[test]
    fn cache_that_is_read_scattered_or_not_known_is_no_verdict() {
        let change = |change: &dyn Fn(&mut FileRow)| {
            let mut cgroup = cgroup(200 * MIB, 210 * MIB);
            change(&mut cgroup.files[0]);
            fires(&cgroup)
        };
        assert_eq!(change(&|file| file.write_pattern = Some("scattered".into())), None);
        assert_eq!(change(&|file| file.write_pattern = None), None);
        assert_eq!(change(&|file| file.writers.clear()), None);
        assert_eq!(change(&|file| file.live = 20 * MIB), None);
        assert_eq!(change(&|file| file.live_stderr = 150 * MIB), None);
        let unknown = Cgroup { active_file_bytes: None, ..cgroup(200 * MIB, 210 * MIB) };
        assert_eq!(fires(&unknown), None);
    }
}
