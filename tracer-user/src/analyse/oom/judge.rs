//! Which limit it was: the kernel's own words where a probe has them, else worked out from the counters and the stack.

use super::source;
use tracer_common::oom::{LEVEL_LOCKED, OOM_CONTROL, OomKill, OomLevel, UNKNOWN};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// "memcg", "none", "cpuset" or "mempolicy".
    pub constraint: Option<&'static str>,
    /// Where from.
    pub constraint_source: Option<&'static str>,
    /// kernfs id of the cgroup whose limit was met.
    pub limit: Option<u64>,
    /// Where from.
    pub limit_source: Option<&'static str>,
}

/// Charges are for at most eight pages (costly orders never kill), but others may free a little between the failure and the kill.
const SLACK_PAGES: u64 = 1024;
/// Fuller than another by less than this is not fuller.
const SAME_PAGES: u64 = 64;

/// Judges. `kernel_stack` is the trigger's, outermost first, without what marks kernel frames; `None` if it was lost.
#[must_use]
pub fn judge(kill: &OomKill, kernel_stack: Option<&[String]>, one_node: bool) -> Judgement {
    if kill.flags & OOM_CONTROL != 0 {
        return by_control(kill);
    }
    let by_stack = kernel_stack.and_then(memcg_kill);
    let level = limit_level(kill);
    match (by_stack, level) {
        (Some(false), _) => Judgement {
            // Without nodes to choose from there is no other constraint than memory itself.
            constraint: one_node.then_some("none"),
            constraint_source: one_node.then_some(source::STACK),
            ..Judgement::default()
        },
        (by_stack, Some(level)) => Judgement {
            constraint: Some("memcg"),
            constraint_source: Some(if by_stack.is_some() { source::STACK } else { source::COUNTERS }),
            limit: Some(level.cgroup),
            limit_source: Some(source::COUNTERS),
        },
        (Some(true), None) => Judgement { constraint: Some("memcg"), constraint_source: Some(source::STACK), ..Judgement::default() },
        (None, None) => Judgement::default(),
    }
}

fn by_control(kill: &OomKill) -> Judgement {
    // A caller that is ending is served before the constraint is worked out: then the cgroup alone tells.
    let constraint = match (kill.constraint, kill.limit) {
        (_, UNKNOWN) => None,
        (_, 1..) => Some("memcg"),
        (0, 0) => Some("none"),
        (1, 0) => Some("cpuset"),
        (2, 0) => Some("mempolicy"),
        _ => None,
    };
    Judgement {
        constraint,
        constraint_source: constraint.map(|_| source::PROBE),
        limit: Some(kill.limit).filter(|limit| *limit != 0 && *limit != UNKNOWN),
        limit_source: (kill.limit != UNKNOWN).then_some(source::PROBE),
    }
}

/// Whether the stack is that of a kill for a memory cgroup; `None` if it does not tell. What called the killer stands right outside it.
fn memcg_kill(stack: &[String]) -> Option<bool> {
    const MEMCG: [&str; 5] = ["mem_cgroup_out_of_memory", "mem_cgroup_oom", "try_charge", "try_charge_memcg", "mem_cgroup_oom_synchronize"];
    const GLOBAL: [&str; 6] = [
        "__alloc_pages_may_oom",
        "__alloc_pages_slowpath",
        "__alloc_frozen_pages",
        "__alloc_pages",
        "pagefault_out_of_memory",
        "moom_callback",
    ];
    let at = stack.iter().rposition(|frame| is(frame, "out_of_memory") || is(frame, "oom_kill_process"))?;
    stack[..=at].iter().rev().find_map(|frame| {
        if MEMCG.iter().any(|name| is(frame, name)) {
            Some(true)
        } else if GLOBAL.iter().any(|name| is(frame, name)) {
            Some(false)
        } else {
            None
        }
    })
}

/// Whether the frame is that function, or a part that the compiler made of it (`.part.0`, `.constprop.0`).
fn is(frame: &str, name: &str) -> bool {
    let frame = frame.strip_suffix("_[k]").unwrap_or(frame);
    frame == name || frame.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// The level that was full. A charge fails at the innermost level without room, so of those that are full alike the innermost counts.
fn limit_level(kill: &OomKill) -> Option<&OomLevel> {
    let levels = kill.levels.get(..kill.level_count as usize)?;
    // The limit is above both: the victim is chosen below it, and the charge failed on the way up.
    let shared: Vec<&OomLevel> =
        levels.iter().filter(|level| kill.trigger_levels.contains(&level.cgroup) && slack(level).is_some()).collect();
    let full = |level: &&&OomLevel| slack(level).is_some_and(|slack| slack <= SLACK_PAGES.max(level.max / 50));
    // v1 locks the limit's cgroup and everything below it: the outermost locked one, if it is full.
    let locked = shared.iter().rfind(|level| level.flags & LEVEL_LOCKED != 0).filter(full);
    let fullest = || shared.iter().filter(full).min_by_key(|level| slack(level).map(|slack| slack / SAME_PAGES));
    locked.or_else(fullest).copied()
}

/// Pages below the limit; `None` without one.
fn slack(level: &OomLevel) -> Option<u64> {
    super::figures::limit_pages(level).filter(|_| level.usage != UNKNOWN).map(|max| max.saturating_sub(level.usage))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "judge_tests.rs"]
mod tests;
