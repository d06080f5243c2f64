//! Who makes page cache dirty, and what of it can be dropped.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::{self, Folder, SlowDisk, Writeback};
use harness::report;
use harness::workload::Workload;
use serde_json::Value;

const BYTES: u64 = 64 << 20;

fn row<'a>(outcome: &'a Outcome, cgroup: &str) -> &'a Value {
    report::cgroup(&outcome.report, cgroup).unwrap().unwrap_or_else(|| panic!("the report has no {cgroup}"))
}

/// The file's row, with its figures of dirtying.
fn file<'a>(outcome: &'a Outcome, cgroup: &str, path: &str) -> &'a Value {
    let files = row(outcome, cgroup)["files"].as_array().unwrap();
    files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{cgroup} has no {path} among {files:#?}"))
}

/// The file is written in one cgroup, and then again, while its pages are there, by a process of another: who made it resident and who made
/// it dirty are two. Exact and sampled.
#[test]
#[ignore = "root"]
fn native_dirty_file_names_who_made_it_dirty() {
    for mode in [Mode::Exact, Mode::Default] {
        let folder = Folder::new("dirty-who").unwrap();
        let log = folder.path().join("app.log");
        let log = log.to_str().unwrap();
        let parent = TestCgroup::new("dirty-who").unwrap();
        let (app, other) = (parent.child("app").unwrap(), parent.child("other").unwrap());
        let bytes = BYTES.to_string();
        let memtrail = Memtrail::start(&record_args(parent.path(), mode)).unwrap();
        let mut first = Workload::start(&app, &["append-log", "--file", log, "--bytes", &bytes]).unwrap();
        first.run_to("appended").unwrap();
        std::fs::File::open(log).unwrap().sync_all().unwrap();
        let mut second = Workload::start(&other, &["write-once", "--file", log, "--bytes", &bytes]).unwrap();
        let pid = second.run_to("written").unwrap()[0].pid;
        let before = app.unwritten().unwrap();
        let outcome = memtrail.stop().unwrap();
        let after = app.unwritten().unwrap();

        // The disk goes on meanwhile, and the kernel's figures are batched.
        let (slack, of_cgroup) = (2 << 20, row(&outcome, app.path()));
        let unwritten = ["dirty_bytes", "writeback_bytes"].map(|figure| of_cgroup[figure].as_u64().unwrap()).iter().sum::<u64>();
        println!("not on disk: {unwritten}, {before} before and {after} after");
        assert!(
            (before.min(after).saturating_sub(slack)..=before.max(after) + slack).contains(&unwritten),
            "{before}, {unwritten}, {after}"
        );
        let found = file(&outcome, app.path(), log);
        let (dirtied, stderr) = (found["dirtied"].as_u64().unwrap(), found["dirtied_stderr"].as_u64().unwrap());
        println!("{mode:?}: dirtied {dirtied} ± {stderr} of {}", 2 * BYTES);
        // What the disk takes while lines are appended to the same page is dirty again with the next line.
        let least = (2 * BYTES).saturating_sub(3 * stderr + (1 << 20));
        assert!((least..=3 * BYTES + 3 * stderr).contains(&dirtied), "{dirtied} ± {stderr}, written {}", 2 * BYTES);
        let by = |pid: i64| {
            let dirtiers = found["dirtiers"].as_array().unwrap();
            dirtiers.iter().find(|by| by["pid"] == pid).unwrap_or_else(|| panic!("no {pid} among {dirtiers:#?}"))
        };
        let rewriter = by(i64::from(pid));
        let bytes = rewriter["bytes"].as_u64().unwrap();
        assert!(bytes.abs_diff(BYTES) <= 3 * stderr + (4 << 20), "{bytes} by the second, which wrote {BYTES}");
        assert!(rewriter["frames"].as_array().unwrap().iter().any(|frame| frame == "wl_write_once"), "{rewriter}");
        assert!(by(i64::from(first.pid()))["frames"].as_array().unwrap().iter().any(|frame| frame == "wl_append_lines"));
        // Its pages were there: it made none resident.
        let writers = found["writers"].as_array().unwrap();
        assert!(writers.iter().all(|writer| writer["pid"] != i64::from(pid)), "{writers:#?}");
        let of_cgroup = row(&outcome, app.path());
        assert!(of_cgroup["dirtied_bytes"].as_u64().unwrap() >= dirtied, "{of_cgroup}");
        assert_eq!(report::losses(&outcome.report).unwrap().get("dirty_table_full"), None);
    }
}

