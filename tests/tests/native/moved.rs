//! Pages that the kernel moves to other frames keep their owner and stack.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::pagemap::{Page, PageMap};
use harness::report;
use harness::workload::Workload;
use std::collections::BTreeSet;

const BYTES: u64 = 256 << 20;
/// Compactions before giving up: each moves what the one before made room for.
const PASSES: u32 = 10;

/// Frames of the process's private mappings.
fn frames(pid: i32) -> BTreeSet<u64> {
    let pagemap = PageMap::open(u32::try_from(pid).unwrap()).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut frames = BTreeSet::new();
    for line in maps.lines().filter(|line| line.split_whitespace().count() == 5 && line.contains(" rw-p ")) {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        frames.extend(pagemap.pages(start, end).unwrap().into_iter().filter_map(Page::frame));
    }
    frames
}

fn vmstat(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("/proc/vmstat has no {name}")).parse().unwrap()
}

/// Compaction of all memory while a workload with holes is traced: totals hold, and its function still owns what moved.
#[test]
#[ignore = "root"]
fn native_compaction_keeps_owner_and_stack() {
    let cgroup = TestCgroup::new("moved").unwrap();
    let bytes = size(BYTES).unwrap();
    let mut workload = Workload::start(&cgroup, &["holes", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let before = cgroup.settled_kinds().unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let pid = workload.run_to("holes").unwrap().pop().unwrap().pid;
    let (moved_before, frames_before) = (vmstat("pgmigrate_success"), frames(pid));
    let mut its_own = 0;
    for _ in 0..PASSES {
        std::fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
        its_own = frames_before.difference(&frames(pid)).count();
        if its_own > 100 {
            break;
        }
    }
    let moved = vmstat("pgmigrate_success") - moved_before;
    let change = cgroup.settled_kinds().unwrap().anon - before.anon;
    let outcome = memtrail.stop().unwrap();

    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    let known = report::stack_sum(&outcome.report, cgroup.path(), "anon", Some(&["wl_touch_anon"]), |stack| stack.live).unwrap();
    println!(
        "{moved} pages moved on this host; change {change}, live {:?}, wl_touch_anon {known}, unattributed {:?}",
        row.live, row.unattributed
    );
    println!("migration: {}", outcome.report["migration"]);
    println!("{its_own} of its {} frames moved", frames_before.len());
    assert!(its_own > 0, "compaction moved nothing of it");
    assert!(outcome.report["migration"]["moved_bytes"].as_u64().unwrap() >= moved * 4096, "{}", outcome.report["migration"]);
    let followed = outcome.report["migration"]["followed"].as_str().unwrap();
    // What is not followed may be lost, up to what moved.
    let unfollowed = if followed == "none" { moved * 4096 } else { 0 };
    let allowed = (512 << 10) + change.unsigned_abs() / 100 + unfollowed;
    assert!(row.live.unwrap().abs_diff(change.unsigned_abs()) <= allowed, "live {:?}, change {change}", row.live);
    assert!(row.unattributed.unwrap().unsigned_abs() <= allowed, "unattributed {:?}", row.unattributed);
    assert!(known + unfollowed >= row.live.unwrap() * 95 / 100, "wl_touch_anon owns {known} of {:?}", row.live);
    if followed != "none" {
        // Carried over, not charged anew.
        assert!(row.charged.unwrap() <= bytes + (1 << 20), "charged {:?}", row.charged);
    }
}
