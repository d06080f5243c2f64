use super::*;

const HIERARCHY: u32 = 4;

fn event(change: CgroupChange, id: u64, path: &[u8], at_ns: u64) -> CgroupEvent {
    let mut bytes = [0; PATH_BYTES];
    let kept = path.len().min(PATH_BYTES);
    bytes[..kept].copy_from_slice(&path[..kept]);
    let level = path.iter().filter(|&&b| b == b'/').count() as u32 - u32::from(path == b"/");
    CgroupEvent { change: change as u32, hierarchy: HIERARCHY, id, at_ns, path_length: path.len() as u32, level, path: bytes }
}

fn made(id: u64, path: &str, at_ns: u64) -> CgroupEvent {
    event(CgroupChange::Made, id, path.as_bytes(), at_ns)
}

fn removed(id: u64, path: &str, at_ns: u64) -> CgroupEvent {
    event(CgroupChange::Removed, id, path.as_bytes(), at_ns)
}

fn listed(id: u64, parent: u64, path: &str) -> Listed {
    let path = CgroupPath::from_bytes(path.as_bytes()).unwrap();
    Listed { id: CgroupId(id), parent: (parent > 0).then_some(CgroupId(parent)), depth: path.depth(), path }
}

fn listing(started_ns: u64, cgroups: Vec<Listed>) -> Listing {
    Listing { started_ns, cgroups, ..Listing::default() }
}

fn registry() -> Registry {
    let mut registry = Registry::new(HIERARCHY, 100);
    registry.repair(&listing(10, vec![listed(1, 0, "/"), listed(2, 1, "/pods")]));
    registry
}

fn state(registry: &Registry, id: u64) -> State {
    registry.get(CgroupId(id)).unwrap().state
}

/// The living cgroup with that path.
fn alive_at<'a>(registry: &'a Registry, path: &CgroupPath) -> Option<&'a Cgroup> {
    registry.by_path.get(path).and_then(|id| registry.get(*id))
}

#[test]
fn events_make_and_remove() {
    let mut registry = registry();
    assert!(!registry.apply(&made(3, "/pods/a", 20)));
    assert_eq!(registry.get(CgroupId(3)).unwrap().parent, Some(CgroupId(2)));
    assert_eq!(registry.get(CgroupId(3)).unwrap().depth, 2);
    registry.apply(&removed(3, "/pods/a", 5_000_000_020));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 5_000_000_020, exact: true });
    assert_eq!(registry.name(CgroupId(3)), "/pods/a");
    assert_eq!(registry.name(CgroupId(99)), "[unknown cgroup 99]");
    assert_eq!(registry.ancestry(CgroupId(3)).map(|c| c.id.0).collect::<Vec<_>>(), [3, 2, 1]);
}

#[test]
fn a_name_used_again_is_another_cgroup() {
    let mut registry = registry();
    registry.apply(&made(3, "/pods/a", 20));
    registry.apply(&removed(3, "/pods/a", 21));
    registry.apply(&made(4, "/pods/a", 22));
    registry.apply(&made(5, "/pods/a/child", 23));
    assert_eq!(registry.get(CgroupId(5)).unwrap().parent, Some(CgroupId(4)));
    assert_eq!(alive_at(&registry, &CgroupPath::from_bytes(b"/pods/a").unwrap()).unwrap().id, CgroupId(4));
    // The removal of the first, late, does not touch the second.
    registry.apply(&removed(3, "/pods/a", 24));
    assert_eq!(state(&registry, 4), State::Alive);
}

#[test]
fn other_hierarchies_are_passed_over() {
    let mut registry = registry();
    let foreign = CgroupEvent { hierarchy: HIERARCHY + 1, ..made(3, "/pods/a", 20) };
    assert!(!registry.apply(&foreign));
    assert!(registry.get(CgroupId(3)).is_none());
}

#[test]
fn a_cgroup_known_only_by_its_removal_keeps_its_name() {
    let mut registry = registry();
    registry.apply(&removed(3, "/pods/short", 20));
    assert_eq!(registry.name(CgroupId(3)), "/pods/short");
    assert!(matches!(state(&registry, 3), State::Dead { at_ns: 20, .. }));
}

#[test]
fn cut_paths_are_marked_and_repaired() {
    let mut registry = registry();
    let long = format!("/pods/{}", "x".repeat(300));
    assert!(registry.apply(&made(3, &long, 20)), "asks for a listing");
    assert!(registry.get(CgroupId(3)).unwrap().path_cut);
    assert!(registry.name(CgroupId(3)).ends_with("xxx..."));
    registry.repair(&listing(30, vec![listed(1, 0, "/"), listed(2, 1, "/pods"), listed(3, 2, &long)]));
    let repaired = registry.get(CgroupId(3)).unwrap();
    assert_eq!((repaired.path.to_string(), repaired.path_cut, repaired.parent), (long, false, Some(CgroupId(2))));
    assert_eq!(registry.counters().paths_repaired, 1);
    assert_eq!(alive_at(&registry, &repaired.path).unwrap().id, CgroupId(3));
}

