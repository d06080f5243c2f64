//! Files as text: the table of `report --view files`, and the line of the summary for a file that holds most of its cgroup's cache.
//!
//! Pure. Rows of one file in several cgroups stay apart: page cache is charged to whoever touched it first.

use super::selection::Selection;
use crate::analyse::figures;
use crate::report::OTHER;
use crate::report::{Cgroup, FileRow, Report};
use crate::text::units;
use crate::text::{self, escape, pad_left};
use std::collections::BTreeMap;

/// Innermost user frames of its largest toucher.
const FRAMES: usize = 3;

/// The table: a line for the bytes and the path of each file, and one for who is charged and who touched it.
#[must_use]
pub fn table(report: &Report, selection: &Selection) -> String {
    let chosen = report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup));
    let rows = chosen.flat_map(|cgroup| cgroup.files.iter().map(move |file| (cgroup, file)));
    let (mut others, mut rows): (Vec<_>, Vec<_>) =
        rows.filter(|(_, file)| is_other(file) || selection.takes_kind(&file.kind)).partition(|(_, file)| is_other(file));
    rows.sort_by_key(|(_, file)| std::cmp::Reverse(file.bytes()));
    others.extend(rows.drain(selection.top.unwrap_or(usize::MAX).min(rows.len())..));

    let mut table = format!("{}  KIND   STATE    PATH\n", pad_left("BYTES", 24));
    for (cgroup, file) in &rows {
        table.push_str(&line(file));
        table.push_str(&format!("{:26}{}\n", "", escape(&about(cgroup, file))));
    }
    if !others.is_empty() {
        let sum = others.iter().fold(0_u64, |sum, (_, file)| sum.saturating_add(file.bytes()));
        let variance: f64 = others.iter().map(|(_, file)| (file.stderr() as f64).powi(2)).sum();
        let figure = figures::sampled(sum, Some(variance.sqrt().round() as u64));
        table.push_str(&format!("{}  other files\n", pad_left(&figure, 24)));
    }
    if rows.is_empty() && others.is_empty() {
        table.push_str("no files match\n");
    }
    table
}

/// `<bytes>  file  present  /var/log/app.log  (emptyDir logs of pod ...)`. Paths are not cut: they are what is looked for.
fn line(file: &FileRow) -> String {
    let figure = figures::sampled(file.bytes(), Some(file.stderr()));
    let volume = file.volume.as_deref().map(|volume| format!("  ({})", escape(volume))).unwrap_or_default();
    let state = file.state.as_deref().unwrap_or("?");
    format!("{}  {:<6} {:<8} {}{volume}\n", pad_left(&figure, 24), escape(&file.kind), escape(state), escape(&file.path))
}

/// `/kubepods/.../web (dead), written by java[4711] 398.0 MiB, before the start 2.0 MiB`.
fn about(cgroup: &Cgroup, file: &FileRow) -> String {
    let dead = if cgroup.state == "dead" { " (dead)" } else { "" };
    let mut parts = vec![format!("charged to {}{dead}", cgroup.path)];
    for (verb, touchers) in [("written by", &file.writers), ("read by", &file.readers)] {
        if !touchers.is_empty() {
            parts.push(format!("{verb} {}", figures::touchers(touchers)));
        }
    }
    let frames = file.writers.first().or(file.readers.first()).map_or(&[][..], |toucher| &toucher.frames);
    let user: Vec<&str> = frames.iter().map(String::as_str).filter(|frame| !frame.ends_with("_[k]")).collect();
    if !user.is_empty() {
        parts.push(format!("through {}", user[user.len().saturating_sub(FRAMES)..].join(" > ")));
    }
    if file.baseline > 0 {
        parts.push(format!("{} from before the start: by whom is not known", units::bytes(file.baseline)));
    }
    if let Some(dirtied) = file.dirtied.filter(|bytes| *bytes > 0) {
        let rate = file.dirtied_bytes_per_s.filter(|rate| *rate >= 1.0).map(|rate| format!(" at {}/s", units::bytes(rate as u64)));
        let by = if file.dirtiers.is_empty() { String::new() } else { format!(" by {}", figures::touchers(&file.dirtiers)) };
        parts.push(format!("dirtied {}{}{by}", figures::sampled(dirtied, file.dirtied_stderr), rate.unwrap_or_default()));
    }
    let waiting = file.dirty.unwrap_or(0).saturating_add(file.writeback.unwrap_or(0));
    if waiting > 0 {
        parts.push(format!("{} not on disk yet", units::bytes(waiting)));
    }
    if let Some(inside) = &file.path_inside {
        parts.push(format!("inside it {inside}"));
    }
    parts.join(", ")
}

