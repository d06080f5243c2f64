//! OOM kills as the kernel half saw them: one [`OomKill`] when the first victim of a kill is marked, then one [`OomVictim`] a victim.
//!
//! Numbers that this kernel does not have, or that could not be read, are [`UNKNOWN`].

use crate::process::COMM_BYTES;

/// What could not be read.
pub const UNKNOWN: u64 = u64::MAX;

/// Levels of the hierarchy that a kill carries: the victim's cgroup and those above it. Containers in pods lie four or five levels deep.
pub const OOM_LEVELS: usize = 8;

/// Figures of `memory.stat` that each level carries.
pub const OOM_STATS: usize = 12;

/// What an event is; its first word.
pub const OOM_KILL: u32 = 1;
/// See [`OOM_KILL`].
pub const OOM_VICTIM: u32 = 2;

/// There are more levels above the last one.
pub const OOM_CUT: u32 = 1;
/// The kernel's `struct oom_control` was read: limit, constraint, order and gfp mask are its own.
pub const OOM_CONTROL: u32 = 2;
/// No picture was opened although one was wanted: as many as there can be were open.
pub const OOM_NOT_FROZEN: u32 = 4;
/// No picture: the recording was beginning.
pub const OOM_EARLY: u32 = 8;
/// No picture: the victim's cgroup is outside the filter.
pub const OOM_REFUSED: u32 = 16;

/// `memory.oom.group` is set.
pub const LEVEL_GROUP: u32 = 1;
/// v1: the level is locked for an OOM kill at it or above it.
pub const LEVEL_LOCKED: u32 = 2;
/// v1: tasks are told that the level is out of memory.
pub const LEVEL_UNDER_OOM: u32 = 4;
/// v1: killing is off here; tasks wait.
pub const LEVEL_KILL_DISABLED: u32 = 8;

/// One cgroup of a kill. Page counters are in pages, as of the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OomLevel {
    /// kernfs id.
    pub cgroup: u64,
    /// Charged.
    pub usage: u64,
    /// Limit; the kernel's largest number for none.
    pub max: u64,
    /// Charges that met the limit.
    pub failcnt: u64,
    /// v2: swap. v1: memory and swap together.
    pub swap: u64,
    /// v1: kernel memory, which is part of `usage`.
    pub kernel: u64,
    /// v1: socket buffers, which are not part of `usage`.
    pub sockets: u64,
    /// Times that the OOM killer was about to run for this level (v2: or one below it).
    pub oom_events: u64,
    /// v2: charges that met the limit and began to reclaim, here or below. Kernels that count no `failcnt` on v2 count these.
    pub limit_events: u64,
    /// `LEVEL_` bits.
    pub flags: u32,
    /// Levels below the root.
    pub depth: u32,
    /// Figures as of the kernel's last flush, in the order of [`crate::layout::StatOffsets`].
    pub stats: [u64; OOM_STATS],
}
crate::assert_size!(OomLevel, 80 + 8 * 12);

/// A task of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OomTask {
    /// Identity of its process; 0 if unknown.
    pub process: u64,
    /// kernfs id of its memory cgroup.
    pub cgroup: u64,
    /// Thread-group id, initial namespace.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: [u8; COMM_BYTES],
}
crate::assert_size!(OomTask, 40);

/// A kill begins: what the kernel knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OomKill {
    /// [`OOM_KILL`].
    pub event: u32,
    /// `OOM_` bits.
    pub flags: u32,
    /// Counts kills from 1.
    pub number: u64,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Epoch of the frozen picture; [`UNKNOWN`] for none.
    pub epoch: u64,
    /// kernfs id of the cgroup whose limit was met, 0 for none (global); from `oom_control`.
    pub limit: u64,
    /// Pages that the constraint allows in all; from `oom_control`.
    pub total_pages: u64,
    /// `enum oom_constraint`; from `oom_control`.
    pub constraint: u32,
    /// Order of the allocation that failed; from `oom_control`. All ones where nothing was allocated (SysRq).
    pub order: u32,
    /// Its flags; from `oom_control`.
    pub gfp_mask: u32,
    /// Levels in use.
    pub level_count: u32,
    /// The task whose allocation failed.
    pub trigger: OomTask,
    /// Identity of its user stack; 0 for none.
    pub user_stack: u64,
    /// Identity of its kernel stack; 0 for none.
    pub kernel_stack: u64,
    /// kernfs ids of the trigger's cgroup and those above it; 0 behind the last.
    pub trigger_levels: [u64; OOM_LEVELS],
    /// The victim's cgroup and those above it.
    pub levels: [OomLevel; OOM_LEVELS],
}
crate::assert_size!(OomKill, 64 + 40 + 16 + 64 + 8 * 176);

/// One victim. Figures of its memory are in pages, but for `pagetables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct OomVictim {
    /// [`OOM_VICTIM`].
    pub event: u32,
    /// `oom_score_adj`, or `i32::MAX`.
    pub score_adj: i32,
    /// Number of its kill.
    pub number: u64,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Who.
    pub task: OomTask,
    /// Mapped anonymous pages.
    pub anon: u64,
    /// Mapped file pages.
    pub file: u64,
    /// Mapped shmem pages.
    pub shmem: u64,
    /// Swap entries.
    pub swap: u64,
    /// Bytes of page tables.
    pub pagetables: u64,
    /// Mapped address space.
    pub total_vm: u64,
    /// Identity of the kernel stack, which tells a kill from the marking of a task that was ending anyway.
    pub kernel_stack: u64,
}
crate::assert_size!(OomVictim, 24 + 40 + 56);

/// The call of the OOM killer that runs: there is never more than one (`oom_lock`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct OomCall {
    /// Process and thread id of the caller.
    pub thread: u64,
    /// Its `struct oom_control`; 0 where no probe gives it.
    pub control: u64,
    /// Victims marked so far.
    pub victims: u64,
    /// Kills so far.
    pub number: u64,
    /// OOM events of the caller's cgroups at the last kill: they tell two kills of one caller apart where no probe does.
    pub oom_events: u64,
    /// The last task that the kernel itself sent SIGKILL to, where a victim's marking tells its thread id alone.
    pub signalled: u64,
}
crate::assert_size!(OomCall, 48);

crate::plain_data!(OomLevel, OomTask, OomKill, OomVictim, OomCall);
