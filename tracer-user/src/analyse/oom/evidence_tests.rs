use super::*;
use crate::analyse::oom::{
    autopsy::autopsy,
    facts::{Evidence, Place, Reading},
};
use crate::kernel_half::events::oom::known;
use crate::report::{ArenaRow, FileToucher, KindRow, RegionRow};
use std::collections::HashMap;
use tracer_common::{
    layout::STAT_NAMES,
    oom::{OOM_CONTROL, OOM_KILL, OOM_LEVELS, OOM_STATS, OomKill, OomTask, UNKNOWN},
};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const POD: u64 = 10;
const WEB: u64 = 11;
const OLD: u64 = 12;
const OTHER_POD: u64 = 13;

/// Kinds in MiB, of a cgroup that is at its limit of 256.
fn level(cgroup: u64, max: u64, kinds: &[(&str, u64)]) -> OomLevel {
    let mut stats = [0; OOM_STATS];
    for (kind, mib) in kinds {
        stats[STAT_NAMES.iter().position(|name| name == kind).unwrap()] = mib * MIB / PAGE;
    }
    OomLevel {
        cgroup,
        usage: 256 * MIB / PAGE,
        max,
        failcnt: 7,
        swap: UNKNOWN,
        kernel: 0,
        sockets: 0,
        oom_events: 1,
        limit_events: 0,
        flags: 0,
        depth: 1,
        stats,
    }
}

fn file(path: &str, kind: &str, mib: u64, dirty_mib: u64) -> FileRow {
    let writer =
        FileToucher { pid: Some(7), comm: "java".into(), bytes: mib * MIB, how: Some("write".into()), frames: vec!["main".into()] };
    FileRow {
        path: path.into(),
        inode: Some("1".into()),
        kind: kind.into(),
        live: mib * MIB,
        dirty: Some(dirty_mib * MIB),
        writeback: Some(0),
        mount: Some("/".into()),
        write_pattern: Some("sequential".into()),
        writers: vec![writer],
        ..FileRow::default()
    }
}

fn cgroup(path: &str, state: &str, files: Vec<FileRow>) -> Cgroup {
    let of_kind = |kind: &str| files.iter().filter(|file| file.kind == kind).map(|file| file.live).sum::<u64>();
    let kinds = ["file", "shmem"].map(|kind| (kind.to_owned(), KindRow { live: Some(of_kind(kind)), ..KindRow::default() }));
    let dead_for_s = (state == "dead").then_some(840.0);
    let container = path.contains("c0").then(|| "c0".to_owned());
    Cgroup { path: path.into(), state: state.into(), dead_for_s, container, kinds: kinds.into(), files, ..Cgroup::default() }
}

/// The pod is at its limit of 256 MiB.
fn facts(kinds: &[(&str, u64)], rows: Vec<(u64, Cgroup)>) -> KillFacts {
    let task = OomTask { process: 1, cgroup: WEB, tgid: 30, tid: 30, comm: *b"java\0\0\0\0\0\0\0\0\0\0\0\0" };
    let mut levels = [level(0, 0, &[]); OOM_LEVELS];
    levels[0] = level(WEB, u64::MAX, kinds);
    levels[1] = level(POD, 256 * MIB / PAGE, kinds);
    let kill = OomKill {
        event: OOM_KILL,
        flags: OOM_CONTROL,
        number: 1,
        at_ns: 0,
        epoch: 3,
        limit: POD,
        total_pages: UNKNOWN,
        constraint: 3,
        order: 0,
        gfp_mask: 0,
        level_count: 2,
        trigger: task,
        user_stack: 0,
        kernel_stack: 0,
        trigger_levels: [0; OOM_LEVELS],
        levels,
    };
    assert_eq!(known(levels[1].usage), Some(256 * MIB / PAGE));
    let mut history = crate::cgroup::history::History::default();
    let dirty = kinds.iter().find(|(kind, _)| *kind == "file_dirty").map(|(_, mib)| mib * MIB);
    for second in 95..100 {
        let point = crate::cgroup::history::Point::new(f64::from(second), Some(200 * MIB), |_| None);
        history.push(point.with_unwritten(dirty.or(Some(0))));
    }
    let read = Reading { age_s: 0.5, active_file: Some(0), inactive_file: Some(500 * MIB), ..Reading::default() };
    let place =
        |path: &str, parent| Place { path: path.into(), parent, read: Some(read.clone()), history: history.clone(), ..Place::default() };
    KillFacts {
        warning: None,
        kill,
        victims: Vec::new(),
        time: String::new(),
        at_s: 100.0,
        version: Version::V1,
        page_bytes: PAGE,
        one_node: true,
        trusted: [true; OOM_STATS],
        places: HashMap::from([
            (POD, place("/pod", None)),
            (WEB, place("/pod/web", Some(POD))),
            (OLD, place("/pod/c0", Some(POD))),
            (OTHER_POD, place("/other", None)),
        ]),
        stacks: Some(Vec::new()),
        evidence: Some(Evidence { cgroups: rows, swept_after_s: 0.02, surveyed_before_s: HashMap::new() }),
        growers: Vec::new(),
        user_stack: None,
        kernel_stack: None,
        victim_stacks: HashMap::new(),
        logged_limit: None,
    }
}

