//! Who makes page cache dirty, and what of it can be dropped.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::Folder;
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
        let outcome = memtrail.stop().unwrap();

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

/// What can be dropped of a log and of a file that is read is what the kernel really drops when it is told to.
#[test]
#[ignore = "root"]
fn native_dirty_droppable_is_what_the_kernel_drops() {
    let folder = Folder::new("droppable").unwrap();
    let (log, cold) = (folder.path().join("app.log"), folder.cold_file("data", BYTES / 2).unwrap());
    let (log, cold) = (log.to_str().unwrap(), cold.to_str().unwrap());
    let cgroup = TestCgroup::new("droppable").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let mut writer = Workload::start(&cgroup, &["append-log", "--file", log, "--bytes", &BYTES.to_string()]).unwrap();
    writer.run_to("appended").unwrap();
    std::fs::File::open(log).unwrap().sync_all().unwrap();
    let mut reader = Workload::start(&cgroup, &["file-two-readers", "--file", cold]).unwrap();
    reader.run_to("read").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();
    let now = cgroup.kinds().unwrap();
    cgroup.reclaim().unwrap();
    let after = cgroup.settled_kinds().unwrap();
    let dropped = u64::try_from(now.file - after.file).unwrap();
    let droppable = row(&outcome, cgroup.path())["droppable_bytes"].as_u64().unwrap();
    println!("droppable {droppable}, dropped {dropped}; page cache {} before, {} at the end, {} after", before.file, now.file, after.file);
    assert!(dropped > BYTES, "most of the cache is gone");
    assert!(droppable.abs_diff(dropped) <= dropped / 20, "droppable {droppable}, dropped {dropped}");
}
