//! Atomic addition: all that the oldest kernel under test (5.10) can do, and all that is needed.

use core::arch::asm;

/// `*target += value`, atomically; the old value is not given, since that needs 5.12.
///
/// # Safety
/// `target` is a valid, aligned map value.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: by the caller. Rust's AtomicU64::fetch_add would emit a fetching instruction.
    unsafe { asm!("lock *(u64 *)({target} + 0) += {value}", target = in(reg) target, value = in(reg) value, options(nostack)) }
}

/// `*target -= value`, atomically.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn subtract(target: *mut u64, value: u64) {
    // SAFETY: by the caller.
    unsafe { add(target, value.wrapping_neg()) }
}
