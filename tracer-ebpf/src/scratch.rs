//! Working memory that does not fit the 512 bytes of a BPF stack.
//!
//! One slot a program and CPU, so that a program interrupted by another kind of program keeps its own; the busy flag catches one
//! interrupted by itself, which kernels before 5.12 allow.

pub use crate::values::{Scratch, Slot};
use crate::{loss, maps::SCRATCH};
use tracer_common::loss::Loss;

/// The slot's memory, until [`leave`]; counts and returns `None` if it is in use.
#[inline(always)]
pub fn enter(slot: Slot) -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(slot as u32)?;
    // SAFETY: a valid map value that only this program uses on this CPU, guarded by `busy`.
    let scratch = unsafe { &mut *scratch };
    if scratch.busy != 0 {
        loss::count(Loss::ScratchBusy, 0);
        return None;
    }
    scratch.busy = 1;
    Some(scratch)
}

/// Whether the slot's program has begun on this CPU and not ended.
#[inline(always)]
pub fn is_busy(slot: Slot) -> bool {
    // SAFETY: a valid map value; one aligned word of it.
    SCRATCH.get_ptr(slot as u32).is_some_and(|scratch| unsafe { (*scratch).busy != 0 })
}

/// Gives the slot's memory back.
#[inline(always)]
pub fn leave(scratch: &mut Scratch) {
    scratch.busy = 0;
}

/// Runs `work` with the slot's memory; counts and returns `None` if it is in use.
#[inline(always)]
pub fn with<T>(slot: Slot, work: impl FnOnce(&mut Scratch) -> Option<T>) -> Option<T> {
    let scratch = enter(slot)?;
    let result = work(scratch);
    leave(scratch);
    result
}
