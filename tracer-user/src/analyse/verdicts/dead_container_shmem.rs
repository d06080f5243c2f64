//! `dead-container-shmem`: a container is gone and its tmpfs files, memfds or segments are not. They stay charged to the pod, no restart frees
//! them, and without swap the kernel cannot reclaim them.

use super::{Severity, followed, limited_ancestor, percent, place};
use crate::{
    analyse::figures,
    report::{Cgroup, FileRow, Report, Verdict},
    text::units,
};
use serde_json::json;

pub(super) const ID: &str = "dead-container-shmem";

/// Less is not worth a word, unless it is much of a limit.
const WORTH_BYTES: u64 = 16 << 20;
/// Of the limit above.
const WORTH_PERCENT: u64 = 5;
/// Nothing smaller is ever worth a word.
const LEAST_BYTES: u64 = 1 << 20;
/// From here on the next container has not the memory it was given.
const CRITICAL_PERCENT: u64 = 25;

fn what_frees(file: &FileRow) -> &'static str {
    let has_directory = file.mount.is_some() || file.path_inside.is_some();
    match (file.state.as_deref(), has_directory) {
        (Some("deleted"), true) => "end the process that holds it open: it is deleted already",
        (_, true) => "delete the file or the pod; set a sizeLimit on the volume",
        _ if file.path.starts_with("SYSV") => "remove the segment (ipcrm -M) or end the processes attached to it",
        _ => "end the process that still holds it",
    }
}

