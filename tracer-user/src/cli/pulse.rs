//! What every verb that traces waits for: the kernel half's rings, and the time of the next reading.

use super::launch::watch;
use crate::collector::{oom::Kills, session::Session};
use anyhow::{Context as _, Result};
use std::{os::fd::OwnedFd, time::Duration};
use tokio::{io::unix::AsyncFd, time::MissedTickBehavior};

/// The rings and the clock of a session.
pub(super) struct Pulse {
    kills: Kills,
    events: AsyncFd<OwnedFd>,
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
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Pulse { kills, events, ticks })
    }

    /// Takes in what the rings hold until a reading is due or a kill was taken in. May be dropped at any time.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Beat> {
        loop {
            tokio::select! {
                // Between two readings hundreds of cgroups can come and go.
                ready = self.events.readable() => {
                    let mut ready = ready?;
                    session.take_events()?;
                    ready.clear_ready();
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
