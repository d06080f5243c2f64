//! What a memory cgroup and a task's memory looked like when the OOM killer ran.

use super::{memcg, pointer, word};
use crate::{
    globals::{layout, stat_offset},
    maps::OOM_RECORD,
};
use tracer_common::oom::{LEVEL_GROUP, LEVEL_KILL_DISABLED, LEVEL_LOCKED, LEVEL_UNDER_OOM, OOM_LEVELS, OOM_STATS, UNKNOWN};

/// OOM events counted by a cgroup; 0 if it cannot be read.
#[inline(always)]
pub fn oom_events(memcg: u64) -> u64 {
    events(memcg, layout!(memcg_oom_event))
}

/// Events of that number; 0 if they cannot be read.
#[inline(always)]
fn events(memcg: u64, number: Option<u64>) -> u64 {
    match (layout!(memcg_memory_events), number) {
        (Some(events), Some(number)) => pointer(memcg, Some(events + number * 8)),
        _ => 0,
    }
}

/// Reads a member of a counter that is a member of a memory cgroup.
#[inline(always)]
fn counter(memcg: u64, counter: Option<u64>, member: Option<u64>) -> u64 {
    match (counter, member) {
        (Some(counter), Some(member)) => word(memcg, Some(counter + member)),
        _ => UNKNOWN,
    }
}

#[inline(always)]
fn flag(memcg: u64, offset: Option<u64>, bit: u32) -> u32 {
    // Their low bytes: each is a bool or a small number.
    let value = word(memcg, offset);
    if value == UNKNOWN || value & 0xff == 0 { 0 } else { bit }
}

/// Fills one level of the record from the cgroup at `memcg`.
///
/// A global function, so that it is verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fill_level(memcg: u64, record: u64, index: u64) -> u64 {
    let Some(record) = OOM_RECORD.get_ptr_mut(record as u32) else { return 0 };
    // SAFETY: a map value; the OOM lock lets one task in at a time, and the tracer has a record of its own. The index is masked.
    let level = unsafe { &mut (*record).levels[index as usize & (OOM_LEVELS - 1)] };
    level.cgroup = memcg::id(memcg);
    level.usage = counter(memcg, layout!(memcg_memory), layout!(counter_usage));
    level.max = counter(memcg, layout!(memcg_memory), layout!(counter_max));
    level.failcnt = counter(memcg, layout!(memcg_memory), layout!(counter_failcnt));
    level.swap = counter(memcg, layout!(memcg_swap), layout!(counter_usage));
    level.kernel = counter(memcg, layout!(memcg_kmem), layout!(counter_usage));
    level.sockets = counter(memcg, layout!(memcg_tcpmem), layout!(counter_usage));
    level.oom_events = oom_events(memcg);
    level.limit_events = events(memcg, layout!(memcg_max_event));
    level.flags = flag(memcg, layout!(memcg_oom_group), LEVEL_GROUP)
        | flag(memcg, layout!(memcg_oom_lock), LEVEL_LOCKED)
        | flag(memcg, layout!(memcg_under_oom), LEVEL_UNDER_OOM)
        | flag(memcg, layout!(memcg_oom_kill_disable), LEVEL_KILL_DISABLED);
    let cgroup = memcg::cgroup(memcg);
    level.depth = if cgroup == 0 { u32::MAX } else { word(cgroup, layout!(cgroup_level)) as u32 };
    let figures = figures(memcg);
    let mut i = 0;
    while i < OOM_STATS {
        level.stats[i] = if figures == 0 { UNKNOWN } else { word(figures, stat_offset(i)) };
        i += 1;
    }
    0
}

/// Where a cgroup's figures begin; 0 if this kernel keeps them in no known way.
#[inline(always)]
fn figures(memcg: u64) -> u64 {
    let Some(member) = layout!(memcg_vmstats) else { return 0 };
    // In the cgroup itself if there is room for them before the member that follows.
    let inline = match (layout!(memcg_vmstats_size), layout!(memcg_memory_events)) {
        (Some(size), Some(next)) => next >= member + size,
        _ => true,
    };
    if inline { memcg + member } else { pointer(memcg, Some(member)) }
}

/// Resident pages of one kind (`MM_FILEPAGES` 0, `MM_ANONPAGES` 1, `MM_SWAPENTS` 2, `MM_SHMEMPAGES` 3, unchanged since 4.5), without
/// what CPUs and threads keep to themselves for a while, like the kernel's own log.
#[inline(always)]
pub fn resident(mm: u64, kind: u64) -> u64 {
    let Some(member) = layout!(mm_rss_stat) else { return UNKNOWN };
    let offset = match layout!(rss_stat_count) {
        Some(counts) => counts + kind * 8,
        None => match (layout!(percpu_counter_size), layout!(percpu_counter_count)) {
            (Some(size), Some(count)) => kind * size + count,
            _ => return UNKNOWN,
        },
    };
    let pages = word(mm + member, Some(offset));
    // Below zero for a moment, which the kernel reads as none. The number that stands for unknown is such a one: -1.
    if (pages as i64) < -1 { 0 } else { pages }
}
