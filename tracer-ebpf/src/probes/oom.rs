//! The OOM killer picks a victim (`oom:mark_victim`, on every tier): a picture is opened while all of its memory is still there, and what
//! the kernel knew goes to user space. `out_of_memory` (fentry, kprobe) gives the kernel's own reasons; where it cannot be had, user space
//! works them out from the cgroups' counters.
//!
//! Figures are taken at the first victim of a kill, not when the killer is called: by then the kernel has flushed memory.stat for its own
//! log, and the victim still holds everything, since it cannot leave its memory before the marking ends (`task_lock`).

use crate::{
    attribute::{control, stack, stack::Side},
    globals::layout,
    kernel::{memcg, oom, pointer, read, task, word},
    loss,
    maps::{OOM_CALL, OOM_EVENTS, OOM_RECORD, OWNERS},
    probes::{freeze, reclaim},
    scratch::{self, Slot},
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns};
use core::ffi::c_void;
use tracer_common::{
    loss::Loss,
    oom::{
        OOM_CONTROL, OOM_CUT, OOM_EARLY, OOM_KILL, OOM_LEVELS, OOM_NOT_FROZEN, OOM_REFUSED, OOM_VICTIM, OomCall, OomTask, OomVictim,
        UNKNOWN,
    },
    settings::OWNER_REFUSED,
};

const SIGKILL: u32 = 9;
/// Stands for the details of a signal that the kernel itself sends (`SEND_SIG_PRIV`).
const BY_KERNEL: u64 = 1;

/// The record of kills.
const KILLS: u32 = 0;
/// The record of the tracer's own look at itself.
const SELF: u32 = 1;

/// The OOM killer is called with this `struct oom_control`. The OOM lock is held until the call ends.
#[inline(always)]
pub fn called(oom_control: u64) {
    reclaim::oom_began();
    let Some(call) = OOM_CALL.get_ptr_mut(0) else { return };
    // SAFETY: a map value, guarded by the OOM lock. The caller stands last: it makes the rest valid.
    unsafe {
        (*call).control = oom_control;
        (*call).victims = 0;
        (*call).thread = bpf_get_current_pid_tgid();
    }
}

/// A signal is sent. A victim gets its own right before it is marked, by the same task: where the marking tells its thread id alone, this
/// tells whose that is.
#[inline(always)]
pub fn signalled(signal: u32, details: u64, task: u64) {
    if signal != SIGKILL || details != BY_KERNEL {
        return;
    }
    let Some(call) = OOM_CALL.get_ptr_mut(0) else { return };
    // SAFETY: a map value. The kernel may kill elsewhere at the same time: whoever reads compares thread ids.
    unsafe { (*call).signalled = task };
}

/// A victim is marked; the tracepoint's first argument is its task, or its thread id.
#[inline(always)]
pub fn marked(ctx: *mut c_void, argument: u64) {
    let Some(control) = control() else { return };
    let early = control.baseline != 0;
    let Some(call) = OOM_CALL.get_ptr_mut(0) else { return };
    // SAFETY: a map value, guarded by the OOM lock.
    let call = unsafe { &mut *call };
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let _ = scratch::with(Slot::Oom, |scratch| {
        let kernel_stack = stack::record(ctx, Slot::Oom, Side::Kernel, scratch);
        if is_new_kill(call) {
            call.number += 1;
            // SAFETY: plain helper.
            let is_kernel_thread = task::is_kernel_thread(unsafe { bpf_get_current_task() });
            let user_stack = if is_kernel_thread { 0 } else { stack::record(ctx, Slot::Oom, Side::User, scratch) };
            let victim = task_of(call, argument);
            begin(call, victim, now, user_stack, kernel_stack, early);
        }
        let victim = task_of(call, argument);
        call.victims += 1;
        send_victim(call.number, victim, argument, now, kernel_stack);
        // It may end from here on.
        call.signalled = 0;
        Some(())
    });
}

