//! A small cgroup has samples enough beside a large one, and the figures of both stay right.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::report;
use harness::workload::Workload;

const SMALL: u64 = 20 << 20;
const LARGE: u64 = 768 << 20;

fn samples(outcome: &Outcome, path: &str) -> u64 {
    let rows = report::cgroup(&outcome.report, path).unwrap().unwrap()["stacks"].as_array().unwrap();
    rows.iter().map(|row| row["samples"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "root"]
fn native_rates_a_small_cgroup_has_two_hundred_samples() {
    let parent = TestCgroup::new("rates").unwrap();
    let (small, large) = (parent.child("small").unwrap(), parent.child("large").unwrap());
    let memtrail = Memtrail::start(&record_args(parent.path(), Mode::Default)).unwrap();
    let mut workloads = Vec::new();
    for (cgroup, bytes) in [(&small, SMALL), (&large, LARGE)] {
        let mut workload = Workload::start(cgroup, &["anon", "--bytes", &bytes.to_string()]).unwrap();
        workload.run_to("touched").unwrap();
        workloads.push(workload);
    }
    let outcome = memtrail.stop().unwrap();
    let coarsest = outcome.report["sampling"]["mean_bytes"].as_u64().unwrap();
    for (cgroup, bytes) in [(&small, SMALL), (&large, LARGE)] {
        let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
        let (live, stderr) = (row.live.unwrap(), row.live_stderr.unwrap());
        let mean = report::cgroup(&outcome.report, cgroup.path()).unwrap().unwrap()["mean_bytes"].as_u64().unwrap();
        println!(
            "{bytes}: {live} live, standard error {stderr}, {} samples of {mean} bytes, at most {coarsest}",
            samples(&outcome, cgroup.path())
        );
        assert!(live.abs_diff(bytes) <= 3 * stderr + (1 << 20), "{row:?}");
        assert!(mean <= coarsest, "{mean}");
    }
    // Chance: fewer than 200 where 260 are expected is four standard errors away.
    assert!(samples(&outcome, small.path()) >= 200);
    // Neither does the large one take as many for its size.
    assert!(samples(&outcome, large.path()) < LARGE / SMALL * 200, "{}", samples(&outcome, large.path()));
    assert!(report::losses(&outcome.report).unwrap().is_empty(), "{:?}", outcome.report["losses"]);
}
