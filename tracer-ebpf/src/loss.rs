//! Counting what is lost, at its cause.

use crate::{diagnose, maps::LOSS_COUNTS};
use tracer_common::{diagnosis::Diagnosis, loss::Loss};

/// One more event of that cause, with the bytes behind it.
#[inline(always)]
pub fn count(cause: Loss, bytes: u64) {
    diagnose::tell(Diagnosis::FirstLoss, cause as u64, bytes);
    if let Some(slot) = LOSS_COUNTS.get_ptr_mut(cause as u32) {
        // SAFETY: a valid map value. A per-CPU counter: an interrupt between load and store may lose one count, never more.
        unsafe {
            (*slot).events += 1;
            (*slot).bytes += bytes;
        }
    }
}

/// The cause for a failed insertion into a table: its lock was busy, or it was full.
#[inline(always)]
pub fn of_insert(error: i32, full: Loss) -> Loss {
    const EBUSY: i32 = -16;
    const EDEADLK: i32 = -35;
    const ETIMEDOUT: i32 = -110;
    let cause = if error == EBUSY || error == EDEADLK || error == ETIMEDOUT { Loss::TableBusy } else { full };
    diagnose::tell(Diagnosis::RefusedEntry, cause as u64, error as u64);
    cause
}
