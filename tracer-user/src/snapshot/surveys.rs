//! Regions of the processes that were looked into, and the place of each live anonymous sample in them.

use crate::{
    cgroup::CgroupId,
    region::{Class, held::Held},
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A range of one class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What for.
    pub class: Class,
    /// What told so; `None` for [`Class::Other`].
    pub by: Option<String>,
    /// The process may touch it.
    pub accessible: bool,
    /// It can hold anonymous memory, and is the process's own: no text, no shared mapping, none of the kernel's pages.
    pub private: bool,
    /// Anonymous bytes in page tables; `None` where that cannot be had.
    pub resident: Option<u64>,
}

/// glibc's arenas other than the main one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arenas {
    /// Arenas; `None` where a heap could not be read.
    pub arenas: Option<u64>,
    /// Heaps.
    pub heaps: u64,
    /// Bytes of address space.
    pub reserved: u64,
    /// Bytes made accessible.
    pub committed: u64,
    /// Bytes resident.
    pub resident: Option<u64>,
}

/// What is known of a process's malloc.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malloc {
    /// Its arenas; `None` if no heap was found.
    pub arenas: Option<Arenas>,
    /// Bytes of a pointer: 8 or 4.
    pub word: u8,
    /// Resident bytes of free blocks, and bytes looked through for them; `None` if they could not be followed.
    pub free: Option<(u64, u64)>,
    /// Limit on arenas that the environment at exec sets.
    pub environment_limit: Option<u64>,
    /// MALLOC_ARENA_MAX as it stands in that environment, cut.
    pub malloc_arena_max: Option<String>,
    /// glibc.malloc.arena_max of its GLIBC_TUNABLES, cut.
    pub tunable_arena_max: Option<String>,
}

/// A process that was looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedProcess {
    /// Thread-group id.
    pub tgid: u32,
    /// Name of its leader, escaped.
    pub comm: String,
    /// The cgroup that it is in; `None` if that is not a wanted one.
    pub owner: Option<CgroupId>,
    /// Its regions, by address.
    pub regions: Vec<Region>,
    /// Its malloc.
    pub malloc: Malloc,
    /// What explains its memory beyond regions.
    #[serde(default)]
    pub held: Held,
    /// Its threads.
    pub threads: Option<u64>,
    /// Addresses of the functions that threads began with, by id on the host.
    pub thread_functions: HashMap<u32, u64>,
    /// Whether compiled Java code leaves frames on its stacks; `None` for what is no JVM, or does not tell.
    pub java_frames: Option<bool>,
}

/// Where a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Index in [`Surveys::processes`].
    pub process: usize,
    /// Index in the regions of that process.
    pub region: usize,
}

/// What was looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveys {
    /// Processes.
    pub processes: Vec<SurveyedProcess>,
    /// Where live anonymous samples are, by slot.
    pub places: HashMap<u64, Place>,
    /// Living processes that were not read: too many, not readable, or one before them did not answer.
    pub left_out: u64,
}

impl Surveys {
    /// The region of a place.
    #[must_use]
    pub fn region(&self, place: Place) -> Option<&Region> {
        self.processes.get(place.process)?.regions.get(place.region)
    }

    /// The class of the region that a sample is in.
    #[must_use]
    pub fn class(&self, slot: u64) -> Class {
        self.places.get(&slot).and_then(|place| self.region(*place)).map_or(Class::Other, |region| region.class)
    }
}
