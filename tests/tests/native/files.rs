//! Page cache and shmem by file: the path, who is charged, who touched it, and bytes that add up to the kernel's own.

use harness::accuracy::{USUAL, bound};
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::{Folder, Tmpfs};
use harness::report::{self, FileRow, FileToucher};
use harness::workload::Workload;
use std::path::Path;

const BYTES: u64 = 64 << 20;

fn exact(cgroup: &str) -> Memtrail {
    Memtrail::start(&record_args(cgroup, Mode::Exact)).unwrap()
}

fn args<'a>(workload: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[workload][..], more].concat()
}

fn file(outcome: &Outcome, cgroup: &str, path: &Path) -> FileRow {
    let path = path.to_str().unwrap();
    let files = report::files(&outcome.report, cgroup).unwrap();
    files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{cgroup} has no {path} among {files:#?}")).clone()
}

fn allowed(outcome: &Outcome, bytes: u64) -> u64 {
    bound(&report::tier(&outcome.report).unwrap(), USUAL).unwrap().of(bytes)
}

fn assert_near(what: &str, outcome: &Outcome, figure: u64, expected: u64) {
    let allowed = allowed(outcome, expected);
    println!("{what}: {figure} of {expected}, allowed {allowed}");
    assert!(figure.abs_diff(expected) <= allowed, "{what}: {figure}, expected {expected} within {allowed}");
}

/// The one process that touched it, with all its bytes. What the host reclaimed meanwhile (DAMON does) comes back when the workload pins it.
fn assert_only(touchers: &[FileToucher], pid: i32, how: &str) {
    let pins = |toucher: &&FileToucher| toucher.frames.iter().any(|frame| frame == "mlock");
    let touchers: Vec<&FileToucher> = touchers.iter().filter(|toucher| !pins(toucher)).collect();
    assert!(!touchers.is_empty(), "nobody");
    for toucher in &touchers {
        assert_eq!(toucher.pid.map(i64::from), Some(i64::from(pid)), "{touchers:?}");
        assert_eq!(toucher.comm, "memtrail-worklo", "{touchers:?}");
        assert_eq!(toucher.how.as_deref(), Some(how), "{touchers:?}");
    }
}

/// The rows of a cgroup add up to its ledger.
fn assert_sums(outcome: &Outcome, cgroup: &str) {
    let files = report::files(&outcome.report, cgroup).unwrap();
    let of = |kind| report::kind(&outcome.report, cgroup, kind).unwrap();
    let ledger = |figure: fn(&report::KindRow) -> Option<u64>| ["file", "shmem"].iter().filter_map(|kind| figure(&of(kind)?)).sum::<u64>();
    assert_eq!(files.iter().map(|file| file.live).sum::<u64>(), ledger(|row| row.live), "live bytes of {cgroup}");
    assert_eq!(files.iter().map(|file| file.baseline).sum::<u64>(), ledger(|row| row.baseline), "baseline bytes of {cgroup}");
}

/// A log is appended in one cgroup and read in another: it is the writer's, with all its bytes, and the reader owns nothing of it.
#[test]
#[ignore = "root"]
fn native_files_log_has_path_writer_and_owner() {
    let folder = Folder::new("files-log").unwrap();
    let log = folder.path().join("app\n.log");
    let parent = TestCgroup::new("files-log").unwrap();
    let (app, shipper) = (parent.child("app").unwrap(), parent.child("shipper").unwrap());
    let path = log.to_str().unwrap();
    let bytes = BYTES.to_string();
    let mut writer = Workload::start(&app, &args("append-log", &["--pin", "--file", path, "--bytes", &bytes])).unwrap();
    let pid = writer.run_to("ready").unwrap()[0].pid;
    let mut reader = Workload::start(&shipper, &args("file-two-readers", &["--second", "--file", path])).unwrap();
    reader.run_to("ready").unwrap();
    let before = app.settled_kinds().unwrap();

    let memtrail = exact(parent.path());
    writer.run_to("appended").unwrap();
    reader.run_to("read").unwrap();
    let after = app.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();

    let escaped = folder.path().join("app\\x0a.log");
    let row = file(&outcome, app.path(), &escaped);
    assert_near("live bytes of the log", &outcome, row.live, u64::try_from(after.file - before.file).unwrap());
    assert_eq!((row.kind.as_str(), row.state.as_deref(), row.live_stderr, row.baseline), ("file", Some("present"), 0, 0), "{row:?}");
    assert_only(&row.writers, pid, "write");
    assert!(row.writers[0].frames.iter().any(|frame| frame == "wl_append_lines"), "{row:?}");
    assert!(row.readers.is_empty(), "{row:?}");
    assert_eq!(row.inode, Some(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&log).unwrap()).to_string()));
    let read = report::file(&outcome.report, shipper.path(), escaped.to_str().unwrap()).unwrap();
    assert!(read.is_none_or(|row| row.live < 1 << 20), "the reader owns what was in the cache before it");
    assert_sums(&outcome, app.path());
}

