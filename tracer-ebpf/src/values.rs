//! What stands in the tables of the kernel half's own, which user space never reads. What both halves read is in `tracer_common`.
//!
//! Types only, without the code that works with them: [`crate::maps`] names them, and everything else names the maps.

use tracer_common::{
    attribution::{KeyRecord, Sample},
    file::FileRecord,
    mapping::MappingRecord,
    stack::{Bases, StackRecord},
};

/// Which program asks for working memory.
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

/// Working memory of one program on one CPU (see [`crate::scratch`]).
#[repr(C)]
pub struct Scratch {
    /// 1 while a program works with it.
    pub busy: u64,
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

/// Working memory for a file's record of one program on one CPU (see [`crate::kernel::file`]).
#[repr(C)]
pub struct FileScratch {
    /// 1 while a program works with it.
    pub busy: u64,
    /// Where pointers are read to: the callers leave little of the stack.
    pub word: u64,
    /// A record on its way into the table.
    pub record: FileRecord,
}

/// What khugepaged did last (see [`crate::attribute::collapse`]).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Collapse {
    /// Key of the last sample that it ended; 0 for none.
    pub ended_key: u64,
    /// File of that sample.
    pub ended_file: u64,
    /// Where in the file or address space, in units of a huge page.
    pub ended_at: u64,
    /// Slot of the last sample that it made, still under khugepaged's own key; 0 for none.
    pub made: u64,
}

/// A wait for memory that has begun (see [`crate::probes::reclaim`]).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Wait {
    /// Memory cgroup of the task.
    pub owner: u64,
    /// Monotonic nanoseconds.
    pub since_ns: u64,
}

/// A charge that waits.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stall {
    /// When its first reclaim began, and whose it is.
    pub wait: Wait,
    /// Nanoseconds in reclaim so far.
    pub reclaim_ns: u64,
    /// 1: it runs the OOM killer.
    pub oom: u64,
}