/// The victim's task; 0 where the tracepoint gives its thread id alone and it is neither the caller, nor the one that was sent a signal, nor
/// the one that the caller chose.
#[inline(always)]
fn task_of(call: &OomCall, argument: u64) -> u64 {
    if !by_thread_id() {
        return argument;
    }
    if bpf_get_current_pid_tgid() as u32 == argument as u32 {
        // SAFETY: plain helper.
        return unsafe { bpf_get_current_task() };
    }
    if call.signalled != 0 && word(call.signalled, layout!(task_pid)) as u32 == argument as u32 {
        return call.signalled;
    }
    // Further victims of a group are others than the chosen one.
    if call.control == 0 || call.victims != 0 { 0 } else { pointer(call.control, layout!(oom_chosen)) }
}

/// Whether the tracepoint gives the thread id alone.
#[inline(always)]
fn by_thread_id() -> bool {
    !matches!(layout!(mark_victim_arguments), Some(2))
}

/// Whether this is the first victim of its kill. Without a probe on the killer's call, further victims of a group are told by their
/// caller, who would have counted another OOM event before another kill.
#[inline(always)]
fn is_new_kill(call: &mut OomCall) -> bool {
    let thread = bpf_get_current_pid_tgid();
    let same_caller = call.thread == thread;
    if same_caller && call.control != 0 {
        return call.victims == 0;
    }
    // SAFETY: plain helper.
    let events = count_oom_events(unsafe { bpf_get_current_task() });
    let new = !same_caller || call.oom_events != events || events == 0;
    call.thread = thread;
    call.control = 0;
    call.oom_events = events;
    if new {
        call.victims = 0;
    }
    new
}

/// OOM events of the task's cgroup and those above it.
///
/// Global functions, like the next, so that they are verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_oom_events(task: u64) -> u64 {
    let mut memcg = memcg::of_task(task);
    let mut sum = 0;
    let mut i = 0;
    while i < OOM_LEVELS {
        if memcg == 0 {
            break;
        }
        sum += oom::oom_events(memcg);
        memcg = memcg::parent(memcg);
        i += 1;
    }
    sum
}

/// Fills the victim's levels of a record; their number, with [`CUT`] added if there are more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fill_levels(task: u64, record: u64) -> u64 {
    let mut memcg = memcg::of_task(task);
    let mut i = 0;
    while i < OOM_LEVELS as u64 {
        if memcg == 0 {
            return i;
        }
        oom::fill_level(memcg, record, i);
        memcg = memcg::parent(memcg);
        i += 1;
    }
    if memcg == 0 { i } else { i | CUT }
}

/// See [`fill_levels`].
const CUT: u64 = 1 << 32;

/// Fills the ids of the trigger's levels.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fill_trigger_levels(task: u64, record: u64) -> u64 {
    let Some(record) = OOM_RECORD.get_ptr_mut(record as u32) else { return 0 };
    let mut memcg = memcg::of_task(task);
    let mut i = 0;
    while i < OOM_LEVELS {
        let id = if memcg == 0 { 0 } else { memcg::id(memcg) };
        // SAFETY: a map value, see `fill_level`.
        unsafe { (*record).trigger_levels[i & (OOM_LEVELS - 1)] = id };
        memcg = if memcg == 0 { 0 } else { memcg::parent(memcg) };
        i += 1;
    }
    0
}

