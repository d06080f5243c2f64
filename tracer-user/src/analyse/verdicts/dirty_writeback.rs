//! `dirty-writeback`: much of a limit is page cache that is not on disk yet. The kernel cannot drop it, so a writer that is faster than its disk
//! runs into the limit, and without throttling into an OOM kill with next to no memory of its own.

use super::{Severity, percent, place};
use crate::{
    analyse::figures,
    report::{Cgroup, FileRow, Report, Verdict},
    text::units,
};
use serde_json::json;

pub(super) const ID: &str = "dirty-writeback";

/// Of the limit: dirty and under writeback.
const DIRTY_PERCENT: u128 = 25;
/// Of the limit: usage. With more room than that, nothing waits for the disk.
const USAGE_PERCENT: u128 = 70;
/// From here on the next charge may fail.
const CRITICAL_PERCENT: u128 = 95;

pub(super) fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    // The limit that is met first, which may be that of a cgroup above.
    let (whose, usage, limit) = match &cgroup.binding_limit {
        Some(binding) => (Some(&binding.path).filter(|path| **path != cgroup.path), binding.usage_bytes?, binding.limit_bytes),
        None => (None, cgroup.usage_bytes?, cgroup.limit_bytes?),
    };
    if limit == 0 {
        return None;
    }
    let now = cgroup.dirty_bytes?.saturating_add(cgroup.writeback_bytes?);
    let is_of_limit = |bytes: u64, percent: u128| u128::from(bytes) * 100 >= u128::from(limit) * percent;
    // Now, and in every one of the last readings: a burst that the disk takes in a second is none.
    if !is_of_limit(now, DIRTY_PERCENT) || !is_of_limit(cgroup.dirty_sustained_bytes?, DIRTY_PERCENT) || !is_of_limit(usage, USAGE_PERCENT)
    {
        return None;
    }
    let waiting = |file: &FileRow| file.dirty.unwrap_or(0).saturating_add(file.writeback.unwrap_or(0));
    let largest = cgroup.files.iter().filter(|file| file.kind == "file" && waiting(file) > 0).max_by_key(|file| waiting(file));
    let of_file = largest.map(|file| format!(", about {} of it in {}, {}", units::bytes(waiting(file)), place(file), by_whom(file)));
    let throttling = if report.host.cgroup == "v2" {
        "set memory.high, which slows the writer"
    } else {
        "cgroup v1 has no dirty limit of its own, only vm.dirty_bytes of the whole host slows a writer"
    };
    let text = format!(
        "{} of page cache is dirty or under writeback, {} of the limit of {}{}: consistent with a writer faster than its disk{}.{} It cannot be \
         dropped before it is on disk. Write with O_DIRECT or sync in steps (fdatasync, sync_file_range); {throttling}.",
        units::bytes(now),
        percent(now, limit),
        whose.cloned().unwrap_or_else(|| figures::name(cgroup)),
        of_file.unwrap_or_default(),
        rates(cgroup).unwrap_or_default(),
        held(cgroup).unwrap_or_default(),
    );
    let evidence = [
        ("dirty_bytes", json!(cgroup.dirty_bytes)),
        ("writeback_bytes", json!(cgroup.writeback_bytes)),
        ("dirty_sustained_bytes", json!(cgroup.dirty_sustained_bytes)),
        ("usage_bytes", json!(usage)),
        ("limit_bytes", json!(limit)),
        ("largest_file", json!(largest.map(|file| file.path.clone()))),
        ("dirtied_by", json!(largest.map(|file| &file.dirtiers).and_then(|dirtiers| dirtiers.first()).map(|toucher| toucher.pid))),
        ("dirtied_bytes_per_s", json!(cgroup.dirtied_bytes_per_s)),
        ("cleaned_bytes_per_s", json!(cgroup.cleaned_bytes_per_s)),
        ("dirty_held_ns", json!(cgroup.dirty_held_ns)),
    ];
    let severity = if is_of_limit(usage, CRITICAL_PERCENT) { Severity::Critical } else { Severity::Warning };
    Some(super::verdict(ID, severity, text, evidence))
}

