//! `report --by thread`: live bytes belong to the threads that touched them.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::workload::Workload;
use std::collections::BTreeMap;
use std::path::Path;

const THREADS: u64 = 3;
const BYTES: u64 = 48 << 20;

/// Folded bytes by the second frame, `comm/tid`.
fn by_thread(recording: &Path) -> BTreeMap<String, u64> {
    let output = harness::memtrail::command().unwrap().args(["report", "--by", "thread", "-o", "-"]).arg(recording).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut threads = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (stack, bytes) = line.rsplit_once(' ').unwrap();
        *threads.entry(stack.split(';').nth(1).unwrap().to_owned()).or_default() += bytes.parse::<u64>().unwrap();
    }
    threads
}

#[test]
#[ignore = "root"]
fn native_live_bytes_belong_to_their_threads() {
    let cgroup = TestCgroup::new("threads").unwrap();
    // Tables for the limit, not for all of memory.
    cgroup.limit(256 << 20).unwrap();
    let args = ["threads-malloc", "--threads", &THREADS.to_string(), "--bytes", &BYTES.to_string()];
    let mut workload = Workload::start(&cgroup, &args).unwrap();
    workload.run_to("ready").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("threads.mtrail");
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["-o".to_owned(), recording.to_str().unwrap().to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    workload.run_to("filled").unwrap();
    let tids: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", workload.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|tid| *tid != workload.pid().to_string())
        .collect();
    assert_eq!(tids.len() as u64, THREADS);
    let report = memtrail.stop().unwrap().report;

    let threads = by_thread(&recording);
    println!("{threads:?}");
    let share = BYTES / THREADS;
    for tid in &tids {
        // The name of a thread is the program's unless it gives itself another.
        let bytes =
            threads.iter().find(|(name, _)| name.starts_with("memtrail") && name.ends_with(&format!("/{tid}"))).map(|(_, bytes)| *bytes);
        let bytes = bytes.unwrap_or_else(|| panic!("no line of thread {tid} in {threads:?}"));
        assert!((share..share + share / 4).contains(&bytes), "thread {tid} touched {share} and what malloc adds; found {bytes}");
    }
    // What has no process beside, the lines of threads are all of the cgroup's live bytes.
    let stacks = harness::report::stacks(&report, cgroup.path()).unwrap();
    let live: u64 = stacks.iter().map(|stack| stack.live).sum();
    let told: u64 = threads.iter().filter(|(name, _)| !name.starts_with('[')).map(|(_, bytes)| bytes).sum();
    assert_eq!(told, live);
}
