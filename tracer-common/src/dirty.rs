//! Who made page cache dirty: summed in the kernel half by owner, file, process and stack, from folios that are taken by bytes. And who was
//! held up for it: all waits, by the task's own cgroup and process, under no file and no stack.

/// Under what dirtied bytes are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirtyKey {
    /// kernfs id of the memory cgroup that the folio is charged to.
    pub owner: u64,
    /// Identity of the file (see [`crate::file`]); 0 if it could not be read.
    pub file: u64,
    /// Identity of the process that made it dirty (see [`crate::process`]).
    pub process: u64,
    /// Identity of its user stack (see [`crate::stack`]); 0 for none.
    pub user_stack: u64,
}
crate::assert_size!(DirtyKey, 32);

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirtyRecord {
    /// Estimated bytes that went from clean to dirty: sums of weights.
    pub bytes: u64,
    /// Variance of `bytes`, in frames squared.
    pub variance: u64,
    /// Folios taken.
    pub samples: u64,
    /// Monotonic nanoseconds of the first.
    pub first_ns: u64,
    /// Monotonic nanoseconds of the last.
    pub last_ns: u64,
    /// Times that it was made to wait because too much was dirty.
    pub holds: u64,
    /// Nanoseconds of all of them.
    pub held_ns: u64,
}
crate::assert_size!(DirtyRecord, 56);

crate::plain_data!(DirtyKey, DirtyRecord);

impl DirtyRecord {
    /// Adds another's sums.
    pub fn add(&mut self, other: &DirtyRecord) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.samples = self.samples.saturating_add(other.samples);
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.holds = self.holds.saturating_add(other.holds);
        self.held_ns = self.held_ns.saturating_add(other.held_ns);
    }
}
