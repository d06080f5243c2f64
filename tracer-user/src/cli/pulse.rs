//! What every verb that traces waits for: the kernel half's rings, and the time of the next reading.

use super::{traced::Traced, watch::watch};
use crate::{host::clock::monotonic_ns, trace::oom::Kills};
use anyhow::{Context as _, Result};
use std::{os::fd::OwnedFd, time::Duration};
use tokio::{
    io::unix::{AsyncFd, AsyncFdReadyGuard},
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tracer_common::births::Births;

/// Time between two looks at the cgroups that come and go where they do so in a storm: hundreds a second cost some fifty wakeups, and their
/// ring holds a thousand. Otherwise they are looked at at once: a container's files may be gone when it is.
const PACE: Duration = Duration::from_millis(20);

/// The rings and the clock of a trace.
pub(super) struct Pulse {
    kills: Kills,
    events: AsyncFd<OwnedFd>,
    /// How often they were looked at lately; a storm is what it is to the kernel half.
    looks: Births,
    /// When they are looked at next, if there are any.
    next_events: Instant,
    ticks: tokio::time::Interval,
}

/// What has happened, and is to be taken in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Cgroups have come or gone.
    Events,
    /// The kernel half has sent OOM events.
    Kill,
    /// A reading is due.
    Tick,
}

impl Pulse {
    /// Of a trace that is read at this interval.
    pub(super) fn of(trace: &dyn Traced, interval: Duration) -> Result<Pulse> {
        let kills = trace.kills()?;
        let events = watch(trace.events_fd()?).context("cannot watch the cgroups")?;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Pulse { kills, events, looks: Births::default(), next_events: Instant::now(), ticks })
    }

    /// The next thing that happens. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Result<Beat> {
        tokio::select! {
            // Between two readings hundreds of cgroups can come and go.
            ready = readable_from(&self.events, self.next_events) => {
                // Cleared before the ring is read: what comes during the reading wakes again.
                ready?.clear_ready();
                let is_storm = self.looks.doublings(monotonic_ns()) > 0;
                self.next_events = Instant::now() + if is_storm { PACE } else { Duration::ZERO };
                Ok(Beat::Events)
            }
            // At once: pictures of further kills need the room.
            kill = self.kills.next() => kill.context("cannot wait for OOM kills").map(|()| Beat::Kill),
            _ = self.ticks.tick() => Ok(Beat::Tick),
        }
    }
}

/// When there is something to read, that moment at the earliest.
async fn readable_from(events: &AsyncFd<OwnedFd>, earliest: Instant) -> std::io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    sleep_until(earliest).await;
    events.readable().await
}