/// Cold files are their first reader's, who is named as that; sampled too, within the error that is printed.
#[test]
#[ignore = "root"]
fn native_files_reader_is_told_from_writer() {
    let folder = Folder::new("files-read").unwrap();
    let cold = folder.cold_file("cold", BYTES).unwrap();
    let cgroup = TestCgroup::new("files-read").unwrap();
    let mut reader = Workload::start(&cgroup, &["file-two-readers", "--pin", "--file", cold.to_str().unwrap()]).unwrap();
    let pid = reader.run_to("ready").unwrap()[0].pid;
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    reader.run_to("read").unwrap();
    let outcome = memtrail.stop().unwrap();
    let row = file(&outcome, cgroup.path(), &cold);
    assert!(row.live.abs_diff(BYTES) <= (3 * row.live_stderr).max(allowed(&outcome, BYTES)), "{row:?}");
    assert_only(&row.readers, pid, "read");
    assert!(row.writers.is_empty(), "{row:?}");
    assert_sums(&outcome, cgroup.path());
}

/// What a container that is gone left in tmpfs is named with its writer, also when the writer's files came from before the start.
#[test]
#[ignore = "root"]
fn native_files_of_a_dead_cgroup() {
    let tmpfs = Tmpfs::new("files-dead").unwrap();
    let mut cgroup = TestCgroup::new("files-dead").unwrap();
    let path = cgroup.path().to_owned();
    let bytes = BYTES.to_string();
    let args = ["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", &bytes];
    let mut workload = Workload::start(&cgroup, &args).unwrap();
    let pid = workload.run_to("ready").unwrap()[0].pid;
    let memtrail = exact(&path);
    workload.finish().unwrap();
    cgroup.remove().unwrap();
    let outcome = memtrail.stop().unwrap();

    assert_eq!(report::cgroup(&outcome.report, &path).unwrap().unwrap()["state"], "dead");
    let files = report::files(&outcome.report, &path).unwrap();
    let left: Vec<&FileRow> = files.iter().filter(|file| file.kind == "shmem").collect();
    // Every second file of 1 MiB was unlinked.
    assert_eq!(left.len() as u64, (BYTES / 2) >> 20, "{files:#?}");
    for row in left {
        assert!(Path::new(&row.path).starts_with(tmpfs.path()), "{row:?}");
        assert_eq!((row.live, row.state.as_deref()), (1 << 20, Some("present")), "{row:?}");
        assert_eq!(row.mount.as_deref(), tmpfs.path().to_str());
        assert_only(&row.writers, pid, "write");
    }
    assert_sums(&outcome, &path);
}

/// What has no directory entry is named by what it is.
#[test]
#[ignore = "root"]
fn native_files_without_a_directory_are_named() {
    for (workload, step, name) in [
        ("memfd", "touched", "memfd:memtrail-workload"),
        ("sysv", "touched", "SYSV00006d74"),
        ("shared-anon", "touched", "/dev/zero [shared anonymous memory]"),
    ] {
        let cgroup = TestCgroup::new(&format!("files-{workload}")).unwrap();
        let mut workload = Workload::start(&cgroup, &args(workload, &["--bytes", "16M"])).unwrap();
        let pid = workload.run_to("ready").unwrap()[0].pid;
        let memtrail = exact(cgroup.path());
        workload.run_to(step).unwrap();
        let outcome = memtrail.stop().unwrap();
        let row = file(&outcome, cgroup.path(), Path::new(name));
        assert_near(name, &outcome, row.live, 16 << 20);
        assert_eq!(row.kind, "shmem");
        assert_only(&row.writers, pid, "map");
    }
}

