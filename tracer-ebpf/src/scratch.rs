//! Working memory that does not fit the 512 bytes of a BPF stack.
//!
//! One slot a program and CPU, so that a program interrupted by another kind of program keeps its own; the busy flag catches one
//! interrupted by itself, which kernels before 5.12 allow.

use crate::{loss, maps::SCRATCH};
use tracer_common::{
    attribution::{KeyRecord, Sample},
    loss::Loss,
    mapping::MappingRecord,
    stack::{Bases, StackRecord},
};

/// Which program asks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Slot {
    PageAlloc = 0,
    LruInsertion = 1,
    AnonCommit = 2,
    FileCommit = 3,
    ShmemCommit = 4,
    Swapin = 5,
    Migrate = 6,
    FromUser = 7,
    Hugetlb = 8,
    MoveAccount = 9,
    PageFree = 10,
    Oom = 11,
    Dirty = 12,
    Mapping = 13,
    PageAllocSpare = 14,
}

/// Number of slots.
pub const SLOTS: u32 = 15;

/// Working memory of one program on one CPU.
#[repr(C)]
pub struct Scratch {
    busy: u64,
    /// A key on its way into the table.
    pub key: KeyRecord,
    /// A sample on its way into the table.
    pub sample: Sample,
    /// A stack on its way into the table.
    pub stack: StackRecord,
    /// What its frames are relative to.
    pub bases: Bases,
    /// A record of address space on its way into the table.
    pub mapping: MappingRecord,
}

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
