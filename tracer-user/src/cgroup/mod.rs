//! Memory cgroups as user space sees them: where the hierarchy is, which cgroups exist, what the kernel says of each.
//!
//! - [`mounts`] (pure) and [`hierarchy`] (I/O): where the memory controller really is.
//! - [`path`]: names of cgroups, which are bytes chosen by others.
//! - [`listing`] (I/O) and [`registry`] (pure): which cgroups exist or existed.
//! - [`stat`], [`local`] (pure) and [`poll`] (I/O): the kernel's figures.
//! - [`history`] (pure): what the kernel said in the last quarter of an hour.
//! - [`container`] (pure): what a path says about pods and containers.
//!
//! Nothing here touches BPF, attributes anything or formats reports.

pub mod container;
mod dead;
pub mod hierarchy;
pub mod history;
pub mod listing;
pub mod local;
pub mod mounts;
pub mod path;
pub mod poll;
pub mod registry;
pub mod stat;
mod sys;

pub use hierarchy::Hierarchy;
pub use path::CgroupPath;
pub use registry::Registry;
pub use stat::StatReading;

use std::fmt;

/// 64-bit kernfs id of a cgroup of the memory hierarchy: the inode number of its directory. The kernel does not use an id again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct CgroupId(pub u64);

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which interface the memory hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Version {
    /// A hierarchy of its own, mounted as `cgroup` with the option `memory`.
    V1,
    /// The unified hierarchy, mounted as `cgroup2`.
    V2,
}
