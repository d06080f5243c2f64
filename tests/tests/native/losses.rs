//! Losses: a table that is far too small while the collector does not run for five seconds. The run survives, the counter of that table
//! says what was lost, the exit status says that something was.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::Workload;
use std::collections::BTreeMap;
use std::time::Duration;

const BYTES: u64 = 64 << 20;
const PAGE: u64 = 4096;
const STOPPED: Duration = Duration::from_secs(5);
/// Exit status of a recording that is not complete.
const INCOMPLETE: i32 = 3;

struct Seen {
    outcome: Outcome,
    path: String,
    /// Change of the cgroup's own anonymous memory.
    change: u64,
    losses: BTreeMap<String, u64>,
}

impl Seen {
    fn lost(&self, cause: &str) -> u64 {
        self.losses.get(cause).copied().unwrap_or(0)
    }

    fn anon(&self) -> report::KindRow {
        report::kind(&self.outcome.report, &self.path, "anon").unwrap().unwrap()
    }

    /// Only the table in question lost anything, the forced size is shown, and the exit status is right.
    fn assert_only(&self, table: &str, entries: u64, cause: &str) {
        println!("{table}={entries}: losses {:?}, change of anon {}, row {:?}", self.losses, self.change, self.anon());
        assert_eq!(self.outcome.status.code(), Some(INCOMPLETE), "{}", self.outcome.stderr);
        assert!(self.lost(cause) > 0, "nothing lost: {:?}", self.losses);
        // A stack walk that is preempted by another one fails, on preemptible kernels.
        let besides = [cause, "stack_walk_failed"];
        let others: Vec<_> = self.losses.keys().filter(|name| !besides.contains(&name.as_str())).collect();
        assert!(others.is_empty(), "lost elsewhere too: {:?}", self.losses);
        let shown = &self.outcome.report["cost"]["tables"][table];
        assert_eq!((&shown["max_entries"], &shown["forced"]), (&entries.into(), &true.into()));
    }
}

/// The bytes agree within what a process touches besides its workload.
fn assert_adds_up(what: &str, sum: u64, change: u64) {
    let allowed = change / 100 + (1 << 20);
    println!("{what}: {sum} of {change}");
    assert!(sum.abs_diff(change) <= allowed, "{what}: {sum}, expected {change} within {allowed}");
}

/// As [`assert_adds_up`], but the counter may also hold what cgroups lost that were made while the collector did not run, and so are not
/// refused yet.
fn assert_counted(what: &str, sum: u64, change: u64) {
    println!("{what}: {sum} of {change}");
    assert!(sum + change / 100 + (1 << 20) >= change && sum <= change * 5 / 4 + (1 << 20), "{what}: {sum}, expected {change}");
}

/// Touches memory while memtrail is stopped and one table is tiny.
fn stalled(table: &str, entries: u64) -> Seen {
    let cgroup = TestCgroup::new(&format!("tiny-{table}")).unwrap();
    let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap().anon;
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["--table".to_owned(), format!("{table}={entries}")]);
    let memtrail = Memtrail::start(&args).unwrap();
    memtrail.pause().unwrap();
    workload.run_to("touched").unwrap();
    std::thread::sleep(STOPPED);
    let after = cgroup.settled_kinds().unwrap().anon;
    memtrail.resume().unwrap();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    Seen { outcome, path: cgroup.path().to_owned(), change: u64::try_from(after - before).unwrap(), losses }
}

#[test]
#[ignore = "root"]
pub(super) fn native_tiny_samples() {
    let seen = stalled("SAMPLES", 1024);
    seen.assert_only("SAMPLES", 1024, "sample_table_full");
    // What is older than the trace is in the table too, and not in the change.
    let row = seen.anon();
    assert!(row.live.unwrap() + row.baseline.unwrap() <= 1024 * PAGE, "{row:?}");
    assert_counted("live and lost", row.live.unwrap() + seen.lost("sample_table_full") * PAGE, seen.change);
}

#[test]
#[ignore = "root"]
fn native_tiny_keys() {
    let seen = stalled("KEYS", 1);
    seen.assert_only("KEYS", 1, "key_table_full");
    assert_counted("live and lost", seen.anon().live.unwrap() + seen.lost("key_table_full") * PAGE, seen.change);
}

