//! Where the page structs begin: the tracer touches memory of its own and compares the `struct page` addresses recorded here with
//! the frame numbers in /proc/self/pagemap. Needs neither kallsyms nor tracefs.

use crate::{
    kernel::{preemption, read},
    maps::CALIBRATION,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::settings::{
    CALIBRATION_ADDRESSES, CALIBRATION_COUNT, CALIBRATION_FIRST, CALIBRATION_PREEMPTION, CALIBRATION_THREAD, CALIBRATION_WORD,
};

/// Remembers order-0 allocations of the thread that calibrates. The tracer's other threads are at work already.
#[inline(always)]
pub fn allocated(page: u64, order: u32) {
    if order != 0 || !by_the_calibrating_thread() {
        return;
    }
    let Some(count) = CALIBRATION.get_ptr_mut(CALIBRATION_COUNT) else { return };
    // SAFETY: a map value, which only the calibrating thread changes.
    let next = unsafe {
        *count += 1;
        *count - 1
    };
    if let Some(entry) = CALIBRATION.get_ptr_mut(CALIBRATION_FIRST + (next as u32 & (CALIBRATION_ADDRESSES - 1))) {
        // SAFETY: as above.
        unsafe { *entry = page };
    }
}

/// Remembers whether programs of this tracepoint can be preempted: 2 if one could, 1 if none could, 0 unknown. Some allocate under a lock,
/// and cannot be preempted for that reason.
#[inline(always)]
pub fn look_at_preemption() {
    if !by_the_calibrating_thread() {
        return;
    }
    let Some(is_disabled) = preemption::is_disabled() else { return };
    let Some(entry) = CALIBRATION.get_ptr_mut(CALIBRATION_PREEMPTION) else { return };
    let seen = if is_disabled { 1 } else { 2 };
    // SAFETY: a map value, which only the calibrating thread changes.
    unsafe { *entry = core::cmp::max(*entry, seen) };
}

/// Reads the word at a kernel address.
#[inline(always)]
pub fn read_word(address: u64) {
    if let Some(entry) = CALIBRATION.get_ptr_mut(CALIBRATION_WORD) {
        // SAFETY: a map value; only the tracer's one thread runs this program.
        unsafe { *entry = read::<u64>(address, Some(0)).unwrap_or(0) };
    }
}

#[inline(always)]
fn by_the_calibrating_thread() -> bool {
    match CALIBRATION.get(CALIBRATION_THREAD) {
        Some(thread) => *thread == (bpf_get_current_pid_tgid() as u32) as u64,
        None => false,
    }
}
