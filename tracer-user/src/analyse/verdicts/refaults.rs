//! `refaults`: page cache is dropped at the limit and read again, over and over: the disk is busy, nothing grows, nothing is killed.
//!
//! Fires when usage is 85 % of the limit that is met first or more, what cannot be dropped (anonymous memory, tmpfs, kernel memory) is half of
//! it or more, and what was read again since the start is 8 MiB or more, 256 KiB a second or more, and in a minute half of the page cache that is
//! there. Silent with room below the limit, for a cache that is as large as the limit, for a first reading, and for little.

use super::Severity;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "refaults";

/// Usage of the limit, in percent.
const PERCENT: u64 = 85;
/// Read again since the start, bytes.
const LEAST: u64 = 8 << 20;
/// And a second.
const LEAST_PER_S: f64 = 262_144.0;
/// Files that are named.
const FILES: usize = 2;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let again = super::innermost(cgroup, report, LEAST, |cgroup| cgroup.refaulted_bytes)?;
    let limit = cgroup.binding_limit.as_ref()?;
    let stat = |kind: &str| super::whole(cgroup, kind).and_then(|row| row.stat).unwrap_or(0);
    let (file, anon, usage) = (stat("file"), stat("anon"), limit.usage_bytes?);
    let per_s = again as f64 / report.duration_s;
    // What cannot be dropped fills the limit; and in a minute half of the page cache that is there is read again.
    let fixed = anon.saturating_add(stat("shmem")).saturating_add(stat("kernel"));
    let is_pressed = usage >= limit.limit_bytes / 100 * PERCENT && fixed >= limit.limit_bytes / 2;
    if !is_pressed || per_s * 60.0 < file as f64 / 2.0 || per_s < LEAST_PER_S || !per_s.is_finite() {
        return None;
    }
    let mut files: Vec<_> = cgroup.files.iter().filter(|row| row.kind == "file" && row.inode.is_some()).collect();
    files.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
    let named: Vec<String> = files.iter().take(FILES).map(|row| super::place(row)).collect();
    let of_files = if named.is_empty() { String::new() } else { format!(", most of what is there now is of {}", named.join(" and ")) };
    Some(super::verdict(
        ID,
        Severity::Critical,
        format!(
            "{} of page cache were read again since the start ({}/s), since there is no room for them: {} is there{of_files}, beside {} of anon \
             at the limit of {}. Nothing is killed as long as that works. Raise the limit, or let anon hold less.",
            units::bytes(again),
            units::bytes(per_s as u64),
            units::bytes(file),
            units::bytes(anon),
            units::bytes(limit.limit_bytes),
        ),
        [
            ("refaulted_bytes", json!(again)),
            ("refaulted_bytes_per_s", json!(per_s)),
            ("file_bytes", json!(file)),
            ("anon_bytes", json!(anon)),
            ("limit_bytes", json!(limit.limit_bytes)),
            ("usage_bytes", json!(usage)),
        ],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::{FileRow, KindRow, LimitRow};

    const MIB: u64 = 1 << 20;

    fn told(again: u64, usage: u64, file: u64) -> Option<String> {
        let kind = |bytes: u64| KindRow { stat: Some(bytes * MIB), ..KindRow::default() };
        let limit = LimitRow { limit_bytes: 26 * MIB, usage_bytes: Some(usage * MIB), ..LimitRow::default() };
        let cgroup = Cgroup {
            refaulted_bytes: Some(again * MIB),
            binding_limit: Some(limit),
            kinds: [("file".to_owned(), kind(file)), ("anon".to_owned(), kind(20))].into(),
            files: vec![FileRow { path: "/model".into(), inode: Some("1".into()), kind: "file".into(), live: 5, ..FileRow::default() }],
            ..Cgroup::default()
        };
        let report = Report { duration_s: 4.0, cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| verdict.text)
    }

    #[test]
    fn the_same_pages_again_and_again_at_the_limit() {
        let text = told(60, 26, 5).unwrap();
        assert!(text.starts_with("60.0 MiB of page cache were read again since the start (15.0 MiB/s), since"), "{text}");
        assert!(
            text.contains(" 5.0 MiB is there, most of what is there now is of /model, beside 20.0 MiB of anon at the limit of 26.0 MiB."),
            "{text}"
        );
    }

    #[test]
    fn silent_with_room_and_for_little() {
        assert_eq!(told(60, 20, 5), None, "room");
        assert_eq!(told(7, 26, 5), None, "little");
        assert_eq!(told(8, 26, 2000), None, "a share of much");
    }
}
