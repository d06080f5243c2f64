//! Following processes (`--pid`): who they are on the host, and their place in the kernel half's table.
//!
//! The kernel half adds their later children and takes out what has ended; here only the first ones are put in.

use crate::{
    host::proc::{self, status::Status},
    kernel_half::{BpfError, KernelHalf, tables::followed},
};
use std::io;

/// Why a process cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// No such process.
    #[error("no process {0}: --pid takes the id of one that runs, as `ps` shows it here")]
    Unknown(u32),
    /// A thread.
    #[error("{0} is a thread of process {1}: pass --pid {1}")]
    Thread(u32, u32),
    /// It has ended and only waits to be reaped.
    #[error("process {0} has ended already: its parent has not taken notice yet")]
    Ended(u32),
    /// What the ids mean on the host cannot be known here.
    #[error(
        "--pid {0}: in a pid namespace of its own memtrail does not see the host's process ids, which the kernel half goes by; run it in the initial one (--pid=host in a container)"
    )]
    Namespace(u32),
    /// More processes than the table holds.
    #[error("{0} processes to follow, and the table holds {1}")]
    TooMany(usize, u32),
    /// /proc.
    #[error("/proc/{0}/status: {1}")]
    Read(u32, io::Error),
}

/// Processes to follow.
#[derive(Debug, Default)]
pub struct Following {
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    /// In the initial pid namespace.
    tgid: u32,
    /// Its directory in `/proc`: it never becomes that of a later process with the same id.
    directory: proc::Process,
}

impl Following {
    /// Finds these processes, in memtrail's own pid namespace. `initial` says whether that is the host's; unknown passes.
    pub fn find(pids: &[u32], initial: Option<bool>) -> Result<Following, FollowError> {
        let mut processes: Vec<Process> = Vec::new();
        for pid in pids {
            if initial == Some(false) {
                return Err(FollowError::Namespace(*pid));
            }
            let process = find(*pid)?;
            if processes.iter().all(|known| known.tgid != process.tgid) {
                processes.push(process);
            }
        }
        Ok(Following { processes })
    }

    /// Whether there is none, so that everything is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Their ids in the initial pid namespace.
    pub fn tgids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(|process| process.tgid)
    }

    /// Complains if the table is too small for them.
    pub fn fits(&self, entries: u32) -> Result<(), FollowError> {
        let count = self.processes.len();
        if count as u64 > u64::from(entries) { Err(FollowError::TooMany(count, entries)) } else { Ok(()) }
    }

    /// Puts them in the kernel half's table.
    pub fn write(&self, bpf: &mut KernelHalf) -> Result<(), BpfError> {
        self.tgids().try_for_each(|tgid| followed::follow(bpf, tgid))
    }

    /// Takes those out that ended before the kernel half could see it: their ids may be others' by now. To be called when everything is
    /// attached.
    pub fn settle(&self, bpf: &mut KernelHalf) -> Result<(), BpfError> {
        let ended = self.processes.iter().filter(|process| !process.directory.status().is_ok_and(|status| runs(&status)));
        ended.map(|process| process.tgid).try_for_each(|tgid| followed::forget(bpf, tgid))
    }
}

fn find(pid: u32) -> Result<Process, FollowError> {
    let gone = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => FollowError::Unknown(pid),
        _ => FollowError::Read(pid, error),
    };
    let directory = proc::Process::open(pid).map_err(gone)?;
    let status = directory.status().map_err(gone)?;
    let tgid = status.tgid.ok_or_else(|| FollowError::Read(pid, io::Error::other("not understood")))?;
    if tgid != pid {
        return Err(FollowError::Thread(pid, tgid));
    }
    if !runs(&status) {
        return Err(FollowError::Ended(pid));
    }
    Ok(Process { tgid: host_tgid(&status).unwrap_or(tgid), directory })
}

/// Whether some thread has not ended: a leader may have ended before the others.
fn runs(status: &Status) -> bool {
    !matches!(status.state, None | Some(b'Z' | b'X')) || status.threads.is_some_and(|threads| threads > 1)
}

/// Its id in the pid namespace that `/proc` is of: the outermost. Absent without CONFIG_PID_NS: then there is only one.
fn host_tgid(status: &Status) -> Option<u32> {
    status.tgid_by_namespace.first().copied().or(status.tgid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tx\nState:\tS (sleeping)\nTgid:\t12\nPid:\t12\nPPid:\t1\nNStgid:\t4711\t12\nNSpid:\t4711\t12\nThreads:\t1\n";

    #[test]
    fn the_outermost_id_is_the_hosts() {
        let host = |text: &str| host_tgid(&Status::parse(text.as_bytes()));
        assert_eq!(host(STATUS), Some(4711));
        assert_eq!(host(&STATUS.replace("NStgid:\t4711\t12\n", "")), Some(12));
        assert_eq!(host("Name:\tx\n"), None);
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_still_runs() {
        let runs = |text: &str| runs(&Status::parse(text.as_bytes()));
        let zombie = STATUS.replace("S (sleeping)", "Z (zombie)");
        assert!(runs(STATUS) && !runs(&zombie));
        assert!(runs(&zombie.replace("Threads:\t1", "Threads:\t2")));
    }

    #[test]
    fn each_reason_to_refuse_is_told() {
        let own = std::process::id();
        assert_eq!(Following::find(&[own, own], Some(true)).unwrap().tgids().count(), 1);
        assert!(matches!(Following::find(&[own], Some(false)), Err(FollowError::Namespace(_))));
        // No pid is that large (PID_MAX_LIMIT is 2^22).
        assert!(matches!(Following::find(&[u32::MAX], None), Err(FollowError::Unknown(_))));
        let thread = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        // Tests run in threads of their own.
        let thread: u32 = thread.into_iter().find(|id| *id != own).unwrap();
        assert!(matches!(Following::find(&[thread], None), Err(FollowError::Thread(_, of)) if of == own));
        assert!(Following::default().is_empty());
    }
}