/// A table for few entries: no file and no process is named for the rest, but its bytes are there.
#[test]
#[ignore = "root"]
fn native_dirty_table_that_is_full_loses_names_and_no_bytes() {
    let folder = Folder::new("dirty-full").unwrap();
    let cgroup = TestCgroup::new("dirty-full").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["--table".to_owned(), "DIRTIED=64".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    let dir = folder.path().to_str().unwrap();
    Workload::start(&cgroup, &["many-files", "--processes", "300", "--dir", dir]).unwrap().run_to("written").unwrap();
    let outcome = memtrail.stop().unwrap();
    // Others, such as cgroups that are gone, may have found no room at all, which is counted.
    let row = row(&outcome, cgroup.path());
    let dirtied = row["dirtied_bytes"].as_u64().unwrap();
    // The files, and some of the folder that they are in.
    assert!((300 * 4096..400 * 4096).contains(&dirtied), "{dirtied}");
    let files = row["files"].as_array().unwrap();
    let (named, other): (Vec<&Value>, Vec<&Value>) = files.iter().partition(|file| file["inode"].is_string());
    let sum = |files: &[&Value]| files.iter().map(|file| file["dirtied"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&named) + sum(&other), dirtied);
    assert!(named.iter().filter(|file| file["dirtied"] != 0).count() < 64, "{named:?}");
}

/// A log is appended in a cgroup with a limit while another process there reads a file: the bytes of each are those that the kernel says are
/// resident, writer and reader are told apart, what is dirty is what `memory.stat` says, and what can be dropped is what the kernel really
/// drops when it is told to.
#[test]
#[ignore = "root"]
fn native_dirty_log_and_reader_and_what_the_kernel_drops() {
    let (appended, read) = (size(200 << 20).unwrap(), size(200 << 20).unwrap() / 2);
    let folder = Folder::new("droppable").unwrap();
    let (log, cold) = (folder.path().join("app.log"), folder.cold_file("data", read).unwrap());
    let cgroup = TestCgroup::new("droppable").unwrap();
    cgroup.limit(appended + read).unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let mut writer = Workload::start(&cgroup, &["append-log", "--file", log.to_str().unwrap(), "--bytes", &appended.to_string()]).unwrap();
    let mut reader = Workload::start(&cgroup, &["file-two-readers", "--file", cold.to_str().unwrap()]).unwrap();
    std::thread::scope(|both| {
        both.spawn(|| reader.run_to("read").unwrap());
        writer.run_to("appended").unwrap();
    });
    std::fs::File::open(&log).unwrap().sync_all().unwrap();
    cgroup.settled_kinds().unwrap();
    let resident = || [&log, &cold].map(|path| place::resident(path).unwrap());
    // The host may reclaim meanwhile (DAMON does): the report is of a moment between the two.
    let (before, resident_before) = (cgroup.kinds().unwrap(), resident());
    let outcome = memtrail.stop().unwrap();
    let (now, resident_now) = (cgroup.kinds().unwrap(), resident());
    let between = |figure: u64, first: u64, last: u64, slack: u64| (last.saturating_sub(slack)..=first + slack).contains(&figure);
    cgroup.reclaim().unwrap();
    let after = cgroup.settled_kinds().unwrap();

    for (n, path, pid, sort) in [(0, &log, writer.pid(), "writers"), (1, &cold, reader.pid(), "readers")] {
        let found = file(&outcome, cgroup.path(), path.to_str().unwrap());
        let (live, first, last) = (found["live"].as_u64().unwrap(), resident_before[n], resident_now[n]);
        println!("{}: live {live}, resident {first} before and {last} after", path.display());
        assert!(between(live, first, last, (first / 100).max(1 << 20)), "{found}");
        let touchers = found[sort].as_array().unwrap();
        assert!(!touchers.is_empty() && touchers.iter().all(|toucher| toucher["pid"] == pid), "{pid}: {found}");
        let others = if sort == "writers" { "readers" } else { "writers" };
        assert_eq!(found[others].as_array().map(Vec::len), Some(0), "{found}");
    }
    let live = report::kind(&outcome.report, cgroup.path(), "file").unwrap().unwrap().live.unwrap();
    let [first, last, left] = [before, now, after].map(|kinds| u64::try_from(kinds.file).unwrap());
    assert!(between(live, first, last, (first / 100).max(1 << 20)), "{live} live, {first} and {last} in memory.stat");
    let droppable = row(&outcome, cgroup.path())["droppable_bytes"].as_u64().unwrap();
    println!("droppable {droppable}; page cache {first} before, {last} at the end, {left} after");
    assert!(last - left > appended / 2, "most of the cache is gone");
    assert!(between(droppable, first - left, last - left, (first - left) / 20), "{droppable} of {first} and {last}, {left} left");
}

/// A writer that the kernel makes wait because too much is dirty is named, with the time and the number of its waits; one that goes past the
/// page cache is not. On v2 the cgroup's own limit is enough for it; v1 looks at the disk and the host only. An emulated machine writes to its
/// disk as fast as a program of its own can make pages dirty, but for the least that the host's ratios allow.
#[test]
#[ignore = "root"]
fn native_dirty_writers_that_are_held_up() {
    let bytes = 8 << 20;
    let folder = Folder::new("held").unwrap();
    let parent = TestCgroup::new("held").unwrap();
    let (app, past) = (parent.child("app").unwrap(), parent.child("past").unwrap());
    let (mut slow, mut ratios) = (None, None);
    if parent.version() == Version::V2 {
        app.limit(2 * bytes).unwrap();
    }
    match (parent.version(), place::own_machine()) {
        (_, true) => ratios = Some(Writeback::from_shares(0, 1).unwrap()),
        (Version::V1, false) => slow = Some(SlowDisk::new("held-disk").unwrap()),
        (Version::V2, false) => {}
    }
    let at = |folder: &std::path::Path, name: &str| folder.join(name).to_str().unwrap().to_owned();
    let image = at(slow.as_ref().map_or(folder.path(), SlowDisk::path), "image");
    let memtrail = Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap();
    let began = std::time::Instant::now();
    let mut writer = Workload::start(&app, &["rewrite", "--file", &image, "--bytes", &bytes.to_string()]).unwrap();
    writer.run_to("rewriting").unwrap();
    let mut direct = Workload::start(&past, &["direct-write", "--file", &at(folder.path(), "direct"), "--bytes", "4M"]).unwrap();
    direct.run_to("written").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let writers = app.pids().unwrap();
    let outcome = memtrail.stop().unwrap();
    let elapsed = began.elapsed().as_nanos() as u64;
    // Before its file system goes.
    drop((writer, ratios));

    let held = row(&outcome, app.path());
    let ns = held["dirty_held_ns"].as_u64().unwrap();
    println!("held up for {ns} ns of {elapsed}: {}", held["dirty_held"]);
    assert!(ns > 0 && ns <= elapsed * writers.len() as u64, "{ns} ns of {elapsed}, each of {writers:?}");
    let rows = held["dirty_held"].as_array().unwrap();
    for row in rows {
        assert!(row["comm"] == "memtrail-worklo" && writers.iter().any(|pid| row["pid"] == *pid), "{row} is none of {writers:?}");
    }
    let sum = |figure: &str| rows.iter().map(|row| row[figure].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("ns"), ns);
    // Read a moment later.
    let waits = held["histograms"]["dirty_throttle_ns"]["count"].as_u64().unwrap();
    assert!((sum("times")..=2 * sum("times") + 8).contains(&waits), "{waits} waits: {held}");
    let past = row(&outcome, past.path());
    assert_eq!((past["dirty_held_ns"].as_u64(), past["dirty_held"].as_array().map(Vec::len)), (Some(0), Some(0)), "{past}");
    drop(slow);
}