/// `dirtied by qemu-img[7] 1.2 GiB through main > flush > write`; who was first to make it resident, where that is all there is.
fn by_whom(file: &FileRow) -> String {
    /// Innermost user frames.
    const FRAMES: usize = 3;
    let Some(first) = file.dirtiers.first() else {
        let by = if file.writers.is_empty() { "not known by whom".to_owned() } else { format!("by {}", figures::touchers(&file.writers)) };
        return format!("written {by}");
    };
    let user: Vec<&str> = first.frames.iter().map(String::as_str).filter(|frame| !frame.ends_with("_[k]")).collect();
    let through = user[user.len().saturating_sub(FRAMES)..].join(" > ");
    let through = if through.is_empty() { through } else { format!(" through {through}") };
    format!("dirtied by {}{through}", figures::touchers(&file.dirtiers))
}

/// ` (dirtied at 210.0 MiB/s, cleaned at 90.0 MiB/s)`.
fn rates(cgroup: &Cgroup) -> Option<String> {
    let rate = |per_s: f64| format!("{}/s", units::bytes(per_s.max(0.0) as u64));
    let dirtied = cgroup.dirtied_bytes_per_s.filter(|per_s| *per_s >= 1.0)?;
    let cleaned = cgroup.cleaned_bytes_per_s.map(|per_s| format!(", cleaned at {}", rate(per_s))).unwrap_or_default();
    Some(format!(" (dirtied at {}{cleaned})", rate(dirtied)))
}