/// The bytes stay whole, only where they came from is lost: both stacks of nearly every page.
#[test]
#[ignore = "root"]
fn native_tiny_stacks() {
    let seen = stalled("STACKS", 1);
    seen.assert_only("STACKS", 1, "stack_table_full");
    assert_adds_up("live", seen.anon().live.unwrap(), seen.change);
    let stacks = 2 * seen.change / PAGE;
    let lost = seen.lost("stack_table_full");
    println!("{lost} of {stacks} stacks");
    assert!(lost >= stacks / 2, "{lost} of {stacks} stacks");
}

/// The bytes stay whole; whose they are is lost.
#[test]
#[ignore = "root"]
fn native_tiny_processes() {
    let cgroup = TestCgroup::new("tiny-PROCESSES").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Exact);
    args.extend(["--table".to_owned(), "PROCESSES=1".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    memtrail.pause().unwrap();
    // The first process takes the only place, unless a thread of the kernel was faster; the second has none.
    let mut workloads = Vec::new();
    for _ in 0..2 {
        let mut workload = Workload::start(&cgroup, &["anon", "--bytes", &(BYTES / 2).to_string()]).unwrap();
        workload.run_to("touched").unwrap();
        workloads.push(workload);
    }
    std::thread::sleep(STOPPED);
    let change = u64::try_from(cgroup.settled_kinds().unwrap().anon).unwrap();
    memtrail.resume().unwrap();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    let seen = Seen { outcome, path: cgroup.path().to_owned(), change, losses };
    seen.assert_only("PROCESSES", 1, "process_table_full");
    assert_adds_up("live", seen.anon().live.unwrap(), change);
    let lost = seen.lost("process_table_full") * PAGE;
    assert!(lost >= BYTES / 2, "{lost} bytes without a process");
}

/// Exact totals exist only where commits and ends have functions of their own to attach to.
#[test]
#[ignore = "root"]
fn native_tiny_owner_totals() {
    let first = TestCgroup::new("tiny-owner-a").unwrap();
    let second = TestCgroup::new("tiny-owner-b").unwrap();
    let mut args = record_args(first.path(), Mode::Default);
    args.extend(["--table".to_owned(), "OWNER_TOTALS=1".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    memtrail.pause().unwrap();
    for cgroup in [&first, &second] {
        let mut workload = Workload::start(cgroup, &["anon", "--bytes", &(BYTES / 4).to_string()]).unwrap();
        workload.run_to("touched").unwrap();
    }
    std::thread::sleep(STOPPED);
    memtrail.resume().unwrap();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    println!("losses {losses:?}");
    if report::tier(&outcome.report).unwrap() == "tracepoint" {
        println!("the tracepoint tier keeps no totals");
        assert_eq!(losses.get("owner_table_full"), None);
        return;
    }
    // One owner has its place; each page of the other is counted when it comes and when it goes.
    assert!(losses["owner_table_full"] >= BYTES / 4 / PAGE, "{losses:?}");
    assert_eq!(outcome.status.code(), Some(INCOMPLETE));
}

/// Cgroups that come and go while nobody reads the ring: what does not fit is counted, and those that stay are found by listing.
#[test]
#[ignore = "root"]
fn native_tiny_event_ring() {
    const CGROUPS: u64 = 100;
    /// A ring of 4 KiB holds so many events of 288 bytes with their header of 8.
    const ROOM: u64 = 13;
    let parent = TestCgroup::new("tiny-EVENTS").unwrap();
    let mut args = record_args(&format!("{}/*", parent.path()), Mode::Default);
    args.extend(["--table".to_owned(), "EVENTS=4096".to_owned()]);
    let memtrail = Memtrail::start(&args).unwrap();
    memtrail.pause().unwrap();
    for number in 0..CGROUPS {
        drop(parent.child(&format!("short-{number}")).unwrap());
    }
    let stays = parent.child("stays").unwrap();
    let mut workload = Workload::start(&stays, &["anon", "--bytes", &BYTES.to_string()]).unwrap();
    workload.run_to("touched").unwrap();
    std::thread::sleep(STOPPED);
    memtrail.resume().unwrap();
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    let events = 2 * CGROUPS + 1;
    println!("{events} events, losses {losses:?}");
    // Others may make cgroups at the same time; the ring holds what it holds.
    assert!(losses["ring_full"] >= events - ROOM, "{losses:?}");
    assert_eq!(outcome.status.code(), Some(INCOMPLETE));
    let found = report::cgroup(&outcome.report, stays.path()).unwrap().expect("the cgroup without an event is in the report");
    assert_eq!(found["state"], "alive");
    assert!(report::stack_sum(&outcome.report, stays.path(), "anon", Some(&["wl_touch_anon"]), |stack| stack.live).unwrap() > 0);
}
