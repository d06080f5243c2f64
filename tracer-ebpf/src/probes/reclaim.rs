//! Waits for memory: reclaim of memory cgroups (`vmscan:mm_vmscan_memcg_reclaim_begin` and `_end`, on every tier), and on fentry and kprobe
//! what it costs a charge, and what `memory.high` costs a task.
//!
//! Nothing is timed until a task really waits. A charge that needs no reclaim pays for a look at one word.

use crate::{
    atomic,
    attribute::{commit, control, followed},
    globals::layout,
    histogram,
    kernel::{memcg, read},
    loss,
    maps::{HIGH_CALLS, RECLAIMS, STALLED, STALLS},
    values::{Stall, Wait},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns};
use tracer_common::{histogram::Metric, loss::Loss, oom::UNKNOWN};

/// Whose waits the current task's are; 0 if they are not wanted. The cgroup that is reclaimed may be one above.
#[inline(always)]
pub(super) fn waiter() -> u64 {
    if control().is_none() || !followed::wants(0) {
        return 0;
    }
    // SAFETY: plain helper.
    let owner = memcg::id_of_task(unsafe { bpf_get_current_task() });
    if owner == UNKNOWN || commit::refused(owner) { 0 } else { owner }
}

/// A reclaim begins.
#[inline(always)]
pub fn began() {
    let owner = waiter();
    if owner == 0 {
        return;
    }
    // SAFETY: plain helper.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    let (thread, wait) = (bpf_get_current_pid_tgid(), Wait { owner, since_ns });
    if let Err(error) = RECLAIMS.insert(thread, wait, 0) {
        loss::count(loss::of_insert(error, Loss::StallTableFull), 0);
        return;
    }
    let Some(control) = control() else { return };
    if control.charge_stalls != 0 && STALLS.get_ptr(thread).is_none() {
        open_stall(thread, wait);
    }
}

/// A reclaim ends.
#[inline(always)]
pub fn ended() {
    let thread = bpf_get_current_pid_tgid();
    let Some(wait) = RECLAIMS.get_ptr(thread) else { return };
    // SAFETY: this thread's own entry, and a plain helper.
    let (owner, waited_ns) = unsafe { ((*wait).owner, bpf_ktime_get_ns().wrapping_sub((*wait).since_ns)) };
    let _ = RECLAIMS.remove(thread);
    histogram::add(owner, Metric::ReclaimNs, waited_ns);
    if let Some(stall) = STALLS.get_ptr_mut(thread) {
        // SAFETY: this thread's own entry.
        unsafe { (*stall).reclaim_ns += waited_ns };
    }
}

/// `mem_cgroup_charge` is called. What stands here is of a reclaim outside it (kernel memory, `memory.high`).
#[inline(always)]
pub fn charge_entered() {
    if stalled() {
        close_stall(bpf_get_current_pid_tgid());
    }
}

/// `mem_cgroup_charge` returns.
#[inline(always)]
pub fn charge_returned() {
    if !stalled() {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    let Some(stall) = STALLS.get_ptr(thread) else { return };
    // SAFETY: this thread's own entry, and a plain helper.
    let (owner, reclaim_ns, oom, stalled_ns) = unsafe {
        let wait = &(*stall).wait;
        (wait.owner, (*stall).reclaim_ns, (*stall).oom, bpf_ktime_get_ns().wrapping_sub(wait.since_ns))
    };
    close_stall(thread);
    histogram::add(owner, Metric::ChargeStallNs, stalled_ns);
    if oom != 0 {
        histogram::add(owner, Metric::ChargeOomNs, stalled_ns.saturating_sub(reclaim_ns));
    }
}

/// The current task runs the OOM killer.
#[inline(always)]
pub fn oom_began() {
    if let Some(stall) = STALLS.get_ptr_mut(bpf_get_current_pid_tgid()) {
        // SAFETY: this thread's own entry.
        unsafe { (*stall).oom = 1 };
    }
}

/// `mem_cgroup_handle_over_high` is called; before 6.5 also when there is nothing to do.
#[inline(always)]
pub fn high_entered() {
    // SAFETY: plain helper.
    let task = unsafe { bpf_get_current_task() };
    if read::<u32>(task, layout!(task_over_high)).unwrap_or(0) == 0 {
        return;
    }
    let owner = waiter();
    if owner == 0 {
        return;
    }
    // SAFETY: plain helper.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    if let Err(error) = HIGH_CALLS.insert(bpf_get_current_pid_tgid(), Wait { owner, since_ns }, 0) {
        loss::count(loss::of_insert(error, Loss::StallTableFull), 0);
    }
}

/// `mem_cgroup_handle_over_high` returns.
#[inline(always)]
pub fn high_returned() {
    let thread = bpf_get_current_pid_tgid();
    let Some(wait) = HIGH_CALLS.get_ptr(thread) else { return };
    // SAFETY: this thread's own entry, and a plain helper.
    let (owner, waited_ns) = unsafe { ((*wait).owner, bpf_ktime_get_ns().wrapping_sub((*wait).since_ns)) };
    let _ = HIGH_CALLS.remove(thread);
    histogram::add(owner, Metric::HighThrottleNs, waited_ns);
}

/// The current thread exits: nothing of it may stay. What its next charge would have removed, and calls whose return was missed.
#[inline(always)]
pub fn exited() {
    let thread = bpf_get_current_pid_tgid();
    if stalled() {
        close_stall(thread);
    }
    let _ = RECLAIMS.remove(thread);
    let _ = HIGH_CALLS.remove(thread);
}

/// Whether any thread is in a stall, or was in a reclaim outside charges and has not charged since.
#[inline(always)]
fn stalled() -> bool {
    match STALLED.get(0) {
        Some(stalled) => *stalled != 0,
        None => false,
    }
}

#[inline(always)]
fn open_stall(thread: u64, wait: Wait) {
    if let Err(error) = STALLS.insert(thread, Stall { wait, reclaim_ns: 0, oom: 0 }, 0) {
        loss::count(loss::of_insert(error, Loss::StallTableFull), 0);
        return;
    }
    if let Some(stalled) = STALLED.get_ptr_mut(0) {
        // SAFETY: a map value.
        unsafe { atomic::add(stalled, 1) };
    }
}

#[inline(always)]
fn close_stall(thread: u64) {
    if STALLS.remove(thread).is_ok()
        && let Some(stalled) = STALLED.get_ptr_mut(0)
    {
        // SAFETY: a map value.
        unsafe { atomic::subtract(stalled, 1) };
    }
}