fn ids(autopsy: &Autopsy) -> Vec<(&str, &str)> {
    autopsy.verdicts.iter().map(|verdict| (verdict.cgroup.as_str(), verdict.id.as_str())).collect()
}

#[test]
fn what_a_dead_container_left_is_named_with_its_file() {
    let left = || file("/cache/data", "shmem", 140, 0);
    let rows = |state| vec![(OLD, cgroup("/pod/c0", state, vec![left()])), (OTHER_POD, cgroup("/other", "dead", vec![left()]))];
    let mut facts = facts(&[("anon", 100), ("file", 140), ("shmem", 140)], rows("dead"));
    let dead = |path: &str| crate::report::autopsy::LiveStack {
        cgroup: path.into(),
        state: "dead".into(),
        kind: "shmem".into(),
        live: 140 * MIB,
        ..Default::default()
    };
    facts.stacks = Some(vec![(OLD, dead("/pod/c0")), (OTHER_POD, dead("/other"))]);
    let found = autopsy(&facts);
    assert_eq!(ids(&found), [("/pod/c0", "dead-container-shmem")], "the other pod has another limit");
    assert_eq!(found.files.len(), 1);
    assert_eq!(found.files[0].owner.as_ref().unwrap().cgroup, "/pod/c0");
    let verdict = found.verdict.unwrap();
    assert!(verdict.contains("140.0 MiB is shmem in /cache/data left by a container that died 14 min ago (/pod/c0)"), "{verdict}");
    assert_eq!(found.sources["files"], "frozen picture; dirty and writeback asked 0.020 s after");
    // Of the living it is no verdict, but its file is named.
    facts.stacks = Some(Vec::new());
    facts.evidence.as_mut().unwrap().cgroups = rows("alive");
    let found = autopsy(&facts);
    assert_eq!(ids(&found), []);
    let verdict = found.verdict.unwrap();
    assert!(verdict.contains("140.0 MiB is shmem, 140.0 MiB of it in /cache/data, written by java[7]"), "{verdict}");
}

#[test]
fn what_waits_for_the_disk_is_named_with_its_writer() {
    let kinds = [("anon", 60), ("file", 190), ("file_dirty", 180)];
    let found = autopsy(&facts(&kinds, vec![(WEB, cgroup("/pod/web", "alive", vec![file("/disk.img", "file", 185, 170)]))]));
    // It is page cache that is written from front to back, too.
    assert_eq!(ids(&found), [("/pod", "dirty-writeback"), ("/pod", "log-page-cache")]);
    let text = &found.verdicts[0].text;
    assert!(
        text.starts_with(
            "180.0 MiB of page cache is dirty or under writeback, 70 % of the limit of /pod, about 170.0 MiB of it in /disk.img"
        ),
        "{text}"
    );
    let verdict = found.verdict.unwrap();
    assert!(
        verdict.contains("190.0 MiB is file, 185.0 MiB of it in /disk.img, written by java[7], 170.0 MiB of it not on disk yet"),
        "{verdict}"
    );
    // On disk by then, or for a moment only.
    let clean = [("anon", 60), ("file", 190), ("file_dirty", 20)];
    let of =
        |kinds| vec![(WEB, cgroup("/pod/web", "alive", vec![FileRow { write_pattern: None, ..file("/disk.img", "file", 185, kinds) }]))];
    assert_eq!(ids(&autopsy(&facts(&clean, of(0)))), []);
    let mut burst = facts(&kinds, of(170));
    burst.places.get_mut(&POD).unwrap().history = Default::default();
    assert_eq!(ids(&autopsy(&burst)), []);
}

