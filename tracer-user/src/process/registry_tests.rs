//! Synthetic histories: what the registry must answer whatever order and gaps the records have.

use super::*;
use crate::process::FileIdentity;
use crate::process::event::comm_from;

fn fork(registry: &mut Registry, at_ns: u64, tgid: u32, parent_tgid: u32) {
    registry.apply(ProcessEvent { at_ns, change: Change::Fork { tgid, tid: tgid, parent_tgid } });
}

fn thread(registry: &mut Registry, at_ns: u64, tgid: u32, tid: u32) {
    registry.apply(ProcessEvent { at_ns, change: Change::Fork { tgid, tid, parent_tgid: tgid } });
}

fn exec(registry: &mut Registry, at_ns: u64, tgid: u32, name: &str) {
    registry.apply(ProcessEvent { at_ns, change: Change::Comm { tgid, tid: tgid, comm: comm_from(name.as_bytes()), exec: true } });
}

fn exit(registry: &mut Registry, at_ns: u64, tgid: u32, tid: u32) {
    registry.apply(ProcessEvent { at_ns, change: Change::Exit { tgid, tid } });
}

fn map_event(tgid: u32, start: u64, inode: u64) -> MapEvent {
    let file = FileIdentity { device: 1, inode, generation: Some(3) };
    MapEvent { tgid, start, end: start + 0x1000, offset: 0, executable: true, file, path: format!("/file{inode}").into_bytes() }
}

fn map(registry: &mut Registry, at_ns: u64, tgid: u32, start: u64, inode: u64) {
    registry.apply(ProcessEvent { at_ns, change: Change::Mmap(map_event(tgid, start, inode)) });
}

fn inode(registry: &Registry, tgid: u32, at_ns: u64, address: u64) -> Option<u64> {
    Some(registry.image_at(tgid, at_ns)?.mapping(address)?.file.identity.inode)
}

fn comm(registry: &Registry, tgid: u32, at_ns: u64) -> &str {
    registry.image_at(tgid, at_ns).map_or("-", |i| std::str::from_utf8(crate::host::proc::comm::bytes(&i.comm)).unwrap())
}

#[test]
fn exec_ends_one_image_and_begins_another() {
    let mut r = Registry::default();
    fork(&mut r, 10, 5, 1);
    exec(&mut r, 20, 5, "sh");
    map(&mut r, 21, 5, 0x1000, 7);
    exec(&mut r, 30, 5, "cat");
    map(&mut r, 31, 5, 0x1000, 8);
    exit(&mut r, 40, 5, 5);
    assert_eq!((comm(&r, 5, 25), inode(&r, 5, 25, 0x1800)), ("sh", Some(7)));
    assert_eq!((comm(&r, 5, 35), inode(&r, 5, 35, 0x1800)), ("cat", Some(8)));
    assert_eq!(r.image_at(5, 35).unwrap().to_ns, Some(40));
    assert_eq!((comm(&r, 5, 9), r.image_at(5, 25).unwrap().to_ns), ("-", Some(30)));
}

#[test]
fn fork_without_exec_shares_and_then_differs() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "server");
    map(&mut r, 2, 5, 0x1000, 7);
    fork(&mut r, 10, 6, 5);
    assert!(Arc::ptr_eq(&r.image_at(5, 10).unwrap().mappings, &r.image_at(6, 10).unwrap().mappings));
    map(&mut r, 11, 6, 0x1000, 9);
    map(&mut r, 12, 5, 0x9000, 4);
    assert_eq!((inode(&r, 5, 20, 0x1000), inode(&r, 6, 20, 0x1000), inode(&r, 6, 20, 0x9000)), (Some(7), Some(9), None));
    assert_eq!((comm(&r, 6, 20), r.image_at(6, 20).unwrap().parent_tgid), ("server", 5));
}

#[test]
fn a_reused_id_is_another_process() {
    let mut r = Registry::default();
    for (at, name, file) in [(10, "first", 1), (100, "second", 2)] {
        fork(&mut r, at, 5, 1);
        exec(&mut r, at + 1, 5, name);
        map(&mut r, at + 2, 5, 0x1000, file);
        exit(&mut r, at + 50, 5, 5);
    }
    assert_eq!((comm(&r, 5, 50), inode(&r, 5, 50, 0x1000)), ("first", Some(1)));
    assert_eq!((comm(&r, 5, 120), inode(&r, 5, 120, 0x1000)), ("second", Some(2)));
    assert_eq!(comm(&r, 5, 70), "first", "a dying task still touches memory");
}

#[test]
fn a_lost_exit_is_ended_by_the_next_fork() {
    let mut r = Registry::default();
    exec(&mut r, 10, 5, "old");
    fork(&mut r, 100, 5, 1);
    assert_eq!((r.image_at(5, 50).unwrap().to_ns, comm(&r, 5, 50)), (Some(100), "old"));
    assert_eq!(r.image_at(5, 150).unwrap().to_ns, None);
}

