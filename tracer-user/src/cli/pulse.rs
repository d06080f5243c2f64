//! What every verb that traces waits for: the kernel half's rings, and the time of the next reading.

use super::launch::watch;
use crate::{
    host::clock::monotonic_ns,
    trace::{oom::Kills, session::Session},
};
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

/// The rings and the clock of a session.
pub(super) struct Pulse {
    kills: Kills,
    events: AsyncFd<OwnedFd>,
    /// How often they were looked at lately; a storm is what it is to the kernel half.
    looks: Births,
    /// When they are looked at next, if there are any.
    next_events: Instant,
    ticks: tokio::time::Interval,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// OOM events were taken in.
    Kill,
    /// A reading is due.
    Tick,
}

impl Pulse {
    /// Of a session that is read at this interval.
    pub(super) fn of(session: &Session, interval: Duration) -> Result<Pulse> {
        let kills = session.kills().context("cannot watch for OOM kills")?;
        let events = watch(session.events_fd()?)?;
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Pulse { kills, events, looks: Births::default(), next_events: Instant::now(), ticks })
    }

    /// Takes in what the rings hold until a reading is due or a kill was taken in. May be dropped at any time.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Beat> {
        loop {
            tokio::select! {
                // Between two readings hundreds of cgroups can come and go.
                ready = readable_from(&self.events, self.next_events) => {
                    let mut ready = ready?;
                    session.take_events()?;
                    ready.clear_ready();
                    let is_storm = self.looks.doublings(monotonic_ns()) > 0;
                    self.next_events = Instant::now() + if is_storm { PACE } else { Duration::ZERO };
                }
                // At once: pictures of further kills need the room.
                kill = self.kills.next() => {
                    kill.context("cannot wait for OOM kills")?;
                    session.drain_oom()?;
                    return Ok(Beat::Kill);
                }
                _ = self.ticks.tick() => return Ok(Beat::Tick),
            }
        }
    }
}

/// When there is something to read, that moment at the earliest.
async fn readable_from(events: &AsyncFd<OwnedFd>, earliest: Instant) -> std::io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    sleep_until(earliest).await;
    events.readable().await
}