/// The file that holds more than half of the cgroup's bytes of one kind, with those bytes; `None` if none does.
#[must_use]
pub fn dominant<'a>(cgroup: &'a Cgroup, kind: &str) -> Option<&'a FileRow> {
    let all = figures::kind_bytes(cgroup.kinds.get(kind)?)?;
    let of_kind = cgroup.files.iter().filter(|file| file.kind == kind && !is_other(file));
    of_kind.max_by_key(|file| file.bytes()).filter(|file| all > 0 && file.bytes() > all / 2)
}

/// Files of one directory and one beginning that hold more than half of the cgroup's bytes of one kind, where no file does.
pub struct Group<'a> {
    /// Their directory and what their names begin with.
    pub pattern: String,
    /// The files, the largest first.
    pub files: Vec<&'a FileRow>,
}

/// The largest such group of two files or more.
#[must_use]
pub fn group<'a>(cgroup: &'a Cgroup, kind: &str) -> Option<Group<'a>> {
    let all = figures::kind_bytes(cgroup.kinds.get(kind)?)?;
    let mut groups: BTreeMap<(&str, &str), Vec<&FileRow>> = BTreeMap::new();
    for file in cgroup.files.iter().filter(|file| file.kind == kind && !is_other(file) && file.bytes() > 0) {
        let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        // `psm_1234` and `psm_9876`, `seg-01.log` and `seg-02.log`, `SYSV00000000` and its like.
        let end = name.find(|c: char| c.is_ascii_digit()).map_or(name.find('_').map_or(name.len(), |at| at + 1), |at| at);
        let stem = name.find('_').map_or(&name[..end], |at| &name[..end.min(at + 1)]);
        groups.entry((directory, stem)).or_default().push(file);
    }
    let sum = |files: &[&FileRow]| files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes()));
    let ((directory, stem), mut files) = groups.into_iter().filter(|(_, files)| files.len() > 1).max_by_key(|(_, files)| sum(files))?;
    if sum(&files) <= all / 2 {
        return None;
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
    let slash = if files.iter().any(|file| file.path.contains('/')) { "/" } else { "" };
    Some(Group { pattern: format!("{directory}{slash}{stem}*"), files })
}

/// `24.0 MiB of shmem in 3 files /dev/shm/psm_*, by python3[12] 16.0 MiB and 1 more`.
#[must_use]
pub fn group_line(group: &Group<'_>, columns: usize) -> String {
    let bytes = group.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes()));
    let variance: f64 = group.files.iter().map(|file| (file.stderr() as f64).powi(2)).sum();
    let kind = group.files.first().map_or("", |file| &file.kind);
    let head =
        format!("{} of {} in {} files ", figures::sampled(bytes, Some(variance.sqrt().round() as u64)), escape(kind), group.files.len());
    let all: Vec<_> = group.files.iter().flat_map(|file| file.writers.iter().chain(&file.readers)).cloned().collect();
    let by = if all.is_empty() { String::new() } else { format!(", by {}", escape(&figures::touchers(&all))) };
    let room = columns.saturating_sub(text::width(&head) + text::width(&by)).max(12);
    text::cut_middle(&format!("{head}{}{by}", text::cut_middle(&escape(&group.pattern), room)), columns)
}

/// The summary's line for it, in so many columns: `64.0 MiB in /dev/shm/cache, deleted, by app[12]`.
#[must_use]
pub fn summary_line(file: &FileRow, columns: usize) -> String {
    let head = format!("{} of {} in ", figures::sampled(file.bytes(), Some(file.stderr())), escape(&file.kind));
    let deleted = if file.state.as_deref() == Some("deleted") { ", deleted" } else { "" };
    let toucher = file.writers.first().or(file.readers.first());
    let by = toucher.map(|toucher| {
        let pid = toucher.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
        format!(", by {}{pid}", text::cut_middle(&escape(&toucher.comm), 15))
    });
    let tail = format!("{deleted}{}", by.unwrap_or_default());
    let room = columns.saturating_sub(text::width(&head) + text::width(&tail));
    format!("{head}{}{tail}", text::cut_middle(&escape(&file.path), room))
}