#[test]
fn a_heap_with_little_page_cache_is_no_log_though_the_last_reading_was_full_of_it() {
    let found =
        autopsy(&facts(&[("anon", 250), ("file", 4)], vec![(WEB, cgroup("/pod/web", "alive", vec![file("/log", "file", 200, 0)]))]));
    assert_eq!(ids(&found), []);
}

#[test]
fn arenas_are_as_they_were_when_last_looked_into() {
    let arena = |free| ArenaRow {
        pid: 30,
        comm: "java".into(),
        arenas: Some(17),
        heaps: 20,
        resident: Some(150 * MIB),
        free: Some(free * MIB),
        looked_through: Some(150 * MIB),
        live: 160 * MIB,
        default_limit: 64,
        ..ArenaRow::default()
    };
    let region = RegionRow { pid: Some(30), comm: "java".into(), class: "glibc-arena".into(), live: 160 * MIB, ..RegionRow::default() };
    let of = |free, surveyed: bool| {
        let row = Cgroup { arenas: vec![arena(free)], regions: vec![region.clone()], ..cgroup("/pod/web", "alive", Vec::new()) };
        let mut facts = facts(&[("anon", 240)], vec![(WEB, row)]);
        if surveyed {
            facts.evidence.as_mut().unwrap().surveyed_before_s = HashMap::from([(WEB, 4.0)]);
        }
        autopsy(&facts)
    };
    let found = of(80, true);
    assert_eq!(ids(&found), [("/pod", "glibc-arenas")]);
    assert_eq!((found.regions[0].before_s, found.regions[0].regions.len()), (4.0, 1));
    let verdict = found.verdict.unwrap();
    assert!(verdict.contains("240.0 MiB is anon, 160.0 MiB of it in 20 glibc heaps of java[30] (as of 4 s before)"), "{verdict}");
    assert_eq!(ids(&of(10, true)), [], "in use");
    let unknown = of(10, false);
    assert!(unknown.regions.is_empty());
    assert_eq!(unknown.sources["regions"], "unknown: no process was looked into before");
}

#[test]
fn figures_that_were_not_flushed_come_from_the_picture() {
    let of = |mib: u64| {
        let kind = |mib: u64| KindRow { live: Some(mib * MIB), baseline: Some(10 * MIB), ..KindRow::default() };
        let row = Cgroup { kinds: [("anon".to_owned(), kind(mib))].into(), ..cgroup("/pod/web", "alive", Vec::new()) };
        vec![(WEB, row.clone()), (OTHER_POD, row)]
    };
    let stale = autopsy(&facts(&[("anon", 20), ("file", 6)], of(230)));
    assert_eq!((stale.before["anon"], stale.before["file"]), (Some(240 << 20), Some(6 << 20)));
    assert_eq!((stale.before["remainder"], stale.sources["before.anon"].as_str()), (Some(10 << 20), source::NOT_FLUSHED));
    let fresh = autopsy(&facts(&[("anon", 250), ("file", 4)], of(230)));
    assert_eq!((fresh.before["anon"], fresh.sources["before.anon"].as_str()), (Some(250 << 20), source::STAT));
    // A picture that explains less than the figures is no better.
    assert_eq!(autopsy(&facts(&[("anon", 200)], of(20))).before["anon"], Some(200 << 20));
}
