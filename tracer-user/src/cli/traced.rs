//! What the verbs' event loop drives: a running trace, as far as they need one. A trait, so that tests can drive one that fails.

use crate::{
    cgroup::CgroupId,
    output::stream::Cost,
    recording::Header,
    report::{Interval, Report, distribution::Increment},
    trace::{oom::Kills, session::Session},
};
use anyhow::{Context as _, Result};
use std::os::fd::OwnedFd;

/// A running trace.
pub trait Traced {
    /// Tells of OOM events.
    ///
    /// # Errors
    /// When they cannot be watched.
    fn kills(&self) -> Result<Kills>;

    /// Becomes readable when cgroups have come or gone.
    ///
    /// # Errors
    /// When there are no descriptors left.
    fn events_fd(&self) -> Result<OwnedFd>;

    /// Takes in that cgroups have come or gone.
    ///
    /// # Errors
    /// When the kernel half's tables cannot be read or written.
    fn take_events(&mut self) -> Result<()>;

    /// Takes in OOM events.
    ///
    /// # Errors
    /// As [`Traced::take_events`].
    fn drain_oom(&mut self) -> Result<()>;

    /// A point of the series.
    ///
    /// # Errors
    /// As [`Traced::take_events`].
    fn interval(&mut self) -> Result<Interval>;

    /// The report as of now.
    ///
    /// # Errors
    /// As [`Traced::take_events`].
    fn report(&mut self) -> Result<Report>;

    /// What came to the distributions since the last call.
    ///
    /// # Errors
    /// As [`Traced::take_events`].
    fn distributions(&mut self) -> Result<Increment>;

    /// The same as of the last report, and nothing that came later.
    fn last_distributions(&mut self) -> Increment;

    /// From now on intervals have live bytes.
    fn want_live(&mut self);

    /// What a recording begins with.
    fn header(&self) -> Header;

    /// Path of a cgroup, or what stands for it.
    fn cgroup_name(&self, id: CgroupId) -> String;

    /// Seconds since the start.
    fn elapsed_s(&self) -> f64;

    /// Monotonic, boot-clock and real nanoseconds of this moment.
    fn clocks(&self) -> [u64; 3];

    /// What the recording costs so far.
    fn cost(&self) -> Cost;
}

impl Traced for Session {
    fn kills(&self) -> Result<Kills> {
        Session::kills(self).context("cannot watch for OOM kills")
    }

    fn events_fd(&self) -> Result<OwnedFd> {
        Session::events_fd(self).context("cannot watch the cgroups")
    }

    fn take_events(&mut self) -> Result<()> {
        Ok(Session::take_events(self)?)
    }

    fn drain_oom(&mut self) -> Result<()> {
        Session::drain_oom(self)?;
        Ok(())
    }

    fn interval(&mut self) -> Result<Interval> {
        Ok(Session::interval(self)?)
    }

    fn report(&mut self) -> Result<Report> {
        Ok(Session::report(self)?)
    }

    fn distributions(&mut self) -> Result<Increment> {
        Ok(Session::distributions(self)?)
    }

    fn last_distributions(&mut self) -> Increment {
        Session::last_distributions(self)
    }

    fn want_live(&mut self) {
        Session::want_live(self);
    }

    fn header(&self) -> Header {
        Session::header(self)
    }

    fn cgroup_name(&self, id: CgroupId) -> String {
        Session::cgroup_name(self, id)
    }

    fn elapsed_s(&self) -> f64 {
        Session::elapsed_s(self)
    }

    fn clocks(&self) -> [u64; 3] {
        Session::clocks(self)
    }

    fn cost(&self) -> Cost {
        Session::cost(self)
    }
}
