//! Pages that the kernel moves to other frames keep their owner and stack.

use harness::accuracy::size;
use harness::cgroup::TestCgroup;
use harness::memtrail::{Memtrail, Mode, record_args};
use harness::pagemap::{Page, PageMap};
use harness::workload::Workload;
use harness::{kernel, report};
use std::collections::BTreeSet;

const BYTES: u64 = 256 << 20;
/// More than a block of memory has on x86_64 with less than 64 GiB: of several, one may have none of the kernel's own.
const SEVERAL_BLOCKS: u64 = 192 << 20;
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
    crate::missed::assert_none(&outcome, cgroup.path(), &["anon", "file", "shmem"]);
}

/// Takes blocks of memory with such frames out of use, which moves what is in them, and puts them back; how many it could take. Those that
/// have memory of the kernel's own cannot be taken.
fn empty_blocks(frames: &BTreeSet<u64>) -> usize {
    const MEMORY: &str = "/sys/devices/system/memory";
    let bytes = std::fs::read_to_string(format!("{MEMORY}/block_size_bytes")).unwrap();
    let bytes = u64::from_str_radix(bytes.trim(), 16).unwrap();
    let blocks: BTreeSet<u64> = frames.iter().map(|frame| frame * 4096 / bytes).collect();
    let state = |block: u64| format!("{MEMORY}/memory{block}/state");
    let emptied = blocks.into_iter().filter(|block| std::fs::write(state(*block), "offline").is_ok());
    emptied.inspect(|block| std::fs::write(state(*block), "online").unwrap()).count()
}

/// Pages that the kernel is told to move are neither charged nor uncharged by that. A host is not asked to do without its memory.
#[test]
#[ignore = "root"]
fn native_moved_pages_are_counted_once() {
    if !kernel::in_own_machine() {
        println!("NOTE not tried: no machine of the tests' own");
        return;
    }
    let cgroup = TestCgroup::new("blocks").unwrap();
    let bytes = SEVERAL_BLOCKS;
    let mut workload = Workload::start(&cgroup, &["holes", "--bytes", &bytes.to_string()]).unwrap();
    workload.run_to("ready").unwrap();
    let memtrail = Memtrail::start(&record_args(cgroup.path(), Mode::Exact)).unwrap();
    let pid = workload.run_to("holes").unwrap().pop().unwrap().pid;
    let frames_before = frames(pid);
    let emptied = empty_blocks(&frames_before);
    let moved = frames_before.difference(&frames(pid)).count();
    cgroup.settled_kinds().unwrap();
    let outcome = memtrail.stop().unwrap();

    let row = report::kind(&outcome.report, cgroup.path(), "anon").unwrap().unwrap();
    println!("{moved} of {} frames moved out of {emptied} blocks; live {:?}, charged {:?}", frames_before.len(), row.live, row.charged);
    if emptied == 0 {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        println!("NOTE not tried: kernel {} has memory of its own in each of these blocks", release.trim());
        return;
    }
    assert!(moved >= 100, "{moved} frames");
    crate::missed::assert_none(&outcome, cgroup.path(), &["anon", "file", "shmem"]);
    if outcome.report["migration"]["followed"] != "none" {
        assert!(row.charged.unwrap() <= bytes + (1 << 20), "charged {:?}", row.charged);
        assert!(row.live.unwrap().abs_diff(row.stat.unwrap()) <= 512 << 10, "live {:?} of {:?}", row.live, row.stat);
    }
}
