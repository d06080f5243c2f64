//! Every way to lose something, counted where it happens.

/// Causes of loss in the kernel half. The number is the index in the per-CPU `LOSSES` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Loss {
    /// The sample table is full: the folio is not followed. Bytes: its weight.
    SampleTableFull = 0,
    /// The key table is full.
    KeyTableFull = 1,
    /// The stack table is full: the sample keeps no stack.
    StackTableFull = 2,
    /// The process table is full: the process is known by its number only.
    ProcessTableFull = 3,
    /// Two keys with one identity.
    KeyCollision = 4,
    /// Two stacks with one identity.
    StackCollision = 5,
    /// The scratch of this CPU was in use: the program interrupted itself.
    ScratchBusy = 6,
    /// The owner of a taken folio could not be read.
    OwnerUnreadable = 7,
    /// A sample still stood where a new one belongs: an uncharge was missed. Self-healing.
    StaleSample = 8,
    /// The owner-totals table is full: exact totals of some cgroup are missing.
    OwnerTableFull = 9,
    /// The stack walker failed (the kernel's error, not the end of the stack) at a stack of user space that the task had, or at one of the
    /// kernel where these were asked for.
    StackWalkFailed = 10,
    /// An event did not fit in the ring to user space.
    RingFull = 11,
    /// The graveyard of an open picture is full.
    GraveyardFull = 12,
    /// A sample's frame lies beyond the frame table.
    FrameOutOfRange = 13,
    /// The kernel's lock of a table was busy (nested access on one CPU).
    TableBusy = 14,
    /// The file table is full: the sample keeps no file.
    FileTableFull = 15,
    /// Too many threads inside shmem_add_to_page_cache at once (kprobe tier).
    CallTableFull = 16,
    /// A picture was asked for while as many as there can be were open.
    PictureRefused = 17,
    /// The table of followed processes is full: a child is not followed (`--pid`).
    FollowedTableFull = 18,
    /// An OOM event did not fit in its ring.
    OomEventLost = 19,
    /// The table of who made page cache dirty is full, and has no row for the rest of the owner's either. Bytes: dirtied ones.
    DirtyTableFull = 20,
    /// The table of distributions is full: the value is not counted in its cgroup's.
    HistogramTableFull = 21,
    /// Too many tasks in reclaim at once: the wait is not measured.
    StallTableFull = 22,
    /// The table of address space by stack is full: a call is not counted.
    MappingTableFull = 23,
    /// A call that changed a process's mappings did not fit in the ring, or met another thread's in its entry: the origin of some region is
    /// not known, or that of an earlier one.
    MappingEventLost = 24,
    /// The table of files for unwinding is full: stacks through a file end there, or are guessed.
    UnwindFileTableFull = 25,
    /// User space could not be told that a file's table is wanted: it is told a second later at the earliest.
    UnwindMissLost = 26,
    /// User space could not be told of a function that an interpreter runs: it has no name until it is met again.
    FunctionLost = 27,
    /// Frames of an interpreter could not be read: they, or those further out, are missing in the stack.
    ManagedUnreadable = 28,
    /// The table of peaks is full: the peak of some cgroup is not known.
    PeakTableFull = 29,
}

/// Number of causes: entries of the `LOSSES` array.
pub const LOSSES: usize = 30;

impl Loss {
    /// All causes, by number.
    pub const ALL: [Loss; LOSSES] = [
        Loss::SampleTableFull,
        Loss::KeyTableFull,
        Loss::StackTableFull,
        Loss::ProcessTableFull,
        Loss::KeyCollision,
        Loss::StackCollision,
        Loss::ScratchBusy,
        Loss::OwnerUnreadable,
        Loss::StaleSample,
        Loss::OwnerTableFull,
        Loss::StackWalkFailed,
        Loss::RingFull,
        Loss::GraveyardFull,
        Loss::FrameOutOfRange,
        Loss::TableBusy,
        Loss::FileTableFull,
        Loss::CallTableFull,
        Loss::PictureRefused,
        Loss::FollowedTableFull,
        Loss::OomEventLost,
        Loss::DirtyTableFull,
        Loss::HistogramTableFull,
        Loss::StallTableFull,
        Loss::MappingTableFull,
        Loss::MappingEventLost,
        Loss::UnwindFileTableFull,
        Loss::UnwindMissLost,
        Loss::FunctionLost,
        Loss::ManagedUnreadable,
        Loss::PeakTableFull,
    ];

    /// The name used in every output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Loss::SampleTableFull => "sample_table_full",
            Loss::KeyTableFull => "key_table_full",
            Loss::StackTableFull => "stack_table_full",
            Loss::ProcessTableFull => "process_table_full",
            Loss::KeyCollision => "key_collision",
            Loss::StackCollision => "stack_collision",
            Loss::ScratchBusy => "scratch_busy",
            Loss::OwnerUnreadable => "owner_unreadable",
            Loss::StaleSample => "stale_sample",
            Loss::OwnerTableFull => "owner_table_full",
            Loss::StackWalkFailed => "stack_walk_failed",
            Loss::RingFull => "ring_full",
            Loss::GraveyardFull => "graveyard_full",
            Loss::FrameOutOfRange => "frame_out_of_range",
            Loss::TableBusy => "table_busy",
            Loss::FileTableFull => "file_table_full",
            Loss::CallTableFull => "call_table_full",
            Loss::PictureRefused => "picture_refused",
            Loss::FollowedTableFull => "followed_table_full",
            Loss::OomEventLost => "oom_event_lost",
            Loss::DirtyTableFull => "dirty_table_full",
            Loss::HistogramTableFull => "histogram_table_full",
            Loss::StallTableFull => "stall_table_full",
            Loss::MappingTableFull => "mapping_table_full",
            Loss::MappingEventLost => "mapping_event_lost",
            Loss::UnwindFileTableFull => "unwind_file_table_full",
            Loss::UnwindMissLost => "unwind_miss_lost",
            Loss::FunctionLost => "function_lost",
            Loss::ManagedUnreadable => "managed_unreadable",
            Loss::PeakTableFull => "peak_table_full",
        }
    }
}

/// What one CPU lost for one cause.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LossCount {
    /// How often.
    pub events: u64,
    /// Estimated bytes behind it, where that is known.
    pub bytes: u64,
}
crate::assert_size!(LossCount, 16);
crate::plain_data!(LossCount);

#[cfg(test)]
mod tests {
    use super::Loss;

    #[test]
    fn causes_stand_at_their_numbers_under_names_of_their_own() {
        for (number, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, number, "{loss:?} counts in the entry of another cause");
            let same = Loss::ALL.iter().filter(|other| other.name() == loss.name()).count();
            assert_eq!(same, 1, "{loss:?} shares the name {:?}", loss.name());
            assert!(loss.name().bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{loss:?}: {:?}", loss.name());
        }
    }
}
