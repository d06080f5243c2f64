//! `dead-container-shmem`: a container is gone and its tmpfs files, memfds or segments are not. They stay charged to the pod, no restart frees
//! them, and without swap the kernel cannot reclaim them.

use super::{Severity, followed, limited_ancestor, living_above, percent, place};
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

/// Ids of segments that a text names.
const SEGMENTS: usize = 8;

fn is_segment(file: &FileRow) -> bool {
    file.path.starts_with("SYSV") && file.mount.is_none() && file.path_inside.is_none()
}

/// What frees these files, the largest first: segments by their ids, which are their inode numbers (ipc/shm.c), else what frees the largest.
fn what_frees(files: &[&FileRow]) -> String {
    let Some(largest) = files.first() else { return "delete the files".to_owned() };
    if is_segment(largest) {
        let ids: Vec<String> =
            files.iter().filter(|file| is_segment(file)).filter_map(|file| file.inode.as_ref()).map(|id| format!("-m {id}")).collect();
        if ids.is_empty() {
            return "remove the segment (ipcrm -m with its id, see ipcs -m) or end the processes attached".to_owned();
        }
        let more = if ids.len() > SEGMENTS { " and so on" } else { "" };
        let segments = if ids.len() == 1 { "the segment" } else { "the segments" };
        return format!("remove {segments} (ipcrm {}{more}) or end the processes attached", ids[..ids.len().min(SEGMENTS)].join(" "));
    }
    let has_directory = largest.mount.is_some() || largest.path_inside.is_some();
    match (largest.state.as_deref(), has_directory) {
        (Some("deleted"), true) => "end the process that holds it open: it is deleted already",
        (_, true) => "delete the file or the pod; set a sizeLimit on the volume",
        _ => "end the process that still holds it",
    }
    .to_owned()
}

/// The living cgroup that a removed one was in, as far as the report has it.
fn heir<'a>(dead: &Cgroup, report: &'a Report) -> Option<&'a Cgroup> {
    // Those of unrelated pods that are gone themselves have nothing in common but the root, which is not among these.
    living_above(dead, report).max_by_key(|other| other.path.len())
}

/// Bytes of shmem of a removed cgroup, and their standard error, where they are worth anything.
fn left(cgroup: &Cgroup) -> Option<(u64, f64)> {
    let (bytes, stderr) = followed(cgroup.kinds.get("shmem").filter(|_| cgroup.state == "dead")?);
    (bytes >= LEAST_BYTES && bytes as f64 >= 2.0 * stderr).then_some((bytes, stderr))
}

/// Paths of the living cgroups that removed ones with something left were in.
pub(super) fn heirs(report: &Report) -> std::collections::HashSet<String> {
    let dead = report.cgroups.iter().filter(|cgroup| left(cgroup).is_some());
    dead.filter_map(|dead| Some(heir(dead, report)?.path.clone())).collect()
}

/// The removed cgroups that are told together: those with something left that were in the same living one.
fn together<'a>(heir: &Cgroup, report: &'a Report) -> Vec<&'a Cgroup> {
    let is_its = |dead: &&Cgroup| self::heir(dead, report).is_some_and(|of| of.path == heir.path);
    report.cgroups.iter().filter(|cgroup| left(cgroup).is_some()).filter(is_its).collect()
}

