//! What the exact counters missed: zero, whatever became of the memory that they count.
//!
//! The counters are of the tiers that hook functions. On the others the figure is unknown, which is checked too.

use harness::cgroup::TestCgroup;
use harness::hierarchy::Version;
use harness::memtrail::{Memtrail, Mode, Outcome, record_args};
use harness::place::Tmpfs;
use harness::workload::Workload;
use harness::{kernel, report};
use std::path::Path;

/// What a workload's process does besides: a page here and there between the reading of the counters and that of `memory.stat`.
const BESIDES: u64 = 64 << 10;

/// Complains unless the exact counters of all these kinds of the cgroup agree with `memory.stat`, as far as the kernel brings that up to date.
/// Call it after `memory.stat` has settled.
pub fn assert_none(outcome: &Outcome, path: &str, kinds: &[&str]) {
    let tier = report::tier(&outcome.report).unwrap();
    let passed_over = outcome.report["losses"]["recursion_misses"].as_u64().unwrap_or(0);
    let allowed = BESIDES + kernel::stat_batching().unwrap() + passed_over * 4096;
    for kind in kinds {
        // A cgroup without any memory of a kind has no row of it.
        let Some(row) = report::kind(&outcome.report, path, kind).unwrap() else { continue };
        println!("{path} {kind}, {tier}: missed {:?}, stat {:?}, {allowed} allowed, {passed_over} passed over", row.missed, row.stat);
        match row.missed {
            Some(missed) => assert!(missed.unsigned_abs() <= allowed, "{kind} of {path}: missed {missed}, at most {allowed}"),
            None => assert!(tier == "tracepoint" || row.stat.is_none(), "{kind} of {path}: missed is unknown on {tier}"),
        }
    }
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// Memory that a removed cgroup leaves is the parent's from then on where the kernel hands it over (7.1 and later), and stays its own where it
/// does not. Either way nothing is missing, before it is freed and after.
fn handed_over(mode: Mode) {
    let bytes = harness::accuracy::size(32 << 20).unwrap();
    let name = format!("handed-{mode:?}");
    let tmpfs = Tmpfs::new(&name).unwrap();
    let parent = TestCgroup::new(&name).unwrap();
    for freed in [false, true] {
        let mut child = parent.child("child").unwrap();
        let memtrail = Memtrail::start(&record_args(parent.path(), mode)).unwrap();
        let args = ["tmpfs", "--keep", "--dir", tmpfs.path().to_str().unwrap(), "--bytes", &bytes.to_string()];
        Workload::start(&child, &args).unwrap().finish().unwrap();
        child.remove().unwrap();
        if freed {
            // The kernel hands it over some time after the removal.
            parent.settled_kinds().unwrap();
            empty(tmpfs.path());
        }
        parent.settled_kinds().unwrap();
        let outcome = memtrail.stop().unwrap();
        println!("{mode:?}, freed {freed}:");
        assert_none(&outcome, parent.path(), &["anon", "file", "shmem"]);
        empty(tmpfs.path());
    }
    if parent.version() == Version::V1 {
        println!("on v1 a removed cgroup keeps figures of its own, which nobody can read any more");
    }
}

#[test]
#[ignore = "root"]
fn native_memory_of_removed_cgroups_is_not_missed_exact() {
    handed_over(Mode::Exact);
}

#[test]
#[ignore = "root"]
fn native_memory_of_removed_cgroups_is_not_missed_default() {
    handed_over(Mode::Default);
}
