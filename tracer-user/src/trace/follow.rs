//! Following processes (`--pid`): who they are on the host, and their place in the kernel half's table.
//!
//! The kernel half adds their later children and takes out what has ended; here only the first ones are put in.

use crate::kernel_half::{BpfError, KernelHalf, tables::followed};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
};

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

/// What `/proc/PID/status` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    tgid: u32,
    /// In the pid namespace that /proc is of.
    host_tgid: u32,
    /// Some thread has not ended.
    runs: bool,
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
    /// Its `/proc/PID/status`, open: it never becomes that of a later process with the same id.
    status: File,
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
        let ended = self.processes.iter().filter(|process| !read(&process.status).is_ok_and(|status| status.runs));
        ended.map(|process| process.tgid).try_for_each(|tgid| followed::forget(bpf, tgid))
    }
}

fn find(pid: u32) -> Result<Process, FollowError> {
    let gone = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => FollowError::Unknown(pid),
        _ => FollowError::Read(pid, error),
    };
    let file = File::open(format!("/proc/{pid}/status")).map_err(gone)?;
    let status = read(&file).map_err(gone)?;
    if status.tgid != pid {
        return Err(FollowError::Thread(pid, status.tgid));
    }
    if !status.runs {
        return Err(FollowError::Ended(pid));
    }
    Ok(Process { tgid: status.host_tgid, status: file })
}

fn read(mut file: &File) -> io::Result<Status> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    // The name can hold any byte but a newline, which is escaped.
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::Error::other("not understood"))
}

fn parse(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next();
    let tgid = field("Tgid:")?.parse().ok()?;
    // From the outermost namespace inwards. Absent without CONFIG_PID_NS: then there is only one.
    let host_tgid = field("NStgid:").map_or(Some(tgid), |id| id.parse().ok())?;
    let threads: u32 = field("Threads:")?.parse().ok()?;
    // A leader may have ended before its threads.
    let runs = !matches!(field("State:")?, "Z" | "X") || threads > 1;
    Some(Status { tgid, host_tgid, runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tx\\nTgid:\t9\nState:\tS (sleeping)\nTgid:\t12\nPid:\t12\nPPid:\t1\nNStgid:\t4711\t12\nNSpid:\t4711\t12\nThreads:\t1\n";

    #[test]
    fn the_outermost_id_is_the_hosts() {
        assert_eq!(parse(STATUS), Some(Status { tgid: 12, host_tgid: 4711, runs: true }));
        assert_eq!(parse(&STATUS.replace("NStgid:\t4711\t12\n", "")), Some(Status { tgid: 12, host_tgid: 12, runs: true }));
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_still_runs() {
        let zombie = STATUS.replace("S (sleeping)", "Z (zombie)");
        assert!(!parse(&zombie).unwrap().runs);
        assert!(parse(&zombie.replace("Threads:\t1", "Threads:\t2")).unwrap().runs);
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