pub(super) fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    if cgroup.state != "dead" {
        return None;
    }
    let (bytes, stderr) = followed(cgroup.kinds.get("shmem")?);
    let limit = limited_ancestor(cgroup, report);
    let share = limit.map(|(_, limit)| (u128::from(bytes) * 100).checked_div(u128::from(limit)).unwrap_or(0));
    let is_much = bytes >= WORTH_BYTES || share.is_some_and(|share| share >= u128::from(WORTH_PERCENT));
    if !is_much || bytes < LEAST_BYTES || (bytes as f64) < 2.0 * stderr {
        return None;
    }
    let of_limit =
        limit.map(|(above, limit)| format!(" ({} of the {} of {})", percent(bytes, limit), units::bytes(limit), figures::name(above)));
    let mut left: Vec<&FileRow> = cgroup.files.iter().filter(|file| file.kind == "shmem").collect();
    left.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
    let largest = left.first().copied();
    let writer = largest.map(|file| match file.writers.first() {
        Some(_) => format!("written by {}", figures::touchers(&file.writers)),
        None => "written before the recording, so by whom is not known".to_owned(),
    });
    let more = if left.len() > 1 { format!(" and {} more files", left.len() - 1) } else { String::new() };
    let held = largest.map_or_else(|| "in files that are not known".to_owned(), |file| format!("in {}{more}", place(file)));
    let text = format!(
        "{} still holds {} of shmem{} {held}{}. No restart frees it, nor can the kernel without swap. To free it, {}.",
        figures::name(cgroup),
        units::bytes(bytes),
        of_limit.unwrap_or_default(),
        writer.map(|writer| format!(", {writer}")).unwrap_or_default(),
        largest.map_or("delete the files", what_frees),
    );
    let severity = if share.is_some_and(|share| share >= u128::from(CRITICAL_PERCENT)) { Severity::Critical } else { Severity::Warning };
    let evidence = [
        ("shmem_bytes", json!(bytes)),
        ("shmem_stderr", json!(stderr.round() as u64)),
        ("limit_bytes", json!(limit.map(|(_, limit)| limit))),
        ("limit_cgroup", json!(limit.map(|(above, _)| above.path.clone()))),
        ("dead_for_s", json!(cgroup.dead_for_s)),
        ("files", json!(left.len())),
        ("largest_file", json!(largest.map(|file| file.path.clone()))),
    ];
    Some(super::verdict(ID, severity, text, evidence))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::{FileToucher, KindRow};

    const MIB: u64 = 1 << 20;

    fn report(state: &str, bytes: u64, stderr: u64, limit: Option<u64>) -> Report {
        let shmem = KindRow { live: Some(bytes), live_stderr: Some(stderr), ..KindRow::default() };
        let file = FileRow {
            path: "/pods/u/volumes/kubernetes.io~empty-dir/cache/big".into(),
            inode: Some("1".into()),
            kind: "shmem".into(),
            mount: Some("/pods".into()),
            volume: Some("emptyDir cache of pod u".into()),
            live: bytes,
            state: Some("present".into()),
            writers: vec![FileToucher { pid: Some(7), comm: "java".into(), bytes, how: Some("write".into()), frames: vec![] }],
            ..FileRow::default()
        };
        let dead = Cgroup {
            path: format!("/pod/{}", "a".repeat(64)),
            state: state.into(),
            container: Some("a".repeat(64)),
            dead_for_s: Some(12.0),
            kinds: [("shmem".to_owned(), shmem)].into(),
            files: vec![file],
            ..Cgroup::default()
        };
        let pod = Cgroup { path: "/pod".into(), state: "alive".into(), limit_bytes: limit, ..Cgroup::default() };
        Report { cgroups: vec![dead, pod], ..Report::default() }
    }

    fn fires(report: &Report) -> Option<Verdict> {
        verdict(&report.cgroups[0], report)
    }

    #[test]
    fn it_says_what_is_left_where_by_whom_and_what_frees_it() {
        let found = fires(&report("dead", 200 * MIB, 0, Some(256 * MIB))).unwrap();
        assert_eq!((found.id.as_str(), found.severity.as_str()), (ID, "critical"));
        assert_eq!(
            found.text,
            "dead container aaaaaaaaaaaa (exited 12 s ago) still holds 200.0 MiB of shmem (78 % of the 256.0 MiB of /pod) in \
             /pods/u/volumes/kubernetes.io~empty-dir/cache/big (emptyDir cache of pod u), written by java[7] 200.0 MiB. No restart frees it, \
             nor can the kernel without swap. To free it, delete the file or the pod; set a sizeLimit on the volume."
        );
        assert_eq!(found.evidence["shmem_bytes"], json!(200 * MIB));
    }

    #[test]
    fn the_living_and_small_or_uncertain_remains_are_no_verdict() {
        assert_eq!(fires(&report("alive", 200 * MIB, 0, None)), None);
        assert_eq!(fires(&report("dead", 8 * MIB, 0, None)), None);
        assert_eq!(fires(&report("dead", 200 * MIB, 150 * MIB, None)), None);
        // Much of a small limit is worth a word, and no limit is none to be at.
        assert_eq!(fires(&report("dead", 8 * MIB, 0, Some(64 * MIB))).unwrap().severity, "warning");
        assert_eq!(fires(&report("dead", 200 * MIB, 0, None)).unwrap().severity, "warning");
    }

    #[test]
    fn page_cache_of_the_dead_is_no_verdict() {
        let mut report = report("dead", 200 * MIB, 0, None);
        let row = report.cgroups[0].kinds.remove("shmem").unwrap();
        report.cgroups[0].kinds.insert("file".into(), row);
        assert_eq!(fires(&report), None);
    }

    #[test]
    fn what_frees_it_depends_on_what_it_is() {
        let mut report = report("dead", 200 * MIB, 0, None);
        report.cgroups[0].files[0].state = Some("deleted".into());
        assert!(fires(&report).unwrap().text.contains("deleted already"));
        report.cgroups[0].files[0].mount = None;
        report.cgroups[0].files[0].path = "SYSV00000001".into();
        assert!(fires(&report).unwrap().text.contains("ipcrm"));
        report.cgroups[0].files[0].writers.clear();
        assert!(fires(&report).unwrap().text.contains("by whom is not known"));
    }
}
