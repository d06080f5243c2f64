//! `-- CMD`: runs a command in a memory cgroup of its own, from before its first instruction, and waits with it until tracing is attached.
//!
//! ```text
//! Program::resolve   is there such a program? (127, 126)
//! Placement::make    memtrail/<pid> in the memory hierarchy, its limit, and the janitor that outlives us
//! Gated::spawn       a child in that cgroup, waiting before exec
//! Gated::release     tracing is attached: exec now (127, 126 again)
//! Running            signals passed on, SIGTERM and SIGKILL at the deadline, exit status
//! Place::remove      the cgroup, if nothing is left in it
//! ```
//!
//! Kills and signals only the child it started, never what the child started. Knows nothing of BPF, and needs no async runtime; the
//! descriptors it waits for are public. Fork the janitor and the child early: both are copies of memtrail's address space.

mod janitor;
pub mod place;
mod program;
mod run;
pub mod signals;
mod sweep;
mod sys;

pub use place::{Place, PlaceError, Placement, Removal};
pub use program::Program;
pub use run::{Gated, Running};
pub use sweep::{Sweep, sweep_stale};

use std::ffi::OsString;
use std::io;

/// How long a command has between SIGTERM and SIGKILL.
pub const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code that memtrail passes on: the command's own, 128+N for signal N.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Why the command did not run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No command was given.
    #[error("no command after --")]
    Empty,
    /// An argument or environment variable with a NUL.
    #[error("the command has a NUL byte in {0:?}")]
    Nul(OsString),
    /// There is no such program.
    #[error("{}: command not found", .0.display())]
    NotFound(OsString),
    /// There is, but the kernel does not execute it.
    #[error("{}: cannot execute: {source}{}", .program.display(), hint(.source))]
    NotExecutable {
        /// As given.
        program: OsString,
        /// The kernel's error.
        source: io::Error,
    },
    /// The child could not be put into its cgroup.
    #[error("the command could not enter its cgroup: {0}")]
    Cgroup(io::Error),
    /// The child could not be made or waited for.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => " (a script needs a first line like #!/bin/sh)",
        _ => "",
    }
}

impl CommandError {
    /// memtrail's exit code for it: 127 not found, 126 not executable, 125 memtrail's own failure, 2 for a wrong command line.
    #[must_use]
    pub const fn exit_code(&self) -> i32 {
        match self {
            CommandError::NotFound(_) => 127,
            CommandError::NotExecutable { .. } => 126,
            CommandError::Cgroup(_) | CommandError::System { .. } => 125,
            CommandError::Empty | CommandError::Nul(_) => 2,
        }
    }

    /// From the error of an exec.
    fn from_exec(program: OsString, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => CommandError::NotFound(program),
            _ => CommandError::NotExecutable { program, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        assert_eq!((Exit::Code(3).code(), Exit::Signal(libc::SIGTERM).code(), Exit::Signal(libc::SIGKILL).code()), (3, 143, 137));
        let exec = |errno| CommandError::from_exec("x".into(), io::Error::from_raw_os_error(errno)).exit_code();
        assert_eq!((exec(libc::ENOENT), exec(libc::EACCES), exec(libc::ENOEXEC), exec(libc::ETXTBSY)), (127, 126, 126, 126));
    }

    #[test]
    fn messages_name_the_thing_and_the_way_out() {
        let error = CommandError::from_exec("./x".into(), io::Error::from_raw_os_error(libc::ENOEXEC));
        assert_eq!(error.to_string(), "./x: cannot execute: Exec format error (os error 8) (a script needs a first line like #!/bin/sh)");
        assert_eq!(CommandError::NotFound("nosuch".into()).to_string(), "nosuch: command not found");
    }
}

#[cfg(test)]
mod root_tests;