/// A file that was deleted while it is open keeps its name and is marked; what was resident before the start is told from the rest.
#[test]
#[ignore = "root"]
fn native_files_deleted_and_older_than_the_trace() {
    let folder = Folder::new("files-deleted").unwrap();
    let cgroup = TestCgroup::new("files-deleted").unwrap();
    let dir = folder.path().to_str().unwrap();
    let mut workload = Workload::start(&cgroup, &["file", "--pin", "--bytes", "32M", "--dir", dir]).unwrap();
    let pid = workload.run_to("written").unwrap()[0].pid;
    let memtrail = exact(cgroup.path());
    workload.run_to("truncated").unwrap();
    workload.run_to("read").unwrap();
    let outcome = memtrail.stop().unwrap();
    let older = file(&outcome, cgroup.path(), &folder.path().join(format!("memtrail-workload-file.{pid}")));
    let newer = file(&outcome, cgroup.path(), &folder.path().join(format!("memtrail-workload-other.{pid}")));
    for row in [&older, &newer] {
        assert_eq!(row.state.as_deref(), Some("deleted"), "{row:?}");
    }
    assert_near("before the start", &outcome, older.baseline, 16 << 20);
    assert_near("since the start", &outcome, newer.live, 16 << 20);
    assert_eq!((older.live, newer.baseline), (0, 0));
    assert!(older.writers.is_empty() && older.readers.is_empty(), "who wrote before the start is not known: {older:?}");
    assert_only(&newer.readers, pid, "read");
    assert_sums(&outcome, cgroup.path());
}

/// 300 files of equal size: 200 rows, and one for the rest, which together are all there is. With a table for 64 files, the others
/// lose their names and nothing else, and the largest has its name all the same.
#[test]
#[ignore = "root"]
fn native_files_beyond_the_rows_are_summed() {
    for (table, named) in [(None, 200), (Some("FILES=64"), 64)] {
        let tmpfs = Tmpfs::new("files-many").unwrap();
        let cgroup = TestCgroup::new("files-many").unwrap();
        let dir = tmpfs.path().to_str().unwrap();
        let mut workload = Workload::start(&cgroup, &["many-files", "--processes", "300", "--dir", dir]).unwrap();
        workload.run_to("ready").unwrap();
        let mut args = record_args(cgroup.path(), Mode::Exact);
        args.extend(table.iter().flat_map(|table| ["--table".to_owned(), (*table).to_owned()]));
        let memtrail = Memtrail::start(&args).unwrap();
        workload.run_to("written").unwrap();
        // The last to come, and by far the largest.
        let mut large = Workload::start(&cgroup, &["memfd", "--bytes", "16M"]).unwrap();
        large.run_to("touched").unwrap();
        let outcome = memtrail.stop().unwrap();
        assert!(report::is_whole(&outcome).unwrap(), "no bytes are lost: {}", outcome.stderr);
        let row = file(&outcome, cgroup.path(), Path::new("memfd:memtrail-workload"));
        assert_near("the largest file", &outcome, row.live, 16 << 20);
        let files = report::files(&outcome.report, cgroup.path()).unwrap();
        let (others, rows): (Vec<&FileRow>, Vec<&FileRow>) = files.iter().partition(|file| file.path == "[other]");
        let in_tmpfs = rows.iter().filter(|row| Path::new(&row.path).starts_with(tmpfs.path())).count();
        // The others: the large one, and programs and libraries that were read from the disk for this cgroup first.
        let elsewhere = (rows.len() - in_tmpfs).max(4);
        assert!(in_tmpfs <= named && in_tmpfs + elsewhere >= named && elsewhere < 16, "{in_tmpfs} of {named} named, {elsewhere} others");
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].live, (300 - in_tmpfs as u64) * 4096);
        assert_eq!(report::losses(&outcome.report).unwrap().contains_key("file_table_full"), table.is_some());
        assert_sums(&outcome, cgroup.path());
    }
}

