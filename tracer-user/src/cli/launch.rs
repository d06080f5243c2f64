//! The command of `record -- CMD`: waiting in its cgroup, then running beside the recording's event loop, then gone.
//!
//! Joins [`crate::command`] to the event loop. Never decides what is recorded.

use super::watch::watch;
use crate::{
    cgroup::{CgroupPath, Hierarchy},
    command::{CommandError, Exit, GRACE, Gated, Place, Placement, Program, Removal, Running, signals::Signals, sweep_stale},
    text::units,
};
use anyhow::{Context as _, Result};
use std::{
    ffi::OsString,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// The cgroup in which a command runs. Dropped, it is removed, or left to the janitor while something runs in it.
struct Home {
    placement: Option<Placement>,
    /// memtrail's own cgroup: the command's where it has none of its own.
    own: Option<CgroupPath>,
}

impl Home {
    fn place(&self) -> Option<&Place> {
        self.placement.as_ref().and_then(Placement::place)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(Placement::Own(mut place)) = self.placement.take() else { return };
        match place.remove() {
            Removal::Removed => {}
            Removal::Populated { pids } => {
                let (noun, verb) = if pids.len() == 1 { ("process", "runs") } else { ("processes", "run") };
                eprintln!("memtrail: {} {noun} of the command still {verb} in {}: it is removed after them", pids.len(), place.path());
                place.leave_to_janitor();
            }
            Removal::Failed(reason) => {
                eprintln!("memtrail: {} could not be removed: {reason}", place.path());
                place.leave_to_janitor();
            }
        }
    }
}

/// A command that waits for the recording to begin. Dropped, it ends without having executed anything.
pub struct Waiting {
    // Before its cgroup: fields are dropped in this order.
    child: Gated,
    home: Home,
    name: String,
    program: Option<PathBuf>,
}

impl Waiting {
    /// Looks the command up, makes its cgroup, and forks it. Call it before anything large is in memory: the janitor and the command
    /// begin as copies of memtrail.
    pub fn prepare(command: &[OsString], limit: Option<u64>) -> Result<Waiting> {
        let program = Program::resolve(command)?;
        let hierarchy = Hierarchy::find()?;
        for path in sweep_stale(&hierarchy).populated {
            log::info!("{path}: processes that an earlier memtrail started still run there");
        }
        let placement = Placement::make(&hierarchy, limit)?;
        match &placement {
            Placement::Own(place) => place.warnings().iter().for_each(|warning| eprintln!("memtrail: {warning}")),
            Placement::Inherited { warning } => eprintln!("memtrail: {warning}"),
        }
        let home = Home { placement: Some(placement), own: hierarchy.own };
        let child = Gated::spawn(&program, home.place())?;
        let name = program.name().to_string_lossy().into_owned();
        Ok(Waiting { child, home, name, program: program.path() })
    }

    /// The cgroup to record; `None` if it cannot be told.
    pub fn cgroup(&self) -> Option<&CgroupPath> {
        self.home.place().map(Place::path).or(self.home.own.as_ref())
    }

    /// The file that is going to be executed, as far as that is known before.
    pub fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// Its name, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it go. Signals to memtrail go to it from now on.
    pub fn release(self) -> Result<Launched> {
        let Waiting { child, home, name, program: _ } = self;
        let signals = Signals::catch().context("cannot catch signals")?;
        let caught = watch(signals.fd().try_clone_to_owned()?)?;
        let running = child.release()?;
        let ended = watch(running.pidfd().try_clone_to_owned()?)?;
        Ok(Launched { running, ended, signals, caught, home, name, since: Instant::now(), took: Duration::ZERO, terminated: false })
    }
}

/// A command that runs, or has ended.
pub struct Launched {
    running: Running,
    /// Readable when it has ended.
    ended: AsyncFd<OwnedFd>,
    signals: Signals,
    /// Readable when a signal came.
    caught: AsyncFd<OwnedFd>,
    home: Home,
    name: String,
    since: Instant,
    took: Duration,
    terminated: bool,
}

impl Launched {
    /// Waits until something happens to it, and passes signals on; whether it has ended. Can be dropped at any point.
    pub async fn event(&mut self) -> io::Result<bool> {
        tokio::select! {
            ready = self.ended.readable() => drop(ready?),
            ready = self.caught.readable() => {
                let mut ready = ready?;
                while let Some(caught) = self.signals.next()? {
                    self.running.pass_on(caught)?;
                }
                ready.clear_ready();
            }
        }
        self.took = self.since.elapsed();
        Ok(self.running.ended()?.is_some())
    }

    /// The time is over: SIGTERM, and when called again SIGKILL. Returns how long to wait before the next call, if there is to be one.
    pub fn end(&mut self) -> io::Result<Option<Duration>> {
        if self.terminated {
            self.running.signal(libc::SIGKILL)?;
            return Ok(None);
        }
        self.terminated = true;
        self.running.signal(libc::SIGTERM)?;
        // A stopped one could not heed it.
        self.running.signal(libc::SIGCONT)?;
        Ok(Some(GRACE))
    }

    /// One line on how it ended and what it took at most.
    pub fn epitaph(&mut self) -> io::Result<String> {
        let how = match self.running.ended()? {
            Some(Exit::Code(code)) => format!("ended with status {code}"),
            Some(Exit::Signal(signal)) => format!("was ended by signal {signal}"),
            None => "still runs".to_owned(),
        };
        let peak = self.peak().map(|bytes| format!("; at most {} at once", units::bytes(bytes))).unwrap_or_default();
        Ok(format!("{} {how} after {}{peak}", crate::text::escape(&self.name), units::duration(self.took)))
    }

    /// Most bytes charged to its cgroup at once, where the kernel tells (v1; v2 since 5.19).
    fn peak(&self) -> Option<u64> {
        let directory = self.home.place()?.directory();
        let text = ["memory.max_usage_in_bytes", "memory.peak"].iter().find_map(|file| fs::read_to_string(directory.join(file)).ok())?;
        text.trim().parse().ok()
    }

    /// memtrail's own status for how it ended.
    pub fn status(&mut self) -> io::Result<u8> {
        let code = self.running.ended()?.map_or(i32::from(super::status::FAILED_WITH_COMMAND), Exit::code);
        Ok(u8::try_from(code & 0xff).unwrap_or(super::status::FAILED_WITH_COMMAND))
    }
}

/// The exit status for a command that did not run; `None` for other errors.
pub fn status_of(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<CommandError>().and_then(|error| u8::try_from(error.exit_code()).ok())
}