/// ` The kernel held it up for 2.4 s (qemu-img[7] 2.3 s in 12 waits).`: that its own writing is slowed, or that nothing slows it.
fn held(cgroup: &Cgroup) -> Option<String> {
    let ns = cgroup.dirty_held_ns?;
    let Some(longest) = cgroup.dirty_held.as_ref()?.first() else {
        return Some(" The kernel did not hold its writers up.".to_owned());
    };
    let who = format!("{}{}", longest.comm, longest.pid.map(|pid| format!("[{pid}]")).unwrap_or_default());
    let seconds = |ns: u64| format!("{:.1} s", ns as f64 / 1e9);
    Some(format!(" The kernel held its writers up for {} ({who} {} in {} waits).", seconds(ns), seconds(longest.ns), longest.times))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::FileToucher;

    const MIB: u64 = 1 << 20;

    fn cgroup() -> Cgroup {
        let file = |path: &str, dirty: u64, writeback: u64| FileRow {
            path: path.into(),
            inode: Some("1".into()),
            kind: "file".into(),
            dirty: Some(dirty),
            writeback: Some(writeback),
            writers: vec![FileToucher { pid: Some(7), comm: "qemu-img".into(), bytes: dirty, how: Some("write".into()), frames: vec![] }],
            ..FileRow::default()
        };
        Cgroup {
            path: "/importer".into(),
            state: "alive".into(),
            usage_bytes: Some(590 * MIB),
            limit_bytes: Some(600 * MIB),
            dirty_bytes: Some(200 * MIB),
            writeback_bytes: Some(150 * MIB),
            dirty_sustained_bytes: Some(300 * MIB),
            files: vec![file("/log", 10 * MIB, 0), file("/disk.img", 190 * MIB, 140 * MIB)],
            ..Cgroup::default()
        }
    }

    fn fires(change: impl FnOnce(&mut Cgroup)) -> Option<Verdict> {
        let mut cgroup = cgroup();
        change(&mut cgroup);
        verdict(&cgroup, &Report::default())
    }

    #[test]
    fn it_names_the_file_the_writer_and_the_ways_out() {
        let found = fires(|_| ()).unwrap();
        assert_eq!(found.severity, "critical");
        assert!(
            found.text.starts_with(
                "350.0 MiB of page cache is dirty or under writeback, 58 % of the limit of /importer, about 330.0 MiB of it in /disk.img, written \
                 by qemu-img[7] 190.0 MiB: consistent with"
            ),
            "{}",
            found.text
        );
        assert!(found.text.contains("cgroup v1 has no dirty limit of its own"));
        assert_eq!(fires(|cgroup| cgroup.usage_bytes = Some(500 * MIB)).unwrap().severity, "warning");
        let report = Report { host: crate::report::Host { cgroup: "v2".into(), ..Default::default() }, ..Report::default() };
        assert!(verdict(&cgroup(), &report).unwrap().text.contains("memory.high"));
    }

    #[test]
    fn who_made_it_dirty_goes_before_who_was_first_to_write() {
        let found = fires(|cgroup| {
            let dirtier = FileToucher {
                pid: Some(9),
                comm: "flush".into(),
                bytes: 900 * MIB,
                how: None,
                frames: ["main", "a", "b", "c", "vfs_write_[k]"].map(String::from).to_vec(),
            };
            cgroup.files[1].dirtiers = vec![dirtier];
            (cgroup.dirtied_bytes_per_s, cgroup.cleaned_bytes_per_s) = (Some(210.0 * MIB as f64), Some(90.0 * MIB as f64));
        });
        let text = found.unwrap().text;
        assert!(text.contains("in /disk.img, dirtied by flush[9] 900.0 MiB through a > b > c: consistent with"), "{text}");
        assert!(text.contains("than its disk (dirtied at 210.0 MiB/s, cleaned at 90.0 MiB/s). It cannot"), "{text}");
    }

    #[test]
    fn who_was_held_up_is_told_and_that_nobody_was() {
        use crate::report::HeldRow;
        let held = |ns: u64, rows: Vec<HeldRow>| {
            fires(|cgroup| (cgroup.dirty_held_ns, cgroup.dirty_held) = (Some(ns), Some(rows))).map(|found| found.text).unwrap()
        };
        let row = HeldRow { pid: Some(7), comm: "qemu-img".into(), times: 12, ns: 2_340_000_000 };
        let text = held(2_400_000_000, vec![row]);
        assert!(
            text.contains("than its disk. The kernel held its writers up for 2.4 s (qemu-img[7] 2.3 s in 12 waits). It cannot"),
            "{text}"
        );
        assert!(held(0, vec![]).contains(". The kernel did not hold its writers up. It cannot"));
        assert!(!fires(|_| ()).unwrap().text.contains("held"), "not followed, so nothing is said");
    }

    #[test]
    fn the_limit_that_is_met_first_counts() {
        let pod = crate::report::LimitRow {
            path: "/pod".into(),
            limit_bytes: 400 * MIB,
            usage_bytes: Some(395 * MIB),
            left_bytes: Some(5 * MIB),
            reached_in_s: None,
        };
        let found = fires(|cgroup| (cgroup.limit_bytes, cgroup.binding_limit) = (None, Some(pod))).unwrap();
        assert!(found.text.contains("87 % of the limit of /pod,"), "{}", found.text);
        assert_eq!(found.severity, "critical");
    }

    #[test]
    fn a_burst_a_roomy_limit_or_none_and_what_is_not_known_are_no_verdict() {
        assert_eq!(fires(|cgroup| cgroup.dirty_sustained_bytes = Some(10 * MIB)), None);
        assert_eq!(fires(|cgroup| cgroup.dirty_sustained_bytes = None), None);
        assert_eq!(fires(|cgroup| (cgroup.dirty_bytes, cgroup.writeback_bytes) = (Some(10 * MIB), Some(0))), None);
        assert_eq!(fires(|cgroup| cgroup.dirty_bytes = None), None);
        assert_eq!(fires(|cgroup| cgroup.limit_bytes = Some(1200 * MIB)), None);
        assert_eq!(fires(|cgroup| cgroup.limit_bytes = None), None);
        assert_eq!(fires(|cgroup| cgroup.limit_bytes = Some(0)), None);
    }

    #[test]
    fn without_a_file_the_figures_stand_alone() {
        assert!(fires(|cgroup| cgroup.files.clear()).unwrap().text.contains("of /importer: consistent"));
    }
}
