//! Verdicts: each fires on a real workload, and not on one that looks like it.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::{Folder, Tmpfs, Writeback};
use harness::report;
use harness::workload::Workload;
use serde_json::Value;

const POD: &str = "6b21aa00-7c0f-4c5e-9a39-2f6a4d0e8b11";

/// Of what is left behind, written or read.
fn bytes() -> u64 {
    size(64 << 20).unwrap()
}

fn exact(cgroup: &str) -> Memtrail {
    Memtrail::start(&record_args(cgroup, Mode::Exact)).unwrap()
}

fn verdicts<'a>(outcome: &'a Outcome, cgroup: &str) -> Vec<&'a Value> {
    let row = report::cgroup(&outcome.report, cgroup).unwrap().unwrap_or_else(|| panic!("the report has no {cgroup}"));
    row["verdicts"].as_array().unwrap().iter().collect()
}

fn verdict<'a>(outcome: &'a Outcome, cgroup: &str, id: &str) -> &'a Value {
    let all = verdicts(outcome, cgroup);
    all.iter().find(|verdict| verdict["id"] == id).unwrap_or_else(|| panic!("{cgroup} has no {id} among {all:?}"))
}

fn ids(outcome: &Outcome) -> Vec<String> {
    let cgroups = outcome.report["cgroups"].as_array().unwrap();
    cgroups.iter().flat_map(|cgroup| cgroup["verdicts"].as_array().unwrap()).map(|verdict| verdict["id"].to_string()).collect()
}