#[test]
fn a_listing_buries_what_is_gone_but_not_what_is_newer() {
    let mut registry = registry();
    registry.apply(&made(3, "/pods/old", 20));
    registry.apply(&made(4, "/pods/new", 40));
    registry.repair(&listing(30, vec![listed(1, 0, "/"), listed(2, 1, "/pods")]));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 30, exact: false });
    assert_eq!(state(&registry, 4), State::Alive);
    assert_eq!(registry.counters().died_unseen, 1);
}

#[test]
fn an_incomplete_listing_buries_nobody() {
    let mut registry = registry();
    registry.repair(&Listing { too_many: 1, ..listing(30, vec![listed(1, 0, "/")]) });
    assert_eq!(state(&registry, 2), State::Alive);
}

#[test]
fn an_old_listing_brings_nobody_back() {
    let mut registry = registry();
    registry.apply(&made(3, "/pods/a", 20));
    registry.apply(&removed(3, "/pods/a", 35));
    registry.repair(&listing(30, vec![listed(1, 0, "/"), listed(2, 1, "/pods"), listed(3, 2, "/pods/a")]));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 35, exact: true });
    assert!(alive_at(&registry, &CgroupPath::from_bytes(b"/pods/a").unwrap()).is_none());
}

#[test]
fn renames_are_followed() {
    let mut registry = registry();
    registry.repair(&listing(30, vec![listed(1, 0, "/"), listed(2, 1, "/renamed")]));
    assert_eq!(registry.name(CgroupId(2)), "/renamed");
    assert!(alive_at(&registry, &CgroupPath::from_bytes(b"/pods").unwrap()).is_none());
}

#[test]
fn the_dead_stay_while_they_own_bytes_and_so_do_those_above() {
    let mut registry = registry();
    for (id, path) in [(3, "/pods/a"), (4, "/pods/a/in"), (5, "/pods/b")] {
        registry.apply(&made(id, path, 20));
    }
    for (id, path, at) in [(4, "/pods/a/in", 30), (3, "/pods/a", 31), (5, "/pods/b", 32)] {
        registry.apply(&removed(id, path, at));
    }
    registry.retain_dead(|id| id == CgroupId(4), 10);
    assert!(registry.get(CgroupId(4)).is_some() && registry.get(CgroupId(3)).is_some(), "the parent of a kept one");
    assert!(registry.get(CgroupId(5)).is_none());
    assert_eq!(registry.counters().forgotten, 0);
    assert_eq!(registry.len(), 4);
}

#[test]
fn too_many_dead_owners_are_forgotten_oldest_first_and_counted() {
    let mut registry = registry();
    for id in 10..20 {
        registry.apply(&made(id, &format!("/pods/{id}"), id));
        registry.apply(&removed(id, &format!("/pods/{id}"), 100 + id));
    }
    registry.retain_dead(|_| true, 3);
    let mut left: Vec<u64> = registry.iter().filter(|c| c.state != State::Alive).map(|c| c.id.0).collect();
    left.sort_unstable();
    assert_eq!((left, registry.counters().forgotten), (vec![17, 18, 19], 7));
}

#[test]
fn a_full_registry_refuses_and_counts() {
    let mut registry = Registry::new(HIERARCHY, 2);
    registry.repair(&listing(10, vec![listed(1, 0, "/"), listed(2, 1, "/a"), listed(3, 1, "/b")]));
    assert_eq!((registry.len(), registry.counters().refused), (2, 1));
}

#[test]
fn hostile_events_do_no_harm() {
    let mut registry = registry();
    for path in [&b""[..], b"no-slash", b"/../up", b"/nul\0byte", &[0xff; 400]] {
        let mut bytes = event(CgroupChange::Made, 7, b"/x", 20);
        let kept = path.len().min(PATH_BYTES);
        bytes.path[..kept].copy_from_slice(&path[..kept]);
        bytes.path_length = path.len() as u32;
        registry.apply(&bytes);
    }
    assert_eq!(registry.counters().malformed, 5);
    registry.apply(&CgroupEvent { change: 77, ..made(8, "/pods/a", 1) });
    registry.apply(&CgroupEvent { path_length: u32::MAX, level: u32::MAX, ..made(9, "/pods/b", 1) });
    assert!(registry.get(CgroupId(7)).is_none() && registry.get(CgroupId(8)).is_none());
    assert!(registry.get(CgroupId(9)).unwrap().path_cut);
    // A cgroup said to be its own parent's parent ends the ancestry instead of going round.
    registry.repair(&listing(30, vec![listed(1, 0, "/"), Listed { parent: Some(CgroupId(2)), ..listed(2, 1, "/pods") }]));
    assert_eq!(registry.ancestry(CgroupId(2)).count(), 1);
}

#[test]
fn the_event_of_a_removal_that_a_listing_noticed_first_has_the_time() {
    let mut registry = registry();
    registry.apply(&made(3, "/pods/a", 20));
    registry.repair(&listing(40, vec![listed(1, 0, "/"), listed(2, 1, "/pods")]));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 40, exact: false });
    registry.apply(&removed(3, "/pods/a", 30));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 30, exact: true });
    // What is known exactly stays.
    registry.apply(&removed(3, "/pods/a", 50));
    assert_eq!(state(&registry, 3), State::Dead { at_ns: 30, exact: true });
}
