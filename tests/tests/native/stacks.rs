//! Whose stacks: short processes by the name of their function.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::Workload;

/// Runs a workload to its end while memtrail records its cgroup.
fn record(name: &str, mode: Mode, args: &[&str], stop_at: &str) -> (String, Outcome) {
    let cgroup = TestCgroup::new(&format!("{name}-{mode:?}")).unwrap();
    let mut workload = Workload::start(&cgroup, args).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), mode)).unwrap();
    workload.run_to(stop_at).unwrap();
    let outcome = memtrail.stop().unwrap();
    (cgroup.path().to_owned(), outcome)
}

fn charged_by(outcome: &Outcome, path: &str, function: &str) -> (u64, u64) {
    let sum = |functions: Option<&[&str]>| report::stack_sum(&outcome.report, path, "anon", functions, |stack| stack.charged).unwrap();
    (sum(Some(&[function])), sum(None))
}

/// Each process executes the program anew, touches 256 KiB and is gone after 5 ms; it needs about 150 KiB of its own to start. Each has
/// the program at another address: their stacks are the same all the same, or no table could hold them.
#[test]
#[ignore = "root"]
fn native_thousand_short_programs_have_names() {
    const EACH: u64 = 256 << 10;
    let bytes = (1000 * EACH).to_string();
    let (path, outcome) =
        record("short-programs", Mode::Exact, &["spawn-short", "--exec", "--processes", "1000", "--bytes", &bytes], "spawned");
    let (known, all) = charged_by(&outcome, &path, "wl_short_child");
    println!("wl_short_child charged {known} of {all}");
    assert!(known as f64 >= 0.95 * (1000 * EACH) as f64, "wl_short_child charged {known} of {}", 1000 * EACH);
}