/// A pod as the kubelet lays it out: the first container leaves a file in the emptyDir and is gone, the second runs beside it.
#[test]
#[ignore = "root"]
fn native_verdict_dead_container_shmem() {
    let volume = format!("pods/{POD}/volumes/kubernetes.io~empty-dir/cache");
    let tmpfs = Tmpfs::below("verdict-dead", &volume).unwrap();
    let above = TestCgroup::new("verdict-dead").unwrap();
    let (kubepods, burstable) = (above.child("kubepods").unwrap(), above.child("kubepods/burstable").unwrap());
    let pod = burstable.child(&format!("pod{POD}")).unwrap();
    let mut first = pod.child(&"a1".repeat(32)).unwrap();
    let second = pod.child(&"b2".repeat(32)).unwrap();
    let bytes = bytes();
    pod.limit(4 * bytes).unwrap();
    let (dir, text) = (tmpfs.path().to_str().unwrap().to_owned(), bytes.to_string());
    let memtrail = exact(above.path());
    let mut writer = Workload::start(&first, &["tmpfs", "--keep", "--dir", &dir, "--bytes", &text]).unwrap();
    let pid = writer.run_to("ready").unwrap()[0].pid;
    writer.finish().unwrap();
    let dead = first.path().to_owned();
    first.remove().unwrap();
    let mut beside = Workload::start(&second, &["anon", "--bytes", &text]).unwrap();
    beside.run_to("touched").unwrap();
    // The kernel's own figures are batched.
    second.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();

    let left = bytes / 2;
    let found = verdict(&outcome, &dead, "dead-container-shmem");
    assert_eq!((found["evidence"]["shmem_bytes"].as_u64(), found["evidence"]["limit_cgroup"].as_str()), (Some(left), Some(pod.path())));
    let text = found["text"].as_str().unwrap();
    for part in [
        "dead container a1a1a1a1a1a1 (exited ".to_owned(),
        format!("{volume}/memtrail-workload-"),
        format!("(emptyDir cache of pod {POD}) and {} more files", (left >> 20) - 1),
        format!("written by memtrail-worklo[{pid}]"),
        "delete the file or the pod; set a sizeLimit".to_owned(),
    ] {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }
    // The pod's subtree has the dead container's bytes and the living one's, and together they are its usage.
    let row = report::cgroup(&outcome.report, pod.path()).unwrap().unwrap();
    for (kind, expected) in [("anon", bytes), ("shmem", left)] {
        let live = row["subtree"][kind]["live"].as_u64().unwrap();
        assert!(live.abs_diff(expected) <= 1 << 20, "{kind} of the pod: {live}, expected {expected}");
    }
    assert!(row["uncovered_bytes"].as_i64().unwrap().abs() <= 2 << 20, "not all of the pod's usage is known: {row}");
    assert_eq!(ids(&outcome), ["\"dead-container-shmem\""], "the living have no verdict");

    // Deleted, it is no verdict any more; nor was it ever one of a container that lives.
    let mut living = Workload::start(&second, &["memfd", "--bytes", &left.to_string()]).unwrap();
    living.run_to("ready").unwrap();
    let memtrail = exact(above.path());
    for entry in std::fs::read_dir(tmpfs.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    living.run_to("touched").unwrap();
    let outcome = memtrail.stop().unwrap();
    assert_eq!(ids(&outcome), Vec::<String>::new());
    drop((living, beside, second, pod, burstable, kubepods));
}

/// The container was gone before memtrail came, which looks at its pod only: what it left is named all the same, but not who wrote it.
#[test]
#[ignore = "root"]
fn native_verdict_of_a_death_before_the_start() {
    let tmpfs = Tmpfs::new("verdict-before").unwrap();
    let pod = TestCgroup::new("verdict-before").unwrap();
    let mut container = pod.child(&"c3".repeat(32)).unwrap();
    let dead = container.path().to_owned();
    let (dir, bytes) = (tmpfs.path().to_str().unwrap().to_owned(), bytes());
    let left = bytes / 2;
    // Where the sizes are small, what is left is much of a limit only.
    pod.limit(4 * bytes).unwrap();
    Workload::start(&container, &["tmpfs", "--keep", "--dir", &dir, "--bytes", &bytes.to_string()]).unwrap().finish().unwrap();
    container.remove().unwrap();
    let outcome = exact(pod.path()).stop().unwrap();
    if report::cgroup(&outcome.report, &dead).unwrap().is_none() {
        // Kernels from 7.1 on give what the dead owned to their parent, so there is nobody to name: the file is the pod's.
        let files = report::files(&outcome.report, pod.path()).unwrap();
        let found = files.iter().filter(|file| file.path.starts_with(&dir)).map(|file| file.baseline).sum::<u64>();
        assert_eq!(found, left, "{files:?}");
        return;
    }
    let text = verdict(&outcome, &dead, "dead-container-shmem")["text"].as_str().unwrap();
    assert!(text.starts_with(&format!("{dead} (dead) still holds {}.0 MiB of shmem", left >> 20)), "{text}");
    assert!(text.contains(&format!("{dir}/memtrail-workload-")) && text.contains("by whom is not known"), "{text}");
    let files = report::files(&outcome.report, &dead).unwrap();
    // It may have been the first to touch a page of some library too.
    let own = files.iter().filter(|file| file.path.starts_with(&dir));
    assert_eq!(own.map(|file| (file.live, file.baseline)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (0, left));
}

/// A log that is appended and followed fills the working set; a cold file that is read fills it too, and is no log.
#[test]
#[ignore = "root"]
fn native_verdict_log_page_cache() {
    // More than is worth a word by itself, also where a CPU has some of it on its way to the list of the active.
    let (folder, bytes) = (Folder::new("verdict-log").unwrap(), bytes().max(24 << 20));
    let (log, cold) = (folder.path().join("app.log"), folder.cold_file("data", bytes).unwrap());
    let (log, cold) = (log.to_str().unwrap(), cold.to_str().unwrap());
    let parent = TestCgroup::new("verdict-log").unwrap();
    let (app, database) = (parent.child("app").unwrap(), parent.child("database").unwrap());
    app.limit(bytes + bytes / 4).unwrap();
    let memtrail = exact(parent.path());
    let mut writer = Workload::start(&app, &["append-log", "--file", log, "--bytes", &bytes.to_string()]).unwrap();
    let pid = writer.run_to("appended").unwrap()[0].pid;
    // The second reading makes it active, and so it does with the data.
    for (cgroup, file) in [(&app, log), (&app, log), (&database, cold), (&database, cold)] {
        Workload::start(cgroup, &["file-two-readers", "--file", file]).unwrap().finish().unwrap();
    }
    // The kernel's own figures are batched.
    app.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();

    let found = verdict(&outcome, app.path(), "log-page-cache");
    let text = found["text"].as_str().unwrap();
    assert!(text.contains(&format!("mostly of {log}, appended to by memtrail-worklo[{pid}]")), "{text}");
    // Kernels with generations of pages (CONFIG_LRU_GEN) make nothing active until they look for what to reclaim.
    let is_active = |cgroup: &TestCgroup| {
        let row = report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
        let figure = |name: &str| row[name].as_u64().unwrap();
        println!("{}: active {} of a working set of {}", cgroup.path(), figure("active_file_bytes"), figure("working_set_bytes"));
        figure("active_file_bytes") > figure("working_set_bytes") / 2
    };
    assert_eq!(text.contains("active page cache"), is_active(&app), "{text}");
    let severity = if is_active(&app) { "warning" } else { "info" };
    assert_eq!(found["severity"], severity, "what can be dropped is four fifths of the limit: {found}");
    assert_eq!(is_active(&app), is_active(&database), "both were read twice");
    assert!(verdicts(&outcome, database.path()).is_empty());
}

/// A file that is written faster than the disk takes it, in a cgroup with little more room than that; and beside it one whose writer goes past
/// the page cache, and one whose pages are on disk.
#[test]
#[ignore = "root"]
fn native_verdict_dirty_writeback() {
    let (folder, bytes) = (Folder::new("verdict-dirty").unwrap(), bytes());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (image, direct, clean) = (path("disk.img"), path("direct.img"), folder.cold_file("clean", bytes).unwrap());
    let parent = TestCgroup::new("verdict-dirty").unwrap();
    let cgroups = ["importer", "direct", "reader"].map(|name| parent.child(name).unwrap());
    cgroups.iter().for_each(|cgroup| cgroup.limit(bytes + bytes / 4).unwrap());
    let [importer, past, reader] = &cgroups;
    // By default v2 holds a writer up at a fifth of its limit, which is less than what this is about.
    let _ratios = (importer.version() == Version::V2).then(|| Writeback::from_shares(80, 90).unwrap());
    let memtrail = exact(parent.path());
    let mut writer = Workload::start(importer, &["rewrite", "--file", &image, "--bytes", &bytes.to_string()]).unwrap();
    writer.run_to("rewriting").unwrap();
    let mut other = Workload::start(past, &["direct-write", "--file", &direct, "--bytes", &bytes.to_string()]).unwrap();
    other.run_to("written").unwrap();
    let mut third = Workload::start(reader, &["file-two-readers", "--file", clean.to_str().unwrap()]).unwrap();
    third.run_to("read").unwrap();
    // Readings are a second apart.
    std::thread::sleep(std::time::Duration::from_secs(7));
    let outcome = memtrail.stop().unwrap();

    let found = verdict(&outcome, importer.path(), "dirty-writeback");
    let text = found["text"].as_str().unwrap();
    // By the one that writes over and over; who wrote it first is another.
    assert!(text.contains(&format!("in {image}, dirtied by memtrail-worklo[")), "{text}");
    assert!(text.contains(" The kernel "), "who is held up, or that nobody is: {text}");
    assert_eq!(outcome.report["oom"].as_array().map(Vec::len), Some(0), "before anything is killed");
    assert!(text.contains(" through ") && text.contains("main > ") && text.contains("(dirtied at "), "{text}");
    // The file's estimate is all of its cgroup's, and the sweep was at another moment than the reading.
    let row = report::cgroup(&outcome.report, importer.path()).unwrap().unwrap();
    let figure = |row: &Value, names: [&str; 2]| names.iter().map(|name| row[name].as_u64().unwrap()).sum::<u64>();
    let file = row["files"].as_array().unwrap().iter().find(|file| file["path"] == *image).unwrap();
    let (of_file, of_cgroup) = (figure(file, ["dirty", "writeback"]), figure(row, ["dirty_bytes", "writeback_bytes"]));
    println!("not on disk: {of_file} of the file, {of_cgroup} of the cgroup");
    assert!((bytes / 4..=2 * bytes).contains(&of_file), "{of_file} of the file, {of_cgroup} of the cgroup");
    let dirtied = file["dirtied"].as_u64().unwrap();
    println!("dirtied {dirtied}, {} a second, cleaned {} a second", row["dirtied_bytes_per_s"], row["cleaned_bytes_per_s"]);
    assert!(dirtied >= bytes, "all of it: {file}");
    for cgroup in [past, reader] {
        let row = report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap();
        let dirtied: u64 = row["files"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|file| file["inode"].is_string())
            .map(|file| file["dirtied"].as_u64().unwrap_or(0))
            .sum();
        assert!(dirtied < 4 << 20, "neither makes pages of its file dirty: {row}");
        assert!(verdicts(&outcome, cgroup.path()).is_empty(), "{:?}", verdicts(&outcome, cgroup.path()));
    }
}
