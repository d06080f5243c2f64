//! Where the page structs begin: the tracer touches memory of its own and compares the `struct page` addresses recorded here with
//! the frame numbers in /proc/self/pagemap. Needs neither kallsyms nor tracefs.

use crate::{globals::setting, maps::CALIBRATION};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;

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
