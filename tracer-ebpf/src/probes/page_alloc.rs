//! Tracepoint tier: a movable folio is allocated (`kmem:mm_page_alloc`). This is where the stack is, so the sample is taken here
//! and waits, by frame, until the LRU says whose it is and of what kind. Freed before that, it never counted.

use crate::{
    attribute::{commit, control, decide, end, frames, stack},
    globals::setting,
    kernel::{folio, memcg, task},
    maps::{NEW_FRAMES, OWNERS},
    scratch::{self, Slot},
};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_ns};
use core::ffi::c_void;
use tracer_common::{attribution::Sample, settings::OWNER_REFUSED};

/// Handles the allocation of 2^`order` frames.
#[inline(always)]
pub fn allocated(ctx: *mut c_void, page: u64, order: u32, gfp: u32) {
    if gfp & setting!(gfp_movable) == 0 || page == 0 {
        return;
    }
    let Some(control) = control() else { return };
    let taken = decide::take(order);
    if taken == 0 && control.baseline == 0 {
        return;
    }
    let expected = expected_owner();
    if expected == REFUSED {
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
    scratch::with(Slot::PageAlloc, |scratch| {
        // SAFETY: plain helper.
        let now = unsafe { bpf_ktime_get_ns() };
        // SAFETY: plain helper.
        let task = unsafe { bpf_get_current_task() };
        let expected = memcg::of_task(task).unwrap_or(0);
        // A process is charged for what it touches. Kernel threads also work for others (khugepaged), so theirs is seen at the LRU.
        if commit::refused(expected) && !task::is_kernel_thread(task) {
            return None;
        }
        let toucher = task::current(now);
        let user_stack = if toucher.kernel_thread { 0 } else { stack::record(ctx, Slot::PageAlloc, stack::Side::User, &mut scratch.stack) };
        let kernel_stack =
            if setting!(kernel_stacks) != 0 { stack::record(ctx, Slot::PageAlloc, stack::Side::Kernel, &mut scratch.stack) } else { 0 };
        scratch.sample = Sample {
            key: 0,
            weight_per_frame: taken,
            address: expected,
            file: commit::own_flag(toucher.tgid) as u64,
            charged_ns: now,
            epoch: control.epoch,
            process: toucher.process,
            user_stack,
            kernel_stack,
            frames_left: 1 << (order & 31),
            tid: toucher.tid,
            order,
        };
        commit::store(scratch, frame);
        Some(())
    });
}

/// No cgroup has this id.
const REFUSED: u64 = u64::MAX;

/// The owner that the folio will most likely have: the toucher's own memory cgroup; 0 if that is not known, [`REFUSED`] if the filter
/// refuses it. Kernel threads work for others (khugepaged, swap-in), so theirs is never refused. What a task of a refused cgroup
/// charges to a wanted one (ptrace, remote get_user_pages) is missed by this and shows as unattributed.
#[inline(always)]
fn expected_owner() -> u64 {
    // SAFETY: plain helper.
    let task = unsafe { bpf_get_current_task() };
    let owner = memcg::of_task(task).unwrap_or(0);
    if setting!(filtered) != 0 && owner != 0 && !task::is_kernel_thread(task) {
        if let Some(filter) = OWNERS.get_ptr(owner) {
            // SAFETY: a map value of plain numbers.
            if unsafe { (*filter).verdict } == OWNER_REFUSED {
                return REFUSED;
            }
        }
    }
    owner
}
