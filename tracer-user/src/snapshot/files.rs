//! Files that hold page cache or shmem, where they are seen, and who made them dirty.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tracer_common::dirty::{DirtyKey, DirtyRecord};

/// A file. All texts are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// `MAJOR:MINOR`.
    pub device: String,
    /// Number of its inode.
    pub inode: u64,
    /// Path on the host, or what is known instead, in brackets.
    pub path: String,
    /// Mount point; `None` for files that no mount shows.
    pub mount: Option<String>,
    /// Path in the mount namespace of a toucher, where it is another.
    pub path_inside: Option<String>,
    /// Volume that it is in.
    pub volume: Option<String>,
    /// Type of its file system.
    pub file_system: Option<String>,
    /// Bytes.
    pub size: u64,
    /// "present" or "deleted"; `None` where that is not known.
    pub state: Option<String>,
}

/// Files by identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// By identity.
    pub known: HashMap<u64, File>,
    /// Who made page cache dirty.
    pub dirtied: HashMap<DirtyKey, DirtyRecord>,
    /// The same of those that left the kernel's tables.
    pub dirtied_before: Vec<DirtiedBefore>,
}

/// What a process made dirty that is no longer in the kernel's table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirtiedBefore {
    /// Owner.
    pub owner: u64,
    /// Identity of the file; 0 for a sum of several.
    pub file: u64,
    /// Thread-group id on the host; `None` where it was never known.
    pub tgid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
    /// How much.
    pub record: DirtyRecord,
}
