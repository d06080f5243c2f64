//! Small pages that become huge ones in place: the new folio is the memory of whoever made the small ones resident.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::{Step, Workload};
use std::fs;
use std::path::PathBuf;

const BYTES: u64 = 32 << 20;
const KHUGEPAGED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged";

/// A setting of khugepaged, put back when dropped.
struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    fn set(name: &str, value: &str) -> Setting {
        let path = PathBuf::from(KHUGEPAGED).join(name);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, value).unwrap();
        Setting { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, self.before.trim()) {
            eprintln!("{} stays changed: {error}", self.path.display());
        }
    }
}

/// Runs a workload to "collapsed" under the tracer; what its cgroup then has, the last step, and the report.
fn collapsed(workload_name: &str, kind: &str) -> (TestCgroup, i64, Step, Outcome) {
    let cgroup = TestCgroup::new(workload_name).unwrap();
    let bytes = size(BYTES).unwrap().to_string();
    let mut workload = Workload::start(&cgroup, &[workload_name, "--bytes", &bytes]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let last = workload.run_to("collapsed").unwrap().pop().unwrap();
    let after = cgroup.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();
    let change = after.get(kind).unwrap() - before.get(kind).unwrap();
    (cgroup, change, last, outcome)
}

/// Live bytes by the function equal the change of `memory.stat`, though huge pages stand where it touched small ones.
fn assert_owned(cgroup: &TestCgroup, outcome: &Outcome, kind: &str, functions: &[&str], change: i64) {
    let row = report::kind(&outcome.report, cgroup.path(), kind).unwrap().unwrap();
    let owned = report::stack_sum(&outcome.report, cgroup.path(), kind, Some(functions), |stack| stack.live).unwrap();
    println!("{kind}: change {change}, live {:?}, by {functions:?} {owned}, unattributed {:?}", row.live, row.unattributed);
    let change = u64::try_from(change).unwrap();
    let allowed = (512 << 10_u64).max(change / 100);
    assert!(row.live.unwrap().abs_diff(change) <= allowed, "live {:?}, change {change}", row.live);
    assert!(owned as f64 >= 0.95 * change as f64, "{functions:?} own {owned} of {change}");
}

#[test]
#[ignore = "root"]
fn native_khugepaged_leaves_memory_to_its_maker() {
    let _settings = [Setting::set("scan_sleep_millisecs", "50"), Setting::set("pages_to_scan", "65536")];
    let (cgroup, change, last, outcome) = collapsed("collapse", "anon");
    let huge = last.figures["huge"].as_f64().unwrap();
    println!("{huge} bytes in huge pages");
    assert!(huge >= size(BYTES).unwrap() as f64 * 0.9, "khugepaged made only {huge} bytes huge");
    assert_owned(&cgroup, &outcome, "anon", &["wl_touch_small"], change);
}

/// MADV_COLLAPSE (6.1 and later) charges in the caller's context: its memory is the caller's, by either of its stacks.
#[test]
#[ignore = "root"]
fn native_collapse_in_the_callers_context() {
    let (cgroup, change, last, outcome) = collapsed("collapse-memfd", "shmem");
    let error = last.figures["collapse_error"].as_f64().unwrap() as i32;
    println!("MADV_COLLAPSE: {}", if error == 0 { "done".to_owned() } else { std::io::Error::from_raw_os_error(error).to_string() });
    // Without it (EINVAL) the small pages stay, and must be right all the same.
    assert!([0, libc::EINVAL].contains(&error), "MADV_COLLAPSE failed with {error}");
    assert_owned(&cgroup, &outcome, "shmem", &["wl_touch_small", "wl_collapse_now"], change);
}
