use super::*;
use crate::cgroup::history::{History, Point};
use crate::{
    analyse::oom::facts::{Place, Warning},
    cgroup::Version,
    report::autopsy::Growth,
};
use tracer_common::oom::{OOM_KILL, OOM_LEVELS, OOM_VICTIM, UNKNOWN};
use tracer_common::oom::{OOM_STATS, OomKill, OomTask};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const NO_LIMIT: u64 = i64::MAX as u64 / PAGE;
/// The pod, its containers and the root.
const ROOT: u64 = 1;
const POD: u64 = 10;
const WEB: u64 = 11;
const OLD: u64 = 12;

fn level(cgroup: u64, usage: u64, max: u64) -> OomLevel {
    let mut stats = [UNKNOWN; OOM_STATS];
    // anon, file with shmem, shmem
    stats[..3].copy_from_slice(&[usage / 2, usage * 3 / 8, usage / 4]);
    OomLevel {
        cgroup,
        usage,
        max,
        failcnt: 7,
        swap: usage,
        kernel: usage / 16,
        sockets: 0,
        oom_events: 1,
        limit_events: 0,
        flags: 0,
        depth: u32::from(cgroup != ROOT),
        stats,
    }
}

fn task(tgid: u32, name: &[u8], cgroup: u64) -> OomTask {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    OomTask { process: u64::from(tgid), cgroup, tgid, tid: tgid, comm }
}

fn victim(tgid: u32, name: &[u8]) -> OomVictim {
    OomVictim {
        event: OOM_VICTIM,
        score_adj: 100,
        number: 1,
        at_ns: 0,
        task: task(tgid, name, WEB),
        anon: 100,
        file: 20,
        shmem: 5,
        swap: UNKNOWN,
        pagetables: 8192,
        total_vm: 1000,
        kernel_stack: 5,
    }
}

fn row(owner: &str, state: &str, kind: &str, live: u64) -> LiveStack {
    LiveStack {
        cgroup: owner.into(),
        state: state.into(),
        kind: kind.into(),
        pid: Some(30),
        comm: "java".into(),
        status: "complete".into(),
        frames: ["_start", "fill", "handle_mm_fault_[k]"].map(str::to_owned).into(),
        live,
        live_stderr: 0,
        young: [live, live, live],
    }
}

fn place(path: &str, parent: u64) -> Place {
    let mut history = History::default();
    for second in 0..100 {
        history.push(Point::new(f64::from(second), Some(u64::from(second as u32) * MIB), |_| None));
    }
    Place { path: path.into(), parent: (parent != 0).then_some(parent), history, ..Place::default() }
}

/// A container in a pod whose limit of 256 MiB is met after 100 s; a container that died left shmem.
fn facts() -> KillFacts {
    let mut levels = [level(0, 0, 0); OOM_LEVELS];
    levels[0] = level(WEB, 20_000, 200_000);
    levels[1] = level(POD, 65_536, 65_536);
    levels[2] = level(ROOT, 900_000, NO_LIMIT);
    let mut trigger_levels = [0; OOM_LEVELS];
    trigger_levels[..3].copy_from_slice(&[WEB, POD, ROOT]);
    let kill = OomKill {
        event: OOM_KILL,
        flags: 0,
        number: 1,
        at_ns: 0,
        epoch: 3,
        limit: UNKNOWN,
        total_pages: UNKNOWN,
        constraint: u32::MAX,
        order: u32::MAX,
        gfp_mask: u32::MAX,
        level_count: 3,
        trigger: task(30, b"java", WEB),
        user_stack: 0,
        kernel_stack: 5,
        trigger_levels,
        levels,
    };
    let stack: Vec<String> =
        ["try_charge_memcg", "mem_cgroup_out_of_memory", "out_of_memory", "__oom_kill_process"].map(str::to_owned).into();
    let mut old = place("/pod/old", POD);
    old.dead = true;
    KillFacts {
        warning: None,
        kill,
        victims: vec![victim(30, b"java")],
        time: "2026-03-01T02:04:00Z".into(),
        at_s: 100.0,
        version: Version::V1,
        page_bytes: PAGE,
        one_node: true,
        trusted: [true; OOM_STATS],
        places: HashMap::from([
            (ROOT, place("/", 0)),
            (POD, place("/pod", ROOT)),
            (WEB, place("/pod/web", POD)),
            (OLD, old),
            (99, place("/elsewhere", ROOT)),
        ]),
        stacks: Some(vec![
            (WEB, row("/pod/web", "alive", "anon", 70 * MIB)),
            (OLD, row("/pod/old", "dead", "shmem", 40 * MIB)),
            (99, row("/elsewhere", "alive", "anon", 900 * MIB)),
        ]),
        evidence: None,
        growers: Vec::new(),
        user_stack: None,
        kernel_stack: Some(stack.clone()),
        victim_stacks: HashMap::from([(5, stack)]),
        logged_limit: None,
    }
}