/// A path of 200 levels, one as long as a path can be, and names that are not text: shown as far as they are known, escaped, and valid JSON.
#[test]
#[ignore = "root"]
fn native_files_with_hostile_names() {
    use std::os::unix::ffi::OsStrExt;
    let tmpfs = Tmpfs::new("files-hostile").unwrap();
    let mut deep = tmpfs.path().to_owned();
    for level in 0..200 {
        deep.push(format!("level-{level}"));
    }
    let wild = tmpfs.path().join(std::ffi::OsStr::from_bytes(b"a\xff\x1b[2J\"\\\n"));
    let long = tmpfs.path().join("n".repeat(255));
    // With the name of the file and its terminator, PATH_MAX.
    let mut longest = tmpfs.path().to_owned();
    let room = |path: &Path| 4096 - 1 - "/memtrail-workload-00000".len() - path.as_os_str().len();
    while room(&longest) > 1 {
        longest.push("p".repeat((room(&longest) - 1).min(255)));
    }
    let cgroup = TestCgroup::new("files-hostile").unwrap();
    let memtrail = exact(cgroup.path());
    // As a process in the cgroup would leave them: the names are what is tested.
    for directory in [&deep, &wild, &long, &longest] {
        std::fs::create_dir_all(directory).unwrap();
        let directory = directory.as_os_str();
        let mut command = harness::workload::command().unwrap();
        command.args(["many-files", "--no-wait", "--processes", "1", "--dir"]).arg(directory).stdout(std::process::Stdio::null());
        harness::workload::enter(&mut command, &cgroup).unwrap();
        assert!(command.status().unwrap().success());
    }
    let outcome = memtrail.stop().unwrap();
    let prefix = tmpfs.path().to_str().unwrap();
    let name = "memtrail-workload-00000";
    let paths: Vec<String> = report::files(&outcome.report, cgroup.path()).unwrap().into_iter().map(|file| file.path).collect();
    for expected in [format!("{prefix}/a\\xff\\x1b[2J\"\\\\x0a/{name}"), format!("{prefix}/{}/{name}", "n".repeat(255))] {
        assert!(paths.contains(&expected), "no {expected} among {paths:#?}");
    }
    // Longer than what the kernel half keeps: the end of the path, and that its beginning is missing.
    let cut = paths.iter().find(|path| path.contains("level-199")).unwrap_or_else(|| panic!("no deep file among {paths:#?}"));
    assert!(cut.starts_with(&format!("{prefix}/[...]/level-")) && cut.ends_with(&format!("level-199/{name}")), "{cut}");
    let last = longest.file_name().unwrap().to_str().unwrap();
    let (start, end) = (format!("{prefix}/[...]/ppp"), format!("p/{last}/{name}"));
    assert!(paths.iter().any(|path| path.starts_with(&start) && path.ends_with(&end)), "no {start}...{end} among {paths:#?}");
    assert_sums(&outcome, cgroup.path());
}

/// A million files: tables stay bounded, the tail is summed, and sums are right.
#[test]
#[ignore = "root, and 6 GB of memory"]
fn long_files_a_million_of_them() {
    const FILES: u64 = 1_000_000;
    let tmpfs = Tmpfs::new("files-million").unwrap();
    let cgroup = TestCgroup::new("files-million").unwrap();
    cgroup.limit(8 << 30).unwrap();
    let (dir, count) = (tmpfs.path().to_str().unwrap(), FILES.to_string());
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let mut workload = Workload::start(&cgroup, &["many-files", "--processes", &count, "--dir", dir]).unwrap();
    workload.run_to("written").unwrap();
    let outcome = memtrail.stop().unwrap();
    let row = report::kind(&outcome.report, cgroup.path(), "shmem").unwrap().unwrap();
    let (live, stderr) = (row.live.unwrap(), row.live_stderr.unwrap());
    let files = report::files(&outcome.report, cgroup.path()).unwrap();
    let cost = &outcome.report["cost"];
    println!(
        "{live} ± {stderr} of {}; {} rows, {} files in the table, collector {} MB; losses {:?}",
        FILES * 4096,
        files.len(),
        cost["tables"]["FILES"]["entries"],
        cost["collector_rss_bytes"].as_u64().unwrap() / 1_000_000,
        report::losses(&outcome.report).unwrap()
    );
    assert!(live.abs_diff(FILES * 4096) <= 3 * stderr, "{live} ± {stderr}");
    assert!(files.len() <= 202, "{} rows", files.len());
    assert_sums(&outcome, cgroup.path());
    assert!(cost["collector_rss_bytes"].as_u64().unwrap() < 96_000_000);
    assert!(report::is_whole(&outcome).unwrap(), "{}", outcome.stderr);
}
