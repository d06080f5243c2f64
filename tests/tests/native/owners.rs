//! Who owns memory: the first toucher of a shared file, and a cgroup that is gone.

use harness::accuracy::{USUAL, bound, size};
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::{Folder, OtherHierarchy, Tmpfs};
use harness::report::{self, KindRow};
use harness::workload::Workload;

const BYTES: u64 = 128 << 20;

/// Complains unless a figure is the expected one within the bound, or in default mode within three standard errors.
fn assert_near(what: &str, mode: Mode, outcome: &Outcome, figure: Option<u64>, stderr: Option<u64>, expected: u64) {
    let figure = figure.unwrap_or_else(|| panic!("{what} unknown"));
    let stderr = stderr.unwrap_or_else(|| panic!("standard error of {what} unknown"));
    let mut allowed = bound(&report::tier(&outcome.report).unwrap(), USUAL).unwrap().of(expected);
    if mode == Mode::Default {
        allowed = allowed.max(3 * stderr);
    } else {
        assert_eq!(stderr, 0, "standard error of {what} in exact mode");
    }
    println!("{what} {mode:?}: {figure} of {expected}, standard error {stderr}, allowed {allowed}");
    assert!(figure.abs_diff(expected) <= allowed, "{what}: {figure}, expected {expected} within {allowed}");
}

fn kind(outcome: &Outcome, path: &str, kind: &str) -> KindRow {
    report::kind(&outcome.report, path, kind).unwrap().unwrap_or_else(|| panic!("the report has no {kind} for {path}"))
}

fn two_readers(mode: Mode) {
    let bytes = size(BYTES).unwrap();
    let folder = Folder::new(&format!("two-readers-{mode:?}")).unwrap();
    let file = folder.cold_file("shared", bytes).unwrap();
    let file = file.to_str().unwrap();
    let parent = TestCgroup::new(&format!("two-readers-{mode:?}")).unwrap();
    let (first, second) = (parent.child("first").unwrap(), parent.child("second").unwrap());
    let mut reader = Workload::start(&first, &["file-two-readers", "--pin", "--file", file]).unwrap();
    let mut rereader = Workload::start(&second, &["file-two-readers", "--pin", "--second", "--file", file]).unwrap();
    reader.run_to("ready").unwrap();
    rereader.run_to("ready").unwrap();
    let before = (first.settled_kinds().unwrap(), second.settled_kinds().unwrap());

    let memtrail = Memtrail::start(&record_args(parent.path(), mode)).unwrap();
    reader.run_to("read").unwrap();
    rereader.run_to("read").unwrap();
    let after = (first.settled_kinds().unwrap(), second.settled_kinds().unwrap());
    let outcome = memtrail.stop().unwrap();

    for (cgroup, change) in [(&first, after.0.file - before.0.file), (&second, after.1.file - before.1.file)] {
        let row = kind(&outcome, cgroup.path(), "file");
        let change = u64::try_from(change.max(0)).unwrap();
        assert_near(&format!("live file of {}", cgroup.path()), mode, &outcome, row.live, row.live_stderr, change);
    }
    assert!(after.0.file - before.0.file > after.1.file - before.1.file, "memory.stat itself names the first reader");
}

#[test]
#[ignore = "root"]
fn native_two_readers_exact() {
    two_readers(Mode::Exact);
}

#[test]
#[ignore = "root"]
fn native_two_readers_default() {
    two_readers(Mode::Default);
}

fn dead_cgroup(mode: Mode) {
    let bytes = size(BYTES).unwrap();
    let tmpfs = Tmpfs::new(&format!("dead-{mode:?}")).unwrap();
    let mut cgroup = TestCgroup::new(&format!("dead-{mode:?}")).unwrap();
    let path = cgroup.path().to_owned();
    let args = ["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", &bytes.to_string()];
    let mut workload = Workload::start(&cgroup, &args).unwrap();
    workload.run_to("ready").unwrap();

    let memtrail = Memtrail::start(&record_args(&path, mode)).unwrap();
    workload.finish().unwrap();
    cgroup.remove().unwrap();
    let outcome = memtrail.stop().unwrap();

    let entry = report::cgroup(&outcome.report, &path).unwrap().unwrap_or_else(|| panic!("the report has no {path}"));
    assert_eq!(entry["state"], "dead");
    let row = kind(&outcome, &path, "shmem");
    assert_eq!(row.stat, None, "a dead cgroup has no figures of the kernel's");
    assert_near("live shmem of the dead cgroup", mode, &outcome, row.live, row.live_stderr, bytes / 2);
    assert_near("charged shmem of the dead cgroup", mode, &outcome, row.charged, row.charged_stderr, bytes);
    let share = report::stack_sum(&outcome.report, &path, "shmem", Some(&["wl_write_tmpfs"]), |stack| stack.live).unwrap();
    assert!(share as f64 >= 0.95 * row.live.unwrap() as f64, "wl_write_tmpfs owns {share} of {:?}", row.live);
}

#[test]
#[ignore = "root"]
fn native_dead_cgroup_exact() {
    dead_cgroup(Mode::Exact);
}

#[test]
#[ignore = "root"]
fn native_dead_cgroup_default() {
    dead_cgroup(Mode::Default);
}

/// A cgroup that is made, filled and removed at once is in the report of a pattern that it matches.
#[test]
#[ignore = "root"]
fn native_short_cgroup_is_reported() {
    const SHORT: u64 = 64 << 20;
    let parent = TestCgroup::new("short").unwrap();
    let pattern = format!("{}/*", parent.path());
    let memtrail = Memtrail::start(&record_args(&pattern, Mode::Exact)).unwrap();
    let mut cgroup = parent.child("container").unwrap();
    let path = cgroup.path().to_owned();
    let mut workload = Workload::start(&cgroup, &["anon", "--no-wait", "--bytes", &SHORT.to_string()]).unwrap();
    workload.finish().unwrap();
    cgroup.remove().unwrap();
    let outcome = memtrail.stop().unwrap();
    let charged = report::stack_sum(&outcome.report, &path, "anon", Some(&["wl_touch_anon"]), |stack| stack.charged).unwrap();
    assert_near("charged by the short cgroup", Mode::Exact, &outcome, Some(charged), Some(0), SHORT);
}

/// Each hierarchy counts its cgroups' ids from 1: what is made in another one must not stand for a memory cgroup with the same id, nor fill the
/// table of them.
#[test]
#[ignore = "root"]
fn native_cgroups_of_another_hierarchy_are_no_owners() {
    const ROOM: usize = 1024;
    let other = OtherHierarchy::new("another").unwrap();
    let mut args = record_args("/", Mode::Default);
    args.extend(["--table".to_owned(), format!("OWNERS={ROOM}")]);
    let memtrail = Memtrail::start(&args).unwrap();
    let made: Vec<_> = (0..2 * ROOM).map(|n| other.path().join(n.to_string())).collect();
    made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    made.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    let losses = report::losses(&memtrail.stop().unwrap().report).unwrap();
    println!("losses {losses:?}");
    assert!(!losses.contains_key("owner_table_full") && !losses.contains_key("ring_full"), "{losses:?}");
}
