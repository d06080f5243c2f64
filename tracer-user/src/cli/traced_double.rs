//! A trace for tests: it gives what it is told to give, and fails when it is told to fail.

use super::traced::Traced;
use crate::{
    cgroup::CgroupId,
    output::stream::Cost,
    recording::Header,
    report::{Interval, IntervalCgroup, Report, distribution::Increment},
    trace::oom::Kills,
};
use anyhow::{Result, anyhow};
use std::{
    collections::BTreeMap,
    io::{PipeReader, PipeWriter, Write as _},
    os::fd::OwnedFd,
};

/// The double.
pub(super) struct Double {
    /// Whether the n-th reading, from 0, fails.
    pub(super) reading_fails: fn(u32) -> bool,
    /// Whether the n-th report, from 0, fails.
    pub(super) report_fails: fn(u32) -> bool,
    /// Whether taking cgroups' events in fails.
    pub(super) events_fail: bool,
    pub(super) readings: u32,
    pub(super) reports: u32,
    pub(super) events_taken: u32,
    pub(super) kills_taken: u32,
    pub(super) events: (PipeReader, PipeWriter),
    pub(super) kills: (PipeReader, PipeWriter),
}

impl Double {
    pub(super) fn new() -> Double {
        let pipe = || std::io::pipe().expect("a pipe");
        Double {
            reading_fails: |_| false,
            report_fails: |_| false,
            events_fail: false,
            readings: 0,
            reports: 0,
            events_taken: 0,
            kills_taken: 0,
            events: pipe(),
            kills: pipe(),
        }
    }

    /// A cgroup comes.
    pub(super) fn make_event(&mut self) {
        self.events.1.write_all(b"x").expect("a pipe takes a byte");
    }

    /// Somebody is killed.
    pub(super) fn make_kill(&mut self) {
        self.kills.1.write_all(b"x").expect("a pipe takes a byte");
    }
}

impl Traced for Double {
    fn kills(&self) -> Result<Kills> {
        Ok(Kills::of(self.kills.0.try_clone()?.into())?)
    }

    fn events_fd(&self) -> Result<OwnedFd> {
        Ok(self.events.0.try_clone()?.into())
    }

    fn take_events(&mut self) -> Result<()> {
        self.events_taken += 1;
        if self.events_fail { Err(anyhow!("EVENTS: busy")) } else { Ok(()) }
    }

    fn drain_oom(&mut self) -> Result<()> {
        self.kills_taken += 1;
        Ok(())
    }

    fn interval(&mut self) -> Result<Interval> {
        self.readings += 1;
        if (self.reading_fails)(self.readings - 1) {
            return Err(anyhow!("KEYS: device or resource busy"));
        }
        let cgroup = IntervalCgroup { usage_bytes: Some(4096), kinds: [("anon".to_owned(), 4096)].into(), ..IntervalCgroup::default() };
        Ok(Interval { at_s: f64::from(self.readings), cgroups: BTreeMap::from([("1".to_owned(), cgroup)]), ..Interval::default() })
    }

    fn report(&mut self) -> Result<Report> {
        self.reports += 1;
        if (self.report_fails)(self.reports - 1) {
            return Err(anyhow!("STACKS: device or resource busy"));
        }
        Ok(Report { tool: "memtrail test".into(), duration_s: f64::from(self.readings), ..Report::default() })
    }

    fn distributions(&mut self) -> Result<Increment> {
        Ok(Increment::default())
    }

    fn last_distributions(&mut self) -> Increment {
        Increment::default()
    }

    fn want_live(&mut self) {}

    fn header(&self) -> Header {
        Header { tool: "memtrail test".into(), started: "2026-01-01T00:00:00Z".into(), ..Header::default() }
    }

    fn cgroup_name(&self, id: CgroupId) -> String {
        format!("/{}", id.0)
    }

    fn elapsed_s(&self) -> f64 {
        f64::from(self.readings)
    }

    fn clocks(&self) -> [u64; 3] {
        [1, 2, 3]
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }
}