/// Opens the picture and sends what is known of the kill.
#[inline(always)]
fn begin(call: &OomCall, victim: u64, now: u64, user_stack: u64, kernel_stack: u64, early: bool) {
    let Some(record) = OOM_RECORD.get_ptr_mut(KILLS) else { return };
    // SAFETY: a map value, guarded by the OOM lock.
    let record = unsafe { &mut *record };
    // SAFETY: plain helper.
    let current = unsafe { bpf_get_current_task() };
    // Whose levels are shown: the trigger's, where the victim cannot be found.
    let victim = if victim == 0 { current } else { victim };
    let refused = match OWNERS.get_ptr(memcg::id_of_task(victim)) {
        // SAFETY: a map value.
        Some(filter) => unsafe { (*filter).verdict == OWNER_REFUSED },
        None => false,
    };
    record.event = OOM_KILL;
    record.epoch = UNKNOWN;
    record.flags = 0;
    if early {
        // User space sets the control anew when the baseline is there: an epoch that began now would be lost.
        record.flags = OOM_EARLY;
    } else if refused {
        record.flags = OOM_REFUSED;
    } else {
        // What is charged from here on belongs to the next epoch.
        record.epoch = freeze::open().unwrap_or(UNKNOWN);
        if record.epoch == UNKNOWN {
            record.flags = OOM_NOT_FROZEN;
        }
    }
    record.number = call.number;
    record.at_ns = now;
    record.user_stack = user_stack;
    record.kernel_stack = kernel_stack;
    describe(&mut record.trigger, current, now);
    fill_trigger_levels(current, KILLS as u64);
    let filled = fill_levels(victim, KILLS as u64);
    record.level_count = filled as u32;
    if filled & CUT != 0 {
        record.flags |= OOM_CUT;
    }
    record.limit = UNKNOWN;
    record.total_pages = UNKNOWN;
    record.constraint = u32::MAX;
    record.order = u32::MAX;
    record.gfp_mask = u32::MAX;
    if call.control != 0 {
        record.flags |= OOM_CONTROL;
        let memcg = word(call.control, layout!(oom_memcg));
        record.limit = if memcg == 0 || memcg == UNKNOWN { memcg } else { memcg::id(memcg) };
        record.total_pages = word(call.control, layout!(oom_totalpages));
        record.constraint = word(call.control, layout!(oom_constraint)) as u32;
        record.order = word(call.control, layout!(oom_order)) as u32;
        record.gfp_mask = word(call.control, layout!(oom_gfp_mask)) as u32;
    }
    if OOM_EVENTS.output::<tracer_common::oom::OomKill>(&*record, 0).is_err() {
        loss::count(Loss::OomEventLost, 0);
    }
}

#[inline(always)]
fn describe(into: &mut OomTask, task: u64, now: u64) {
    let toucher = task::of(task, now);
    into.process = toucher.process;
    into.tgid = toucher.tgid;
    into.tid = if task == 0 { 0 } else { word(task, layout!(task_pid)) as u32 };
    into.cgroup = if task == 0 { UNKNOWN } else { memcg::id_of_task(task) };
    into.comm = read(task, layout!(task_comm)).unwrap_or([0; 16]);
}

#[inline(always)]
fn send_victim(number: u64, victim: u64, argument: u64, now: u64, kernel_stack: u64) {
    let Some(mut entry) = OOM_EVENTS.reserve::<OomVictim>(0) else {
        loss::count(Loss::OomEventLost, 0);
        return;
    };
    // The task is a thread that has its memory still; its lock is held.
    let mm = if victim == 0 { 0 } else { pointer(victim, layout!(task_mm)) };
    let signal = if victim == 0 { 0 } else { pointer(victim, layout!(task_signal)) };
    let adjustment = if signal == 0 { UNKNOWN } else { word(signal, layout!(signal_oom_score_adj)) };
    // SAFETY: reserved memory of this size; every field is written.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    event.event = OOM_VICTIM;
    event.score_adj = if adjustment == UNKNOWN { i32::MAX } else { adjustment as i16 as i32 };
    event.number = number;
    event.at_ns = now;
    describe(&mut event.task, victim, now);
    if victim == 0 {
        event.task.tid = argument as u32;
    }
    event.kernel_stack = kernel_stack;
    event.file = pages(mm, 0);
    event.anon = pages(mm, 1);
    event.swap = pages(mm, 2);
    event.shmem = pages(mm, 3);
    event.pagetables = if mm == 0 { UNKNOWN } else { word(mm, layout!(mm_pgtables)) };
    event.total_vm = if mm == 0 { UNKNOWN } else { word(mm, layout!(mm_total_vm)) };
    entry.submit(0);
}

#[inline(always)]
fn pages(mm: u64, kind: u64) -> u64 {
    if mm == 0 { UNKNOWN } else { oom::resident(mm, kind) }
}

/// Fills the record of the tracer's own: the levels of the calling task, which user space compares with the cgroups' files.
#[inline(always)]
pub fn look_at_self() {
    // SAFETY: plain helper.
    let filled = fill_levels(unsafe { bpf_get_current_task() }, SELF as u64);
    if let Some(record) = OOM_RECORD.get_ptr_mut(SELF) {
        // SAFETY: a map value; only the tracer's one thread runs this program.
        unsafe { (*record).level_count = filled as u32 };
    }
}
