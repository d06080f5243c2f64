//! The name of a memory cgroup as the kernel still knows it: for owners that were removed before the trace began.

use crate::file::{COMPONENT_BYTES, NAME_BYTES};

/// Most levels that are walked.
pub const MOST_LEVELS: usize = 16;

/// An owner's path, as ids and names of its levels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OwnerName {
    /// kernfs ids, the owner's own first, without the root's.
    pub ids: [u64; MOST_LEVELS],
    /// Levels in use; 0 if the owner could not be read.
    pub levels: u32,
    /// 1: the walk came to the root, so these are all levels.
    pub whole: u32,
    /// Names of the levels in the same order, each with a NUL behind it.
    pub names: [u8; NAME_BYTES],
}
crate::assert_size!(OwnerName, 8 * 16 + 8 + 512);
crate::plain_data!(OwnerName);

/// Most bytes of one name, its terminator included.
pub const LEVEL_BYTES: usize = COMPONENT_BYTES;
