//! `--pid`: what a process and its later children cause, and nothing else.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args, refusal};
use harness::report;
use harness::workload::Workload;

const BYTES: u64 = 32 << 20;
/// Exit status of a recording that is not complete.
const INCOMPLETE: i32 = 3;

/// A cgroup whose limit bounds the tables.
fn bounded(name: &str) -> TestCgroup {
    let cgroup = TestCgroup::new(name).unwrap();
    cgroup.limit(8 * BYTES).unwrap();
    cgroup
}

fn start(cgroup: &TestCgroup) -> Workload {
    let mut workload = Workload::start(cgroup, &["anon", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    workload
}

fn follow(cgroup: &TestCgroup, pid: u32) -> Vec<String> {
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["--pid".to_owned(), pid.to_string()]);
    args
}

/// All that was charged is this process's and about as much as it touched. What is not known of the others' memory is null.
fn assert_only(outcome: &Outcome, cgroup: &TestCgroup, followed: u32, toucher: u32) {
    assert_eq!(outcome.report["filter"]["pids"], serde_json::json!([followed]));
    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    let charged = row.charged.unwrap();
    println!("{followed}: {row:?}");
    assert!((BYTES..=BYTES + (2 << 20)).contains(&charged), "{charged} charged");
    assert!((row.baseline, row.unattributed, row.missed) == (None, None, None), "{row:?}");
    let pids: Vec<Option<u32>> = report::stacks(&outcome.report, cgroup.path()).unwrap().iter().map(|stack| stack.pid).collect();
    // What is gone and holds nothing is not told by its id any more.
    assert!(!pids.is_empty() && pids.iter().flatten().all(|pid| *pid == toucher), "{pids:?}");
    assert!(report::is_whole(outcome).unwrap(), "{}", outcome.stderr);
}

#[test]
#[ignore = "root"]
fn native_follow_leaves_others_in_the_cgroup_out() {
    let cgroup = bounded("follow");
    let (mut followed, mut other) = (start(&cgroup), start(&cgroup));
    let memtrail = Memtrail::start(&follow(&cgroup, followed.pid())).unwrap();
    other.run_to("touched").unwrap();
    followed.run_to("touched").unwrap();
    let outcome = memtrail.stop().unwrap();
    assert_only(&outcome, &cgroup, followed.pid(), followed.pid());
    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    assert!(row.live.unwrap() >= BYTES && row.stat.unwrap() >= 2 * BYTES, "the kernel's figure is of both: {row:?}");
}

/// The test follows itself: what it has started before is not followed, what it starts now is.
#[test]
#[ignore = "root"]
fn native_follow_takes_later_children_only() {
    let cgroup = bounded("follow-children");
    let mut earlier = start(&cgroup);
    let own = std::process::id();
    let memtrail = Memtrail::start(&follow(&cgroup, own)).unwrap();
    earlier.run_to("touched").unwrap();
    let mut later = start(&cgroup);
    later.run_to("touched").unwrap();
    let outcome = memtrail.stop().unwrap();
    assert_only(&outcome, &cgroup, own, later.pid());
}

/// What it charged is still told when it is gone.
#[test]
#[ignore = "root"]
fn native_follow_a_process_that_ends() {
    let cgroup = bounded("follow-end");
    let mut followed = start(&cgroup);
    let pid = followed.pid();
    let memtrail = Memtrail::start(&follow(&cgroup, pid)).unwrap();
    followed.finish().unwrap();
    let outcome = memtrail.stop().unwrap();
    assert_only(&outcome, &cgroup, pid, pid);
}

/// A child for which there is no room is counted, and its memory is not recorded.
#[test]
#[ignore = "root"]
fn native_follow_with_a_full_table() {
    let cgroup = bounded("follow-full");
    let mut args = follow(&cgroup, std::process::id());
    args.extend(["--table".to_owned(), "FOLLOWED=1".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    let mut child = start(&cgroup);
    child.run_to("touched").unwrap();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    assert!(losses["followed_table_full"] >= 1, "{losses:?}");
    assert_eq!(outcome.status.code(), Some(INCOMPLETE));
    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap();
    assert!(row.and_then(|row| row.charged).unwrap_or(0) < BYTES, "{row:?}");
}

#[test]
#[ignore = "root"]
fn native_follow_refuses_who_is_not_there() {
    // Above the largest that a kernel can be set to.
    let said = refusal(&["--pid", "4194305", "--duration", "1s"]).unwrap();
    assert!(said.contains("no process 4194305") && said.lines().count() == 1, "{said}");
}