/// Of a removed cgroup for itself; where several are left of the same living one, of that one, with their sum.
pub(super) fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let dead = match cgroup.state.as_str() {
        "dead" if heir(cgroup, report).is_some_and(|heir| together(heir, report).len() > 1) => return None,
        "dead" => vec![cgroup],
        _ => Some(together(cgroup, report)).filter(|dead| dead.len() > 1)?,
    };
    let own_limit = cgroup.limit_bytes.filter(|_| cgroup.state != "dead").map(|limit| (cgroup, limit));
    let limit = own_limit.or_else(|| limited_ancestor(cgroup, report));
    let (bytes, variance) = dead
        .iter()
        .filter_map(|dead| left(dead))
        .fold((0_u64, 0.0), |sum, (bytes, stderr)| (sum.0.saturating_add(bytes), sum.1 + stderr * stderr));
    let share = limit.map(|(_, limit)| (u128::from(bytes) * 100).checked_div(u128::from(limit)).unwrap_or(0));
    let is_much = bytes >= WORTH_BYTES || share.is_some_and(|share| share >= u128::from(WORTH_PERCENT));
    if !is_much || bytes < LEAST_BYTES {
        return None;
    }
    let of_limit =
        limit.map(|(above, limit)| format!(" ({} of the {} of {})", percent(bytes, limit), units::bytes(limit), figures::name(above)));
    let mut files: Vec<&FileRow> = dead.iter().flat_map(|dead| &dead.files).filter(|file| file.kind == "shmem").collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
    let largest = files.first().copied();
    let writer = largest.map(|file| match file.writers.first() {
        Some(_) => format!("written by {}", figures::touchers(&file.writers)),
        None => "written before the recording, so by whom is not known".to_owned(),
    });
    let more = if files.len() > 1 { format!(" and {} more files", files.len() - 1) } else { String::new() };
    let held = largest.map_or_else(|| "in files that are not known".to_owned(), |file| format!("in {}{more}", place(file)));
    let who = match dead.as_slice() {
        [one] => format!("{} still holds", figures::name(one)),
        all => format!("{} removed cgroups below {} still hold", all.len(), figures::name(cgroup)),
    };
    let text = format!(
        "{who} {} of shmem{} {held}{}. No restart frees it, nor can the kernel without swap. To free it, {}.",
        units::bytes(bytes),
        of_limit.unwrap_or_default(),
        writer.map(|writer| format!(", {writer}")).unwrap_or_default(),
        what_frees(&files),
    );
    let severity = if share.is_some_and(|share| share >= u128::from(CRITICAL_PERCENT)) { Severity::Critical } else { Severity::Warning };
    let evidence = [
        ("shmem_bytes", json!(bytes)),
        ("shmem_stderr", json!(variance.sqrt().round() as u64)),
        ("cgroups", json!(dead.len())),
        ("limit_bytes", json!(limit.map(|(_, limit)| limit))),
        ("limit_cgroup", json!(limit.map(|(above, _)| above.path.clone()))),
        ("dead_for_s", json!(dead.iter().filter_map(|dead| dead.dead_for_s).reduce(f64::min))),
        ("files", json!(files.len())),
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
    fn several_that_were_in_one_pod_are_told_once_with_the_ids_of_their_segments() {
        let mut report = report("dead", 8 * MIB, 0, Some(28 * MIB));
        let mut first = report.cgroups.remove(0);
        let file = &mut first.files[0];
        (file.path, file.mount, file.volume) = ("SYSV00000000".into(), None, None);
        for number in 0..3 {
            let mut dead = Cgroup { path: format!("/pod/c{number}"), ..first.clone() };
            dead.files[0].inode = Some((32768 + number).to_string());
            report.cgroups.push(dead);
        }
        let found: Vec<Verdict> = report.cgroups.iter().filter_map(|cgroup| verdict(cgroup, &report)).collect();
        assert_eq!(found.len(), 1);
        let text = &found[0].text;
        assert!(
            text.starts_with("3 removed cgroups below /pod still hold 24.0 MiB of shmem (85 % of the 28.0 MiB of /pod) in SYSV00000000"),
            "{text}"
        );
        assert!(text.contains("remove the segments (ipcrm -m 32768 -m 32769 -m 32770)"), "{text}");
        assert_eq!((found[0].evidence["cgroups"].clone(), found[0].severity.as_str()), (json!(3), "critical"));
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
        assert!(fires(&report).unwrap().text.contains("remove the segment (ipcrm -m 1)"));
        report.cgroups[0].files[0].writers.clear();
        assert!(fires(&report).unwrap().text.contains("by whom is not known"));
    }
}