#[test]
fn limit_kinds_and_victim_are_those_of_the_kill() {
    let found = autopsy(&facts());
    assert_eq!((found.constraint.as_deref(), found.limit_cgroup.as_deref()), (Some("memcg"), Some("/pod")));
    assert_eq!((found.limit_bytes, found.usage_bytes, found.failcnt), (Some(256 * MIB), Some(256 * MIB), Some(7)));
    assert_eq!(found.before["anon"], Some(128 << 20));
    assert_eq!(found.before["file"], Some(32 << 20));
    let sum: i64 = found.before.iter().filter(|(kind, _)| !matches!(kind.as_str(), "swap" | "sock")).map(|(_, bytes)| bytes.unwrap()).sum();
    assert_eq!(sum, 256 << 20);
    let victim = &found.victims[0];
    assert_eq!((victim.pid, victim.anon, victim.swap, victim.pagetables), (Some(30), Some(100 * PAGE), None, Some(8192)));
    assert_eq!((victim.cgroup.as_deref(), victim.already_ending), (Some("/pod/web"), Some(false)));
    assert_eq!((found.order, found.gfp_mask, found.group_kill), (None, None, Some(false)), "no probe gave them");
}

#[test]
fn only_what_is_below_the_limit_counts() {
    let found = autopsy(&facts());
    assert_eq!(found.stacks.iter().map(|row| row.cgroup.as_str()).collect::<Vec<_>>(), ["/pod/web", "/pod/old"]);
    let siblings: Vec<_> = found.siblings.iter().map(|s| (s.cgroup.as_str(), s.usage_bytes, s.source.as_str())).collect();
    assert_eq!(
        siblings,
        [("/pod/web", Some(20_000 * PAGE), source::PROBE), ("/pod/old", Some(40 * MIB), source::PICTURE)],
        "the victim's branch as of the kill, the dead as the picture has it"
    );
}

#[test]
fn growth_is_over_as_long_as_was_recorded() {
    let found = autopsy(&facts());
    let usage: Vec<_> =
        found.growth.iter().filter(|row| row.cgroup == "/pod" && row.kind == "usage").map(|row| (row.window_s, row.bytes)).collect();
    // After 100 s: the last minute whole, and instead of five the 100 s that there are. 15 minutes would say the same.
    assert_eq!(usage, [(60.0, (256 - 40) << 20), (100.0, 256 << 20)]);
    let last = found.series.last().unwrap();
    assert_eq!((last.before_s, last.usage_bytes), (0.0, Some(256 * MIB)));
    assert!(found.series.is_sorted_by(|a, b| a.before_s > b.before_s));
}

#[test]
fn the_sentence_names_what_filled_the_limit() {
    assert_eq!(
        autopsy(&facts()).verdict.unwrap(),
        "java[30] was killed because the cgroup above it /pod was at its limit (256.0 of 256.0 MiB): 128.0 MiB is anon, 70.0 MiB of it by \
         java[30] through fill; /pod/web grew by 38.1 MiB in 1 min"
    );
    let mut facts = facts();
    if let Some(stacks) = &mut facts.stacks {
        stacks[1].1.live = 100 * MIB;
    }
    facts.kill.trigger = task(31, b"sh", WEB);
    facts.victims.push(victim(32, b"b"));
    let verdict = autopsy(&facts).verdict.unwrap();
    assert!(verdict.starts_with("java[30] and one other were killed because"), "{verdict}");
    assert!(
        verdict.contains("100.0 MiB is shmem left by the removed cgroup /pod/old; java[30] used 400.0 KiB of its own; the allocation that failed was sh[31]'s"),
        "{verdict}"
    );
}

/// What fills a host may have grown long before, and is seldom in the victim's cgroup.
#[test]
fn a_kill_of_the_host_is_told_of_all_of_it() {
    let mut facts = facts();
    facts.kill = OomKill { flags: OOM_CONTROL, limit: 0, constraint: 0, ..facts.kill };
    let grew = |id, path: &str, window_s, mib: i64| {
        (id, Growth { cgroup: path.into(), kind: growth::OWN.into(), window_s, bytes: mib << 20, ..Growth::default() })
    };
    facts.growers = vec![grew(WEB, "/pod/web", 60.0, 30), grew(WEB, "/pod/web", 100.0, 35), grew(99, "/elsewhere", 100.0, 90)];
    let found = autopsy(&facts);
    assert_eq!((found.constraint.as_deref(), found.limit_cgroup.as_deref()), (Some("none"), None));
    assert_eq!(found.stacks[0].cgroup, "/elsewhere");
    let verdict = found.verdict.as_deref().unwrap();
    assert!(verdict.contains("was killed because the host was out of memory"), "{verdict}");
    assert!(verdict.ends_with("; /elsewhere grew by 90.0 MiB in 1 min 40 s"), "{verdict}");
    let text = crate::output::autopsy::render(&found);
    let grew: Vec<&str> = text.lines().map(str::trim).filter(|line| line.contains(" usage of ") || line.contains(" for itself")).collect();
    assert!(grew.iter().any(|line| line.contains("+90.0 MiB in 1 min 40 s  /elsewhere for itself")), "{grew:?}");
    assert!(grew.iter().enumerate().all(|(at, line)| !grew[..at].contains(line)), "nothing twice: {grew:?}");
}

