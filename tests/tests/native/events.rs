//! Events of cgroups are taken in as they come, not at the interval of the readings.

use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::report;
use std::time::Duration;

/// Cgroups made and removed: 1,200 events, and the ring holds 885 of them.
const BATCHES: usize = 6;
const BATCH: usize = 100;
/// Between two batches: the collector must get to run once in four of these.
const PAUSE: Duration = Duration::from_millis(500);

#[test]
#[ignore = "root"]
fn native_events_do_not_wait_for_the_interval() {
    let cgroup = TestCgroup::new("events").unwrap();
    let mut args = record_args(cgroup.path(), Mode::Default);
    args.extend(["--interval", "1h"].map(str::to_owned));
    let memtrail = Memtrail::start(&args).unwrap();
    for batch in 0..BATCHES {
        for n in 0..BATCH {
            drop(cgroup.child(&format!("short-{batch}-{n}")).unwrap());
        }
        std::thread::sleep(PAUSE);
    }
    let outcome = memtrail.stop().unwrap();
    let losses = report::losses(&outcome.report).unwrap();
    println!("losses {losses:?}");
    assert!(!losses.contains_key("ring_full"), "{losses:?}");
    assert!(report::is_whole(&outcome).unwrap(), "{}", outcome.stderr);
}