#[test]
fn a_listing_ends_what_it_does_not_show() {
    let mut r = Registry::default();
    exec(&mut r, 10, 5, "gone");
    exec(&mut r, 10, 6, "there");
    exec(&mut r, 200, 7, "young");
    r.apply(ProcessEvent { at_ns: 150, change: Change::ListingDone { started_ns: 100, tgids: vec![6] } });
    let end = |tgid| r.image_at(tgid, 300).unwrap().to_ns;
    assert_eq!((end(5), end(6), end(7), r.counters().lost_exits), (Some(100), None, None, 1));
}

#[test]
fn threads_change_nothing_but_an_early_end_of_the_leader() {
    let mut r = Registry::default();
    exec(&mut r, 10, 5, "main");
    thread(&mut r, 20, 5, 51);
    exit(&mut r, 30, 5, 5);
    assert_eq!(r.image_at(5, 30).unwrap().to_ns, Some(30));
    thread(&mut r, 40, 5, 52);
    assert_eq!(r.image_at(5, 40).unwrap().to_ns, None, "a thread was made: it lives");
    exit(&mut r, 50, 5, 5);
    exit(&mut r, 60, 5, 52);
    assert_eq!(r.image_at(5, 40).unwrap().to_ns, Some(60), "the last thread's end is the end");
    assert_eq!(r.len(), 1);
}

#[test]
fn exec_in_a_thread_follows_the_end_of_the_leader() {
    let mut r = Registry::default();
    exec(&mut r, 10, 5, "old");
    map(&mut r, 11, 5, 0x1000, 1);
    thread(&mut r, 20, 5, 51);
    exit(&mut r, 30, 5, 5);
    exec(&mut r, 31, 5, "new");
    map(&mut r, 32, 5, 0x1000, 2);
    assert_eq!((comm(&r, 5, 29), comm(&r, 5, 40)), ("old", "new"));
    assert_eq!((r.image_at(5, 40).unwrap().to_ns, inode(&r, 5, 40, 0x1000)), (None, Some(2)));
}

#[test]
fn a_mapping_before_its_fork_is_kept() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "parent");
    map(&mut r, 2, 5, 0x1000, 7);
    map(&mut r, 22, 6, 0x5000, 8);
    assert!(r.image_at(6, 22).unwrap().incomplete);
    fork(&mut r, 20, 6, 5);
    assert_eq!((inode(&r, 6, 30, 0x1000), inode(&r, 6, 30, 0x5000)), (Some(7), Some(8)));
    assert_eq!((comm(&r, 6, 20), r.image_at(6, 20).unwrap().incomplete, r.len()), ("parent", false, 2));
}

#[test]
fn a_fork_after_its_exec_comes_before_it() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "parent");
    exec(&mut r, 30, 6, "child");
    fork(&mut r, 20, 6, 5);
    assert_eq!((comm(&r, 6, 25), comm(&r, 6, 35)), ("parent", "child"));
    assert_eq!((r.image_at(6, 25).unwrap().to_ns, r.image_at(6, 35).unwrap().to_ns), (Some(30), None));
}

#[test]
fn a_late_mapping_goes_to_the_image_of_its_time() {
    let mut r = Registry::default();
    exec(&mut r, 10, 5, "a");
    exec(&mut r, 30, 5, "b");
    map(&mut r, 15, 5, 0x1000, 1);
    assert_eq!((inode(&r, 5, 20, 0x1000), inode(&r, 5, 40, 0x1000)), (Some(1), None));
}

fn listed(tgid: u32, start_ns: u64, name: &str, maps: &[(u64, u64)]) -> Change {
    let mappings = maps.iter().map(|&(start, inode)| map_event(tgid, start, inode)).collect();
    Change::Listed(Listed { tgid, parent_tgid: 1, start_ns, until_ns: start_ns, comm: comm_from(name.as_bytes()), mappings })
}

#[test]
fn a_listing_fills_in_and_does_not_undo() {
    let mut r = Registry::default();
    const SECOND: u64 = 1_000_000_000;
    map(&mut r, 5 * SECOND, 5, 0x1000, 9);
    r.apply(ProcessEvent { at_ns: 4 * SECOND, change: listed(5, SECOND, "five", &[(0x1000, 1), (0x3000, 2)]) });
    assert_eq!((inode(&r, 5, 6 * SECOND, 0x1000), inode(&r, 5, 2 * SECOND, 0x3000)), (Some(9), Some(2)));
    assert_eq!(comm(&r, 5, 2 * SECOND), "five", "known since its start, not since the listing");
}

