//! Calls of `mem_cgroup_charge` and their failures: what the kernel tried, beside what the commits say was done.

use crate::{attribute::control, maps::CHARGE_CALLS, probes::reclaim};

/// Counts one call.
#[inline(always)]
pub fn called(result: i32) {
    if control().is_none() {
        return;
    }
    reclaim::charge_returned();
    if let Some(calls) = CHARGE_CALLS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe {
            (*calls)[0] += 1;
            if result != 0 {
                (*calls)[1] += 1;
            }
        }
    }
}
