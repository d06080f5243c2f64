use super::*;
use tracer_common::oom::{OOM_KILL, OOM_LEVELS, OOM_STATS, OomTask};

const NO_LIMIT: u64 = i64::MAX as u64 / 4096;

fn level(cgroup: u64, usage: u64, max: u64, flags: u32) -> OomLevel {
    OomLevel {
        cgroup,
        usage,
        max,
        failcnt: 0,
        swap: UNKNOWN,
        kernel: UNKNOWN,
        sockets: UNKNOWN,
        oom_events: 0,
        limit_events: 0,
        flags,
        depth: 0,
        stats: [UNKNOWN; OOM_STATS],
    }
}

/// A kill whose victim has these levels, innermost first, and whose trigger lies in those with these ids.
fn kill(levels: &[OomLevel], trigger: &[u64]) -> OomKill {
    let task = OomTask { process: 0, cgroup: 0, tgid: 1, tid: 1, comm: [0; 16] };
    let mut kill = OomKill {
        event: OOM_KILL,
        flags: 0,
        number: 1,
        at_ns: 0,
        epoch: UNKNOWN,
        limit: UNKNOWN,
        total_pages: UNKNOWN,
        constraint: u32::MAX,
        order: u32::MAX,
        gfp_mask: u32::MAX,
        level_count: levels.len() as u32,
        trigger: task,
        user_stack: 0,
        kernel_stack: 0,
        trigger_levels: [0; OOM_LEVELS],
        levels: [level(0, 0, 0, 0); OOM_LEVELS],
    };
    kill.levels[..levels.len()].copy_from_slice(levels);
    kill.trigger_levels[..trigger.len()].copy_from_slice(trigger);
    kill
}

fn stack(frames: &[&str]) -> Vec<String> {
    frames.iter().map(|frame| (*frame).to_owned()).collect()
}

fn memcg_stack() -> Vec<String> {
    stack(&[
        "asm_exc_page_fault_[k]",
        "handle_mm_fault_[k]",
        "__mem_cgroup_charge_[k]",
        "try_charge_memcg_[k]",
        "mem_cgroup_out_of_memory_[k]",
        "out_of_memory_[k]",
        "oom_kill_process_[k]",
        "__oom_kill_process_[k]",
        "mark_oom_victim_[k]",
    ])
}

#[test]
fn the_kernels_own_words_are_taken_where_a_probe_has_them() {
    let full = level(5, 100, 100, 0);
    let mut kill = OomKill { flags: OOM_CONTROL, limit: 9, constraint: 3, ..kill(&[full], &[5]) };
    let found = judge(&kill, None, true);
    assert_eq!((found.constraint, found.limit, found.limit_source), (Some("memcg"), Some(9), Some(source::PROBE)));
    for (constraint, name) in [(0, "none"), (1, "cpuset"), (2, "mempolicy")] {
        kill.constraint = constraint;
        kill.limit = 0;
        let found = judge(&kill, Some(&memcg_stack()), false);
        assert_eq!((found.constraint, found.limit), (Some(name), None));
    }
    // A caller that was ending: the constraint was not worked out yet.
    kill.constraint = 0;
    kill.limit = 7;
    assert_eq!(judge(&kill, None, true).constraint, Some("memcg"));
    kill.limit = UNKNOWN;
    assert_eq!(judge(&kill, None, true), Judgement::default());
}

#[test]
fn the_full_level_is_found_wherever_it_lies() {
    let root = level(1, 500_000, NO_LIMIT, 0);
    for at in 0..3 {
        let mut levels = [level(4, 10_000, 20_000, 0), level(3, 30_000, 60_000, 0), level(2, 50_000, 90_000, 0), root];
        levels[at].max = levels[at].usage + 1;
        let found = judge(&kill(&levels, &[4, 3, 2, 1]), Some(&memcg_stack()), true);
        assert_eq!((found.limit, found.limit_source), (Some(levels[at].cgroup), Some(source::COUNTERS)), "{at}");
        assert_eq!((found.constraint, found.constraint_source), (Some("memcg"), Some(source::STACK)));
    }
}

#[test]
fn of_two_full_levels_the_charge_failed_at_the_inner_one_unless_v1_says_else() {
    let levels = [level(3, 1000, 1000, 0), level(2, 1000, 1001, 0), level(1, 5000, NO_LIMIT, 0)];
    assert_eq!(judge(&kill(&levels, &[3, 2, 1]), None, true).limit, Some(3));
    let locked = [level(3, 1000, 1000, LEVEL_LOCKED), level(2, 1000, 1001, LEVEL_LOCKED), level(1, 5000, NO_LIMIT, 0)];
    assert_eq!(judge(&kill(&locked, &[3, 2, 1]), None, true).limit, Some(2));
}

#[test]
fn a_full_level_that_the_trigger_is_not_in_is_not_the_limit() {
    // The victim's own container is full, but the charge that failed was made by its neighbour in the pod.
    let levels = [level(4, 1000, 1000, 0), level(2, 3000, 3000, 0), level(1, 9000, NO_LIMIT, 0)];
    assert_eq!(judge(&kill(&levels, &[5, 2, 1]), Some(&memcg_stack()), true).limit, Some(2));
}

#[test]
fn a_global_kill_is_none_though_a_level_is_full() {
    let levels = [level(4, 1000, 1000, 0), level(1, 9000, NO_LIMIT, 0)];
    let global = stack(&["handle_mm_fault_[k]", "__alloc_pages_slowpath.constprop.0_[k]", "out_of_memory_[k]", "oom_kill_process_[k]"]);
    let found = judge(&kill(&levels, &[4, 1]), Some(&global), true);
    assert_eq!((found.constraint, found.limit), (Some("none"), None));
    // With several nodes it may have been a cpuset or a policy.
    assert_eq!(judge(&kill(&levels, &[4, 1]), Some(&global), false).constraint, None);
}

#[test]
fn what_cannot_be_known_stays_unknown() {
    let levels = [level(4, 1000, 100_000, 0), level(1, 9000, NO_LIMIT, 0)];
    let found = judge(&kill(&levels, &[4, 1]), Some(&memcg_stack()), true);
    assert_eq!((found.constraint, found.limit), (Some("memcg"), None), "no level is full");
    assert_eq!(judge(&kill(&levels, &[4, 1]), None, true), Judgement::default());
    // Numbers from a ring are not trusted.
    let mut broken = kill(&levels, &[4, 1]);
    broken.level_count = 1000;
    assert_eq!(judge(&broken, None, true), Judgement::default());
}
