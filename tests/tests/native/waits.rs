//! Waits for memory against what the workload measured of itself, on every kernel: where the hook is missing, the metric is missing too, and
//! the plan says so.

use super::histograms::{assert_near, figure, row, tracefs_file};
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::Folder;
use harness::workload::Workload;
use memtrail::report::distribution::Distribution;

const MIB: u64 = 1 << 20;
/// Touches that the workload tells one by one.
const LONGEST: u64 = 5;

/// Whether a probe has a provider; what only it can measure is in the report only then.
fn has(outcome: &Outcome, probe: &str) -> bool {
    let plan = outcome.report["plan"].as_array().unwrap();
    plan.iter().find(|row| row["probe"] == probe).unwrap()["provider"] != "none"
}

fn is_missing(outcome: &Outcome, cgroup: &TestCgroup, metric: &str) -> bool {
    harness::report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap()["histograms"][metric].is_null()
}

/// Nobody of the test waits any more, and the kernel half knows it.
fn assert_nobody_waits(outcome: &Outcome) {
    let tables = &outcome.report["cost"]["tables"];
    println!("waiting at the end: {} {} {}", tables["RECLAIMS"], tables["STALLS"], tables["HIGH_CALLS"]);
    for name in ["RECLAIMS", "STALLS", "HIGH_CALLS"] {
        // Others on the host may.
        assert!(tables[name]["entries"].as_u64().unwrap() <= 2, "{name}: {tables}");
    }
    assert_eq!(outcome.report["losses"]["stall_table_full"], 0);
}

/// Reads at the limit of a cgroup: those wait in which the kernel counts a reclaim.
#[test]
#[ignore = "root"]
fn native_waits_of_charges_are_what_slow_reads_wait() {
    let cgroup = TestCgroup::new("stalls").unwrap();
    cgroup.limit(16 * MIB).unwrap();
    let folder = Folder::new("stalls").unwrap();
    let args = ["slow-reads", "--bytes", "192M", "--dir", folder.path().to_str().unwrap()];
    let id = tracefs_file("events/vmscan/mm_vmscan_memcg_reclaim_begin/id");
    let mut workload = Workload::start_with(&cgroup, &args, &[("MEMTRAIL_RECLAIM_ID", id.trim())]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let steps = workload.run_to("ended").unwrap();
    workload.finish().unwrap();
    let outcome = memtrail.stop().unwrap();
    let step = steps.last().unwrap();
    println!("the workload's slow reads: {:?}", step.figures);
    assert_nobody_waits(&outcome);
    assert!(figure(step, "count") > 100.0, "the limit was to be reached often");
    // Without the hook reclaim alone is known, and called that.
    let metric = if has(&outcome, "charge") { "charge_stall_ns" } else { "memcg_reclaim_ns" };
    assert_eq!(is_missing(&outcome, &cgroup, "charge_stall_ns"), !has(&outcome, "charge"));
    let waits = row(&outcome, &cgroup, metric);
    println!("{metric}: {waits}");
    assert_near("waits", waits["count"].as_f64().unwrap(), figure(step, "count"), 0.05);
    // A stall is a part of its read. The rest of the read may lose the CPU, in an emulated machine often: a closer bound would test the host.
    for name in ["p50", "p90", "p99", "max"] {
        let (wait, read) = (waits[name].as_f64().unwrap(), figure(step, &format!("{name}_ns")));
        assert!((0.5 * read..=1.02 * read).contains(&wait), "{name}: {wait}, of reads that take {read}");
    }
}

/// Touches beyond `memory.high`: the kernel holds them up for up to two seconds each.
#[test]
#[ignore = "root"]
fn native_waits_over_high_are_what_touches_wait() {
    let cgroup = TestCgroup::new("over-high").unwrap();
    let mut workload = Workload::start(&cgroup, &["held-up", "--bytes", "20M"]).unwrap();
    workload.run_to("ready").unwrap();
    let is_limited = cgroup.high(18 * MIB).unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Default)).unwrap();
    let steps = workload.run_to("touched").unwrap();
    workload.finish().unwrap();
    let outcome = memtrail.stop().unwrap();
    let step = steps.last().unwrap();
    println!("the workload's touches: {:?}", step.figures);
    assert_nobody_waits(&outcome);
    if !is_limited || !has(&outcome, "high") {
        assert!(is_missing(&outcome, &cgroup, "high_throttle_ns"), "{}", outcome.report["plan"]);
        return;
    }
    let waits = row(&outcome, &cgroup, "high_throttle_ns");
    println!("high_throttle_ns: {waits}");
    let all = Distribution::decode(waits["hdr"].as_str().unwrap()).unwrap();
    let mut longest: Vec<u64> = all.values().flat_map(|(ns, count)| std::iter::repeat_n(ns, count.min(LONGEST) as usize)).collect();
    longest.reverse();
    assert!(figure(step, "count") >= LONGEST as f64, "memory.high was to be passed");
    for (at, found) in longest.into_iter().take(LONGEST as usize).enumerate() {
        assert_near("a wait", found as f64, figure(step, &format!("longest_{at}_ns")), 0.1);
    }
    // Of so few the largest hundredth is the largest, in both.
    assert!(all.count() < 100, "{waits}");
    assert_near("p99", waits["p99"].as_f64().unwrap(), figure(step, "p99_ns"), 0.1);
}
