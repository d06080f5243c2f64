//! Processes, threads and stacks in words. Frames are numbers until output, each number one name.

use crate::report::{BinaryRow, UNKNOWN_PROCESS};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A frame: its place in [`Names::frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameId(pub u32);

/// A process that has charged something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread-group id on the host.
    pub tgid: u32,
    /// The same in its own pid namespace; 0 where that is not known.
    pub ns_tgid: u32,
    /// Its name by now, escaped.
    pub comm: String,
    /// That image of it is known to be gone.
    pub gone: bool,
}

/// A user stack in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StackWords {
    /// Outermost first; a cut stack begins with its reason in brackets.
    pub frames: Vec<FrameId>,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
}

/// A key in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyWords {
    /// Name of the thread-group leader.
    pub comm: String,
    /// User frames, then the kernel's, which end in `_[k]`.
    pub stack: StackWords,
}

/// Words of everything in a snapshot that has some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Names by [`FrameId`].
    pub frames: Vec<String>,
    /// Keys by identity: those of wanted owners that are not older than the trace.
    pub keys: HashMap<u64, KeyWords>,
    /// User stacks that something else than a key names, by process and stack.
    pub stacks: HashMap<(u64, u64), StackWords>,
    /// Kernel stacks of page cache and shmem, by identity, outermost first and without `_[k]`.
    pub kernel: HashMap<u64, Vec<FrameId>>,
    /// Processes by identity.
    pub processes: HashMap<u64, Process>,
    /// Names of living threads that own something, by process and thread id.
    pub threads: HashMap<(u64, u32), String>,
    /// Functions that threads began with, by process and address.
    pub functions: HashMap<(u64, u64), String>,
    /// The files that frames are in, and the kernel.
    pub binaries: Vec<BinaryRow>,
}

impl Names {
    /// The name of a frame.
    #[must_use]
    pub fn frame(&self, id: FrameId) -> &str {
        self.frames.get(id.0 as usize).map_or("[unknown]", String::as_str)
    }

    /// The names of frames.
    #[must_use]
    pub fn in_words(&self, frames: &[FrameId]) -> Vec<String> {
        frames.iter().map(|id| self.frame(*id).to_owned()).collect()
    }

    /// Name of a process, or that it is unknown.
    #[must_use]
    pub fn comm(&self, process: u64) -> String {
        self.processes.get(&process).map_or_else(|| UNKNOWN_PROCESS.to_owned(), |process| process.comm.clone())
    }
}
