//! What happens to processes, as plain values. No parsing, no state.

use super::identity::FileIdentity;
use tracer_common::process::COMM_BYTES;

/// A command name, NUL-padded, as the kernel keeps it.
pub type Comm = [u8; COMM_BYTES];

/// Something that happened to a process at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// CLOCK_MONOTONIC nanoseconds.
    pub at_ns: u64,
    /// What.
    pub change: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A thread or a process was made.
    Fork {
        /// Thread-group id of the new task.
        tgid: u32,
        /// Its thread id.
        tid: u32,
        /// Thread-group id of the task that made it. Equal to `tgid` for a thread.
        parent_tgid: u32,
    },
    /// A task ended.
    Exit {
        /// Thread-group id.
        tgid: u32,
        /// Thread id; equal to `tgid` for the leader.
        tid: u32,
    },
    /// A task got a name.
    Comm {
        /// Thread-group id.
        tgid: u32,
        /// Thread id.
        tid: u32,
        /// The name.
        comm: Comm,
        /// The name comes from exec: the process runs another program now.
        exec: bool,
    },
    /// Memory was mapped, or the protection of a mapping changed.
    Mmap(MapEvent),
    /// What `/proc` said of a process.
    Listed(Listed),
    /// A listing of `/proc` is complete.
    ListingDone {
        /// When it began, monotonic nanoseconds.
        started_ns: u64,
        /// All thread-group ids it saw.
        tgids: Vec<u32>,
    },
    /// The kernel had no room for records.
    Lost {
        /// How many.
        records: u64,
    },
}

/// A mapping as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEvent {
    /// Thread-group id.
    pub tgid: u32,
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset of `start` in the file, bytes.
    pub offset: u64,
    /// May be executed.
    pub executable: bool,
    /// The file, zero for anonymous memory.
    pub file: FileIdentity,
    /// Path in the process's own mount namespace and root, or a name such as `[vdso]` or `//anon`. Raw, hostile bytes.
    pub path: Vec<u8>,
}

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Thread-group id.
    pub tgid: u32,
    /// Thread-group id of the parent.
    pub parent_tgid: u32,
    /// Start of the process, monotonic nanoseconds, exact to a clock tick.
    pub start_ns: u64,
    /// When the reading was over; the event's own time is when it began.
    pub until_ns: u64,
    /// Name of the thread-group leader.
    pub comm: Comm,
    /// Executable mappings.
    pub mappings: Vec<MapEvent>,
}

/// Bytes as a command name: cut or padded.
#[must_use]
pub fn comm_from(bytes: &[u8]) -> Comm {
    let mut comm = [0; COMM_BYTES];
    let used = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()).min(COMM_BYTES - 1);
    comm[..used].copy_from_slice(&bytes[..used]);
    comm
}
