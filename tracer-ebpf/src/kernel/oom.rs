//! What a memory cgroup and a task's memory looked like when the OOM killer ran.

use super::{read, read_pointer};
use crate::{
    globals::{layout, stat_offset},
    maps::OOM_RECORD,
};
use tracer_common::oom::{LEVEL_GROUP, LEVEL_KILL_DISABLED, LEVEL_LOCKED, LEVEL_UNDER_OOM, OOM_LEVELS, OOM_STATS, UNKNOWN};

/// A word, or [`UNKNOWN`].
#[inline(always)]
pub fn word(address: u64, offset: Option<u64>) -> u64 {
    read::<u64>(address, offset).unwrap_or(UNKNOWN)
}

/// The `struct mem_cgroup` of a task; 0 if it cannot be read.
#[inline(always)]
pub fn memcg_of(task: u64) -> u64 {
    let Some(sets) = read_pointer(task, layout!(task_cgroups)) else { return 0 };
    let (Some(subsys), Some(number), Some(css)) = (layout!(css_set_subsys), layout!(memory_cgrp_id), layout!(memcg_css)) else { return 0 };
    match read_pointer(sets + subsys, Some(number * 8)) {
        Some(state) => state - css,
        None => 0,
    }
}

/// The memory cgroup above; 0 for none.
#[inline(always)]
pub fn parent(memcg: u64) -> u64 {
    let Some(css) = layout!(memcg_css) else { return 0 };
    match read_pointer(memcg + css, layout!(css_parent)) {
        Some(state) => state - css,
        None => 0,
    }
}

/// OOM events counted by a cgroup; 0 if it cannot be read.
#[inline(always)]
pub fn oom_events(memcg: u64) -> u64 {
    match (layout!(memcg_memory_events), layout!(memcg_oom_event)) {
        (Some(events), Some(oom)) => read::<u64>(memcg, Some(events + oom * 8)).unwrap_or(0),
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
    if read::<u8>(memcg, offset).unwrap_or(0) != 0 { bit } else { 0 }
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
    level.cgroup = super::memcg::id(memcg).unwrap_or(UNKNOWN);
    level.usage = counter(memcg, layout!(memcg_memory), layout!(counter_usage));
    level.max = counter(memcg, layout!(memcg_memory), layout!(counter_max));
    level.failcnt = counter(memcg, layout!(memcg_memory), layout!(counter_failcnt));
    level.swap = counter(memcg, layout!(memcg_swap), layout!(counter_usage));
    level.kernel = counter(memcg, layout!(memcg_kmem), layout!(counter_usage));
    level.sockets = counter(memcg, layout!(memcg_tcpmem), layout!(counter_usage));
    level.oom_events = oom_events(memcg);
    level.flags = flag(memcg, layout!(memcg_oom_group), LEVEL_GROUP)
        | flag(memcg, layout!(memcg_oom_lock), LEVEL_LOCKED)
        | flag(memcg, layout!(memcg_under_oom), LEVEL_UNDER_OOM)
        | flag(memcg, layout!(memcg_oom_kill_disable), LEVEL_KILL_DISABLED);
    let cgroup = match layout!(memcg_css) {
        Some(css) => read_pointer(memcg + css, layout!(css_cgroup)).unwrap_or(0),
        None => 0,
    };
    level.depth = read::<u32>(cgroup, layout!(cgroup_level)).unwrap_or(u32::MAX);
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
    if inline { memcg + member } else { read_pointer(memcg, Some(member)).unwrap_or(0) }
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
    let pages = read::<i64>(mm + member, Some(offset)).unwrap_or(-1);
    // Below zero for a moment, which the kernel reads as none; unreadable is told by the same number that no process can have.
    if pages < 0 { 0 } else { pages as u64 }
}
