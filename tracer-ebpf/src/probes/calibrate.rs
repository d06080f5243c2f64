//! Where the page structs begin: the tracer touches memory of its own and compares the `struct page` addresses recorded here with
//! the frame numbers in /proc/self/pagemap. Needs neither kallsyms nor tracefs.

use crate::{globals::setting, kernel::preemption, maps::CALIBRATION};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::settings::CALIBRATION_PREEMPTION;

/// Remembers order-0 allocations of the tracer.
#[inline(always)]
pub fn allocated(page: u64, order: u32) {
    if order != 0 || (bpf_get_current_pid_tgid() >> 32) as u32 != setting!(own_tgid) {
        return;
    }
    let Some(count) = CALIBRATION.get_ptr_mut(0) else { return };
    // SAFETY: a map value. Only one thread of the tracer touches memory while it calibrates.
    let next = unsafe {
        *count += 1;
        *count
    };
    if let Some(entry) = CALIBRATION.get_ptr_mut(1 + (next % 63) as u32) {
        // SAFETY: a map value.
        unsafe { *entry = page };
    }
}

/// Remembers whether programs of this tracepoint can be preempted: 2 if one could, 1 if none could, 0 unknown. Some allocate under a lock,
/// and cannot be preempted for that reason.
#[inline(always)]
pub fn look_at_preemption() {
    if (bpf_get_current_pid_tgid() >> 32) as u32 != setting!(own_tgid) {
        return;
    }
    let Some(is_disabled) = preemption::is_disabled() else { return };
    let Some(entry) = CALIBRATION.get_ptr_mut(CALIBRATION_PREEMPTION) else { return };
    let seen = if is_disabled { 1 } else { 2 };
    // SAFETY: a map value, which only the tracer's own threads change.
    unsafe { *entry = core::cmp::max(*entry, seen) };
}
