//! Rare, ordered events that go through the ring to user space: cgroup lifecycle now, OOM kills and mappings later.

/// Longest cgroup path carried by an event, bytes; a longer one is cut and said to be.
pub const PATH_BYTES: usize = 256;

/// What happened to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CgroupChange {
    /// cgroup_mkdir.
    Made = 1,
    /// cgroup_rmdir: no process left, but charges may be.
    Removed = 2,
}

/// A cgroup was made or removed in the hierarchy of the memory cgroups.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct CgroupEvent {
    /// A [`CgroupChange`] number.
    pub change: u32,
    /// `cgroup_root.hierarchy_id`.
    pub hierarchy: u32,
    /// kernfs id of the cgroup.
    pub id: u64,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Bytes of `path` in use; more than [`PATH_BYTES`] if the path may have been longer.
    pub path_length: u32,
    /// Depth below the hierarchy's root.
    pub level: u32,
    /// Path below the hierarchy's root.
    pub path: [u8; PATH_BYTES],
}
crate::assert_size!(CgroupEvent, 32 + 256);
crate::plain_data!(CgroupEvent);
