//! The command as a process: forked and waiting, then running, then ended.

use super::signals::Caught;
use super::sys::{self, ChildEnds, Stage};
use super::{CommandError, Exit, Place, Program};
use crate::host::lock;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Held from the making of the pipes to the closing of the child's ends: a child forked in between by another thread would keep copies, and the
/// end of file that tells of a successful exec would wait for that child's.
static FORKING: Mutex<()> = Mutex::new(());

/// A child that is in its cgroup and waits to be let go. Dropped without that, it ends without having executed anything; so it does
/// when memtrail is killed.
#[derive(Debug)]
pub struct Gated {
    program: OsString,
    gate: Option<PipeWriter>,
    report: PipeReader,
    running: Option<Running>,
}

impl Gated {
    /// Forks the child, into the cgroup if there is one.
    ///
    /// # Errors
    /// [`CommandError::Cgroup`] or [`CommandError::System`].
    pub fn spawn(program: &Program, place: Option<&Place>) -> Result<Self, CommandError> {
        let system = |what| move |source| CommandError::System { what, source };
        let procs = place.map(|place| File::options().write(true).open(place.directory().join("cgroup.procs"))).transpose();
        let procs = procs.map_err(CommandError::Cgroup)?;
        let forking = lock(&FORKING);
        let (childs_gate, gate) = io::pipe().map_err(system("cannot make a pipe"))?;
        let (report, childs_report) = io::pipe().map_err(system("cannot make a pipe"))?;
        let ends = ChildEnds {
            gate: childs_gate.as_fd(),
            report: childs_report.as_fd(),
            procs: procs.as_ref().map(AsFd::as_fd),
            parents_gate: gate.as_fd(),
        };
        let pid = sys::fork_gated(program, &ends).map_err(system("cannot fork"))?;
        drop((childs_gate, childs_report, forking));
        let pidfd = sys::pidfd_open(pid).map_err(system("cannot follow the command's end"))?;
        let mut gated =
            Gated { program: program.name().to_owned(), gate: Some(gate), report, running: Some(Running { pid, pidfd, ended: None }) };
        match gated.read_report().map_err(system("cannot read from the child"))? {
            Some((Stage::Ready, _)) => Ok(gated),
            Some((Stage::Cgroup, errno)) => Err(CommandError::Cgroup(io::Error::from_raw_os_error(errno))),
            _ => Err(system("the child ended before it began")(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Process id of the child: the command's from exec on.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::pid)
    }

    /// Lets the child execute the command, and waits until it has.
    ///
    /// # Errors
    /// [`CommandError::NotFound`] or [`CommandError::NotExecutable`] if exec failed; the child is gone then.
    pub fn release(mut self) -> Result<Running, CommandError> {
        let system = |what| move |source| CommandError::System { what, source };
        if let Some(mut gate) = self.gate.take() {
            match gate.write_all(&[1]) {
                // A signal ended it at the gate: its status will tell.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other.map_err(system("cannot let the child go"))?,
            }
        }
        // End of file: exec closed the child's end.
        if let Some((Stage::Exec, errno)) = self.read_report().map_err(system("cannot read from the child"))? {
            return Err(CommandError::from_exec(std::mem::take(&mut self.program), io::Error::from_raw_os_error(errno)));
        }
        self.running.take().ok_or_else(|| system("the child is gone")(io::ErrorKind::NotFound.into()))
    }

    fn read_report(&mut self) -> io::Result<Option<(Stage, i32)>> {
        let mut report = [0; 8];
        match self.report.read_exact(&mut report) {
            Ok(()) => Ok(Stage::decode(report)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        drop(self.gate.take());
        // Nothing was executed: it ends by itself when it reads the end of the gate.
        if let Some(running) = self.running.as_mut() {
            let _ = running.wait();
        }
    }
}

/// The command, from exec to its end.
#[derive(Debug)]
pub struct Running {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    ended: Option<Exit>,
}

impl Running {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Becomes readable when the command has ended: for an event loop of the caller's.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its end, if it has ended. Does not wait.
    ///
    /// # Errors
    /// The kernel's, ECHILD if somebody else reaped it.
    pub fn ended(&mut self) -> io::Result<Option<Exit>> {
        if self.ended.is_none() {
            self.ended = sys::reap(self.pid, false)?;
        }
        Ok(self.ended)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Running::ended`].
    pub fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.ended()? {
                return Ok(exit);
            }
            sys::readable([self.pidfd.as_raw_fd()], -1)?;
        }
    }

    /// Waits for its end, until `deadline` at the longest.
    ///
    /// # Errors
    /// As [`Running::ended`].
    pub fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<Exit>> {
        loop {
            let (exit, left) = (self.ended()?, deadline.saturating_duration_since(Instant::now()));
            if exit.is_some() || left.is_zero() {
                return Ok(exit);
            }
            sys::readable([self.pidfd.as_raw_fd()], poll_ms(left))?;
        }
    }

    /// Sends it a signal, if it has not ended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&mut self, signal: i32) -> io::Result<()> {
        // Until it is reaped its pid means nobody else.
        if self.ended()?.is_none() { sys::signal(self.pid, signal) } else { Ok(()) }
    }

    /// Passes a signal on that memtrail caught, unless the terminal has sent it to the command as well.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pass_on(&mut self, caught: Caught) -> io::Result<()> {
        if caught.from_terminal && sys::in_own_process_group(self.pid) { Ok(()) } else { self.signal(caught.signal) }
    }

    /// Ends it: SIGTERM, after `grace` SIGKILL. A stopped command is continued, so that it can heed the first.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(&mut self, grace: Duration) -> io::Result<Exit> {
        self.signal(libc::SIGTERM)?;
        self.signal(libc::SIGCONT)?;
        if let Some(exit) = self.wait_until(Instant::now() + grace)? {
            return Ok(exit);
        }
        self.signal(libc::SIGKILL)?;
        self.wait()
    }
}

/// Rounded up, so that a wait never ends just before its deadline and spins.
fn poll_ms(left: Duration) -> i32 {
    i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