#[test]
fn what_is_not_known_is_null_and_said() {
    let mut facts = facts();
    facts.kernel_stack = None;
    facts.kill.levels[1].usage = 1000;
    facts.stacks = None;
    facts.victims.clear();
    facts.kill.flags = OOM_NOT_FROZEN;
    let found = autopsy(&facts);
    assert_eq!((found.constraint, found.limit_cgroup, found.usage_bytes, found.group_kill), (None, None, None, None));
    assert_eq!(found.picture, "not frozen: as many as there can be were open");
    assert_eq!(
        found.verdict.unwrap(),
        "a process of which no event arrived was killed; at which limit could not be told; the allocation that failed was java[30]'s"
    );
    assert!(found.before.is_empty() && found.siblings.is_empty() && found.series.is_empty());
}

#[test]
fn the_kernels_log_is_the_last_resort_and_is_named() {
    let mut facts = facts();
    facts.kill.levels[1].usage = 1000;
    facts.logged_limit = Some("/pod".into());
    let found = autopsy(&facts);
    assert_eq!((found.limit_cgroup.as_deref(), found.limit_bytes), (Some("/pod"), None));
    assert_eq!(found.sources["limit_cgroup"], source::LOG);
}

#[test]
fn a_marking_without_a_kill_is_told_apart() {
    let mut facts = facts();
    facts.victim_stacks.insert(5, ["mem_cgroup_out_of_memory", "out_of_memory", "mark_oom_victim"].map(str::to_owned).into());
    let found = autopsy(&facts);
    assert_eq!(found.victims[0].already_ending, Some(true));
    assert!(found.verdict.unwrap().starts_with("java[30] was ending already"));
}

#[test]
fn a_warning_has_no_victim_and_says_whence() {
    let mut facts = facts();
    facts.warning = Some(Warning::Share(0.9));
    facts.kill.flags = OOM_CONTROL;
    facts.kill.limit = POD;
    facts.victims.clear();
    let found = autopsy(&facts);
    assert_eq!((found.event.as_str(), found.trigger.is_none(), found.picture.as_str()), ("warning", true, "live"));
    assert!(found.verdict.as_deref().unwrap().starts_with("/pod holds 256.0 of 256.0 MiB, over 90 % of its limit: 128.0 MiB is anon"));
    assert_eq!(found.sources["usage_bytes"], source::NOW);
}

#[test]
fn warnings_of_what_comes_and_of_tasks_that_wait() {
    let mut facts = facts();
    facts.kill.flags = OOM_CONTROL;
    facts.kill.limit = POD;
    facts.victims.clear();
    let mut said = |warning| {
        facts.warning = Some(warning);
        autopsy(&facts).verdict.unwrap()
    };
    let within = said(Warning::Within(95.0));
    assert!(within.starts_with("/pod holds 256.0 of 256.0 MiB, and reaches its limit in 1 min 35 s if it goes on so: "), "{within}");
    let waiting = said(Warning::Waiting);
    assert!(
        waiting.starts_with("/pod is at its limit (256.0 of 256.0 MiB), and killing is off there (memory.oom_control): its tasks wait"),
        "{waiting}"
    );
}

#[test]
fn growth_is_by_kind_by_cgroup_and_by_stack() {
    let mut facts = facts();
    let grown = |path: &str| Growth { cgroup: path.into(), kind: "own".into(), window_s: 60.0, bytes: 9 << 20, ..Growth::default() };
    facts.growers = vec![(WEB, grown("/pod/web")), (99, grown("/elsewhere"))];
    let found = autopsy(&facts);
    let own: Vec<&str> = found.growth.iter().filter(|row| row.kind == "own").map(|row| row.cgroup.as_str()).collect();
    assert_eq!(own, ["/pod/web"], "below the limit");
    let stacks: Vec<_> =
        found.growth.iter().filter(|row| row.frames.is_some()).map(|row| (row.window_s, row.bytes >> 20, row.pid)).collect();
    assert_eq!(stacks, [(60.0, 70, Some(30)), (60.0, 40, Some(30)), (100.0, 70, Some(30)), (100.0, 40, Some(30))]);
}

#[test]
fn an_autopsy_survives_the_report() {
    let found = autopsy(&facts());
    let stored = serde_json::to_value(&found).unwrap();
    assert_eq!(serde_json::from_value::<Autopsy>(stored).unwrap(), found);
    assert!(serde_json::from_value::<Autopsy>(serde_json::json!({"victims": 3})).is_err());
    assert_eq!(serde_json::from_value::<Autopsy>(serde_json::json!({})).unwrap(), Autopsy::default(), "an older one has fewer fields");
}
