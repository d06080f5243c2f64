//! What the user half tells the kernel half before it starts (read-only globals) and while it runs (one map entry).

/// Read-only settings, frozen at load.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// [`crate::ABI_VERSION`] of the user half.
    pub abi_version: u32,
    /// log2 of the smallest M of any owner, the mean distance in bytes between two samples; 12 takes every frame.
    pub log2_mean: u32,
    /// Frames that the frame table covers.
    pub frames: u64,
    /// log2 of the size of a `struct page`.
    pub page_struct_shift: u32,
    /// Whether filters are in force: unknown owners are then looked up in `OWNERS`.
    pub filtered: u32,
    /// Thread-group id of the tracer, initial namespace.
    pub own_tgid: u32,
    /// 1: record a kernel stack with every charge; 0: unless how the kernel was entered says as much ([`crate::stack::BY_FAULT`]).
    pub kernel_stacks: u32,
    /// The gfp bit of movable memory: on the tracepoint tier such allocations can become anon, file or shmem.
    pub gfp_movable: u32,
    /// 1: only what the processes in `FOLLOWED` cause is recorded.
    pub followed: u32,
    /// 1: rare events are told (see [`crate::diagnosis`]).
    pub diagnose: u32,
    /// log2 of M for owners of which nothing is known, and of the largest: not below `log2_mean`.
    pub log2_coarsest: u32,
    /// log2 of the samples after which an owner's M doubles.
    pub log2_step: u32,
    /// The gfp bit of page cache that is about to be written: decided when it is inserted, never when it is allocated.
    pub gfp_write: u32,
    /// Nanoseconds of a tick of the kernel's timer.
    pub jiffy_ns: u64,
    /// `cgroup_root.hierarchy_id` of the hierarchy that memory cgroups are in: each counts its cgroups' ids for itself.
    pub hierarchy: u32,
    /// 1: user stacks are walked by tables; 0: by frame pointers.
    pub unwind: u32,
    /// The gfp bits of memory for a user that need not be movable: where a page is to be pinned for long, the kernel takes the bit of movable
    /// memory off (`current_gfp_context`, include/linux/sched/mm.h).
    pub gfp_user: u32,
    /// The gfp bit of memory that is accounted as kernel memory, which is for no user's address space.
    pub gfp_account: u32,
}
crate::assert_size!(Settings, 80);
crate::plain_data!(Settings);

/// State that changes while the trace runs; entry 0 of the `CONTROL` array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// 1: count and sample. Set last, after everything is attached.
    pub enabled: u32,
    /// 1: remember the frames charged from now on in `NEW_FRAMES`, so that the baseline scan passes over them.
    pub baseline: u32,
    /// 1: keep exact totals per owner and kind in the commit and uncharge programs. Only where all of them are attached, which is known
    /// after the load.
    pub owner_totals: u64,
    /// Current epoch; see [`crate::attribution::bank_of`]. It only grows, and may skip numbers.
    pub epoch: u64,
    /// Pictures that are open: while not 0, ended samples move to the graveyard.
    pub open_pictures: u64,
    /// One bit for each rotating bank that an open picture holds: no epoch may begin in it.
    pub held_banks: u64,
    /// 1: the probes on `mem_cgroup_charge` are attached, which end the stalls that reclaim begins.
    pub charge_stalls: u64,
    /// The last epoch that counted in each rotating bank.
    pub bank_epochs: [u64; crate::attribution::ROTATING_BANKS],
}
crate::assert_size!(Control, 112);
crate::plain_data!(Control);

/// What the filter says about an owner; the value of the `OWNERS` table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OwnerFilter {
    /// [`OWNER_UNKNOWN`], [`OWNER_WANTED`], [`OWNER_REFUSED`] or [`OWNER_REFUSED_ALONE`].
    pub verdict: u32,
    /// log2 of its M, at the least.
    pub log2_mean: u32,
    /// Samples kept since user space last looked: M doubles with each [`Settings::log2_step`] of them, up to
    /// [`Settings::log2_coarsest`], so that an owner that grows needs nobody to look at it.
    pub kept: u64,
}
crate::assert_size!(OwnerFilter, 16);

impl OwnerFilter {
    /// log2 of its M now.
    #[inline(always)]
    #[must_use]
    pub const fn log2_mean_now(&self, log2_step: u32, log2_coarsest: u32) -> u32 {
        let log2_mean = self.log2_mean as u64 + (self.kept >> (log2_step & 63));
        if log2_mean < log2_coarsest as u64 { log2_mean as u32 } else { log2_coarsest }
    }
}
crate::plain_data!(OwnerFilter);

/// Not decided yet: recorded, and settled at the next snapshot.
pub const OWNER_UNKNOWN: u32 = 0;
/// Recorded.
pub const OWNER_WANTED: u32 = 1;
/// Passed over, and so are cgroups made below it.
pub const OWNER_REFUSED: u32 = 2;
/// Passed over itself; cgroups made below it are not decided by that.
pub const OWNER_REFUSED_ALONE: u32 = 3;

/// A process that is followed; the value of the `FOLLOWED` table, whose key is the thread-group id. The start tells it from a later
/// process with the same id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Followed {
    /// Start of the thread-group leader as in [`crate::process::ProcessRecord::start_ns`]; 0 until the kernel half has seen the process:
    /// user space knows its start in hundredths of a second only.
    pub start_ns: u64,
}
crate::assert_size!(Followed, 8);
crate::plain_data!(Followed);

/// Entry of `CALIBRATION` that says how many addresses were recorded since user space put a zero there.
pub const CALIBRATION_COUNT: u32 = 0;
/// Entry of `CALIBRATION` that says whose allocations are recorded: a thread id, initial namespace.
pub const CALIBRATION_THREAD: u32 = 1;
/// Entry of `CALIBRATION` that says whether programs can be preempted: 2 yes, 1 no, 0 unknown.
pub const CALIBRATION_PREEMPTION: u32 = 2;
/// Entry of `CALIBRATION` for a word of the kernel's that was read by its address; 0 if that could not be read.
pub const CALIBRATION_WORD: u32 = 3;
/// Entries of `CALIBRATION` from here on are addresses, the latest of them, [`CALIBRATION_ADDRESSES`] at most.
pub const CALIBRATION_FIRST: u32 = 4;
/// A power of two.
pub const CALIBRATION_ADDRESSES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_doubles_with_each_step_of_samples_up_to_the_coarsest() {
        let now = |kept| OwnerFilter { verdict: OWNER_WANTED, log2_mean: 16, kept }.log2_mean_now(8, 20);
        assert_eq!([0, 255, 256, 1023, 1024, u64::MAX].map(now), [16, 16, 17, 19, 20, 20]);
        assert_eq!(OwnerFilter { verdict: OWNER_WANTED, log2_mean: 24, kept: 0 }.log2_mean_now(8, 20), 20);
    }
}