#[test]
fn a_listing_after_a_loss_tells_a_reused_id_and_a_lost_exec() {
    const SECOND: u64 = 1_000_000_000;
    let mut r = Registry::default();
    fork(&mut r, SECOND, 5, 1);
    exec(&mut r, SECOND, 5, "old");
    map(&mut r, SECOND, 5, 0x1000, 1);
    r.apply(ProcessEvent { at_ns: 9 * SECOND, change: listed(5, 8 * SECOND, "reused", &[(0x1000, 1)]) });
    assert_eq!((comm(&r, 5, 2 * SECOND), comm(&r, 5, 9 * SECOND)), ("old", "reused"));
    r.apply(ProcessEvent { at_ns: 12 * SECOND, change: listed(5, 8 * SECOND, "exec", &[(0x1000, 2)]) });
    assert_eq!((comm(&r, 5, 10 * SECOND), comm(&r, 5, 12 * SECOND)), ("reused", "exec"));
    r.apply(ProcessEvent { at_ns: 15 * SECOND, change: listed(5, 8 * SECOND, "exec", &[(0x1000, 2)]) });
    assert_eq!(r.len(), 4, "a repeated listing adds nothing");
}

#[test]
fn five_thousand_forks_stay_in_bounds() {
    let bounds = Bounds { dead_images: 100, pinned_images: 200, ..Bounds::default() };
    let mut r = Registry::new(bounds);
    exec(&mut r, 1, 1, "init");
    for n in 0..5000_u32 {
        let at = 10 + u64::from(n) * 10;
        fork(&mut r, at, n + 2, 1);
        exec(&mut r, at + 1, n + 2, "job");
        map(&mut r, at + 2, n + 2, 0x1000, 7);
        if n == 10 {
            assert!(r.pin(n + 2, at + 3));
        }
        exit(&mut r, at + 5, n + 2, n + 2);
        assert!(r.len() <= 104, "{}", r.len());
    }
    assert_eq!(r.counters().dropped_images, 10_000 - 101);
    assert_eq!(r.counters().dropped_pinned, 0);
    assert_eq!(inode(&r, 12, 10 + 103, 0x1000), Some(7), "pinned");
    assert_eq!((inode(&r, 13, 10 + 113, 0x1000), inode(&r, 5001, 1 << 40, 0x1000)), (None, Some(7)));
    assert!(r.files.len() <= 1024);
}

#[test]
fn pins_cannot_break_the_hard_bound() {
    let mut r = Registry::new(Bounds { dead_images: 2, pinned_images: 5, ..Bounds::default() });
    for n in 0..20 {
        let at = u64::from(n) * 10;
        exec(&mut r, at, n + 2, "x");
        assert!(r.pin(n + 2, at));
        exit(&mut r, at + 1, n + 2, n + 2);
    }
    assert_eq!((r.len(), r.counters().dropped_pinned), (5, 15));
    r.clear_pins();
    exit(&mut r, 1000, 99, 99);
    assert_eq!(r.len(), 2);
}

#[test]
fn a_process_that_execs_for_ever_is_bounded() {
    let mut r = Registry::new(Bounds { images_per_process: 4, ..Bounds::default() });
    for n in 0..100 {
        exec(&mut r, n, 5, "x");
    }
    assert_eq!((r.len(), r.counters().dropped_images), (4, 96));
}

#[test]
fn data_over_code_removes_it_and_is_counted() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "x");
    map(&mut r, 2, 5, 0x1000, 1);
    let data = MapEvent { executable: false, ..map_event(5, 0x1000, 2) };
    r.apply(ProcessEvent { at_ns: 3, change: Change::Mmap(data) });
    assert_eq!((inode(&r, 5, 4, 0x1000), r.counters().data_mappings), (None, 1));
}

#[test]
fn a_rename_names_the_leader_only() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "java");
    for (tid, name) in [(51, "GC Thread"), (5, "renamed")] {
        r.apply(ProcessEvent { at_ns: 2, change: Change::Comm { tgid: 5, tid, comm: comm_from(name.as_bytes()), exec: false } });
        assert_eq!(comm(&r, 5, 3), if tid == 5 { "renamed" } else { "java" });
    }
}

#[test]
fn a_file_is_mapped_as_long_as_a_program_runs_that_maps_it() {
    let mut r = Registry::default();
    exec(&mut r, 1, 5, "x");
    map(&mut r, 2, 5, 0x1000, 7);
    fork(&mut r, 3, 6, 5);
    map(&mut r, 4, 6, 0x9000, 8);
    let unmapped = |r: &Registry| {
        let mut inodes: Vec<u64> = r.unmapped(HashSet::from([(1, 7), (1, 8), (1, 9)])).into_iter().map(|(_, inode)| inode).collect();
        inodes.sort_unstable();
        inodes
    };
    assert_eq!(unmapped(&r), [9]);
    exit(&mut r, 5, 5, 5);
    assert_eq!(unmapped(&r), [9], "the child has what its parent mapped");
    exec(&mut r, 6, 6, "y");
    assert_eq!(unmapped(&r), [7, 8, 9], "an exec ends it");
}