fn is_other(file: &FileRow) -> bool {
    file.path == OTHER && file.inode.is_none()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::{FileToucher, KindRow};

    fn file(path: &str, kind: &str, live: u64) -> FileRow {
        let writer = FileToucher {
            pid: Some(7),
            comm: "app".into(),
            bytes: live,
            how: Some("write".into()),
            frames: vec!["main".into(), "write".into(), "vfs_write_[k]".into()],
        };
        FileRow {
            path: path.into(),
            inode: Some("1".into()),
            kind: kind.into(),
            state: Some("deleted".into()),
            live,
            writers: vec![writer],
            ..FileRow::default()
        }
    }

    fn report() -> Report {
        let other = FileRow { path: OTHER.into(), kind: "other".into(), live: 5 << 20, ..FileRow::default() };
        let cgroup = Cgroup {
            path: "/pod\n".into(),
            state: "dead".into(),
            kinds: [("shmem".to_owned(), KindRow { live: Some(70 << 20), ..KindRow::default() })].into(),
            files: vec![file("/dev/shm/a\x1b[2J", "shmem", 60 << 20), file("/b", "file", 3 << 20), other],
            ..Cgroup::default()
        };
        Report { cgroups: vec![cgroup], ..Report::default() }
    }

    #[test]
    fn the_table_names_files_owners_and_writers_and_hides_nothing() {
        let all = table(&report(), &Selection::default());
        assert!(all.contains("60.0 MiB  shmem  deleted  /dev/shm/a\\x1b[2J\n"), "{all}");
        assert!(all.contains("charged to /pod\\x0a (dead), written by app[7] 60.0 MiB, through main > write\n"), "{all}");
        assert!(all.contains("5.0 MiB  other files\n"), "{all}");
        // What --top leaves out is summed with the rest.
        let top = table(&report(), &Selection { top: Some(1), ..Selection::default() });
        assert!(top.contains("8.0 MiB  other files\n") && !top.contains("/b"), "{top}");
        assert!(table(&Report::default(), &Selection::default()).contains("no files match"));
    }

    #[test]
    fn a_file_with_most_of_its_kind_is_dominant() {
        let report = report();
        assert_eq!(dominant(&report.cgroups[0], "shmem").unwrap().live, 60 << 20);
        assert_eq!(dominant(&report.cgroups[0], "file"), None);
        let line = summary_line(&report.cgroups[0].files[0], 60);
        assert_eq!(line, "60.0 MiB of shmem in /dev/shm/a\\x1b[2J, deleted, by app[7]");
        assert!(text::width(&summary_line(&report.cgroups[0].files[0], 50)) <= 50);
    }

    #[test]
    fn files_of_which_none_is_large_are_told_as_a_group() {
        let mut report = report();
        let files: Vec<FileRow> = (0..3).map(|n| file(&format!("/dev/shm/psm_{n}a4f"), "shmem", 20 << 20)).collect();
        report.cgroups[0].files = files;
        assert!(dominant(&report.cgroups[0], "shmem").is_none());
        let found = group(&report.cgroups[0], "shmem").unwrap();
        assert_eq!((found.pattern.as_str(), found.files.len()), ("/dev/shm/psm_*", 3));
        assert_eq!(group_line(&found, 76), "60.0 MiB of shmem in 3 files /dev/shm/psm_*, by app[7] 60.0 MiB");
        report.cgroups[0].files.truncate(1);
        assert!(group(&report.cgroups[0], "shmem").is_none(), "one file is none");
    }

    #[test]
    fn readings_of_one_process_are_one() {
        let toucher =
            |pid, bytes, how: &str| FileToucher { pid: Some(pid), comm: "a".into(), bytes, how: Some(how.into()), frames: vec![] };
        assert_eq!(
            figures::touchers(&[toucher(1, 4096, "read"), toucher(1, 8192, "map"), toucher(2, 16384, "read")]),
            "a[2] 16.0 KiB, a[1] 12.0 KiB"
        );
    }
}
