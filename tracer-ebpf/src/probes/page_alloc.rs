//! Tracepoint tier: a folio for a user is allocated (`kmem:mm_page_alloc`). This is where the stack is, so the sample is taken here
//! and waits, by frame, until the LRU says whose it is and of what kind. Freed before that, it never counted.

use crate::{
    attribute::{commit, control, decide, end, followed, frames},
    globals::setting,
    kernel::{folio, memcg, task},
    maps::{NEW_FRAMES, PASSED_ON},
    scratch::{self, Slot},
};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_ns};
use core::ffi::c_void;
use tracer_common::oom::UNKNOWN;

/// Handles the allocation of 2^`order` frames where the program whose slot is [`Slot::PageAlloc`] could not: the kernel does not run a
/// program on a CPU on which it runs already. Where it may preempt programs, one that waits for the CPU in the middle of an allocation would
/// cost all allocations of the tasks that have the CPU meanwhile.
#[inline(always)]
pub fn passed_over(ctx: *mut c_void, page: u64, order: u32, gfp: u32) {
    if scratch::is_busy(Slot::PageAlloc) {
        if let Some(count) = PASSED_ON.get_ptr_mut(0) {
            // SAFETY: a map value of this CPU's own; the kernel runs this program there once at a time.
            unsafe { *count += 1 };
        }
        allocated(ctx, Slot::PageAllocSpare, page, order, gfp);
    }
}

/// Whether what is allocated so can become anonymous memory or shmem. Page cache is decided at its own tracepoint: what is known to become that is
/// not walked twice. Pipe buffers are for users too, and accounted as kernel memory.
#[inline(always)]
fn becomes_users(gfp: u32) -> bool {
    let user = setting!(gfp_user);
    let is_movable = gfp & setting!(gfp_movable) != 0;
    gfp & setting!(gfp_write) == 0 && (is_movable || gfp & (user | setting!(gfp_account)) == user)
}

/// Handles the allocation of 2^`order` frames.
#[inline(always)]
pub fn allocated(ctx: *mut c_void, slot: Slot, page: u64, order: u32, gfp: u32) {
    if !becomes_users(gfp) || page == 0 {
        return;
    }
    let Some(control) = control() else { return };
    let taken = decide::take(order);
    if taken == 0 && control.baseline == 0 {
        return;
    }
    let Some(frame) = folio::frame_of(page) else { return };
    if control.baseline != 0 {
        frames::set(&NEW_FRAMES, frame, order);
    }
    if taken == 0 {
        return;
    }
    end::folio(frame, order);
    if !followed::wants(0) {
        return;
    }
    scratch::with(slot, |scratch| {
        // SAFETY: plain helper.
        let now = unsafe { bpf_ktime_get_ns() };
        // SAFETY: plain helper.
        let task = unsafe { bpf_get_current_task() };
        let expected = match memcg::id_of_task(task) {
            UNKNOWN => 0,
            id => id,
        };
        // A process is charged for what it touches, so its owner's filter and M hold before the stack is walked. Kernel threads also work
        // for others (khugepaged): theirs are seen at the LRU only. There the real owner is asked, whose M may be larger.
        let weight = if task::is_kernel_thread(task) { taken } else { commit::filtered(expected, order, taken, 0) };
        if weight == 0 {
            return None;
        }
        let toucher = task::current(now);
        commit::fill(ctx, slot, control, scratch, &toucher, false, false, weight, order, now);
        scratch.sample.address = expected;
        scratch.sample.file = (commit::own_flag(toucher.tgid) | task::collapse_flag(task)) as u64;
        commit::store(scratch, frame);
        Some(())
    });
}
