//! The one event loop of the verbs that trace: readings at their time, cgroups that come and go, OOM kills, marks, the command, signals, and
//! the end of the time. What differs between verbs is a [`Task`].
//!
//! An error of a reading does not end a trace: it is told once, counted, and the next reading is tried at its time. Only when
//! [`MOST_FAILURES`] readings in a row have failed the loop ends, and the verb still writes all that it can.

use super::{interrupts::Interrupts, launch::Launched, marking::Marking, marking::Wish, pulse::Beat, pulse::Pulse, traced::Traced};
use crate::{serve::look::Ask, text::units};
use anyhow::{Result, anyhow};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Longer than any trace.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// So long after the last event of an OOM kill the verb is told: the kernel kills the victims of a group one after the other.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// Readings in a row that fail before the loop ends.
pub(super) const MOST_FAILURES: u32 = 10;
/// Different errors that are told; of one that is new every time, this many.
const MOST_TOLD: usize = 16;

/// What a verb does when something has happened. An error is one of a reading; what a verb cannot write is its own to keep.
pub(super) trait Task<T: Traced> {
    /// A reading is due.
    fn tick(&mut self, trace: &mut T) -> Result<()>;

    /// No more events of the kills so far are to be expected.
    fn kills(&mut self, _trace: &mut T) -> Result<()> {
        Ok(())
    }

    /// Somebody asks for a look at the trace.
    fn look(&mut self, _ask: Ask, _trace: &mut T) {}

    /// Somebody wishes for a mark.
    fn mark(&mut self, _marking: &mut Marking, _wish: Wish, _trace: &mut T) {}

    /// Whether the verb has what it waited for.
    fn is_over(&self) -> bool {
        false
    }
}

/// What ends a trace, and what happens beside it.
pub(super) struct Drive<'a> {
    /// Time between two readings.
    pub(super) interval: Duration,
    /// The end of the time, if there is one.
    pub(super) duration: Option<Duration>,
    /// Signals that end it; `None` where they are the command's.
    pub(super) interrupts: Option<Interrupts>,
    /// The command whose end is the trace's.
    pub(super) command: Option<&'a mut Launched>,
    /// Where marks can be wished for.
    pub(super) marking: Option<&'a mut Marking>,
    /// Where looks at the trace are asked for.
    pub(super) asks: Option<mpsc::Receiver<Ask>>,
    /// Show the time on the terminal, if it is one.
    pub(super) shows_time: bool,
}

/// Errors of readings.
#[derive(Default)]
pub(super) struct Faults {
    /// Readings that failed.
    count: u64,
    /// Since the last one that did not.
    in_a_row: u32,
    told: Vec<String>,
}

impl Faults {
    /// Takes the result of something between two readings.
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.count += 1;
            let text = format!("{error:#}");
            if self.told.len() < MOST_TOLD && !self.told.contains(&text) {
                eprintln!("memtrail: {text}; the trace goes on");
                self.told.push(text);
            }
        }
    }

    /// Takes the result of a reading: the error that ends the loop, if it is one too many.
    fn note_reading(&mut self, result: Result<()>) -> Result<()> {
        let Err(error) = result else {
            self.in_a_row = 0;
            return Ok(());
        };
        self.in_a_row += 1;
        if self.in_a_row >= MOST_FAILURES {
            self.count += 1;
            return Err(error.context(format!("{MOST_FAILURES} readings in a row failed")));
        }
        self.note(Err(error));
        Ok(())
    }

    /// How many readings failed.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// How the loop ended.
pub(super) struct Driven {
    /// Errors that did not end it.
    pub(super) faults: Faults,
    /// The one that did.
    pub(super) error: Option<anyhow::Error>,
}

impl Drive<'_> {
    /// Drives the trace to its end: that of the time, of the command, a signal, or what the verb waited for.
    pub(super) async fn run<T: Traced>(mut self, trace: &mut T, verb: &mut impl Task<T>) -> Driven {
        let mut faults = Faults::default();
        let progress = Progress::begin(self.shows_time);
        let error = self.follow(trace, verb, &mut faults, &progress).await.err();
        progress.end();
        Driven { faults, error }
    }

    async fn follow<T: Traced>(&mut self, trace: &mut T, verb: &mut impl Task<T>, faults: &mut Faults, progress: &Progress) -> Result<()> {
        let mut pulse = Pulse::of(trace, self.interval)?;
        let end = tokio::time::sleep(self.duration.unwrap_or(FOREVER));
        tokio::pin!(end);
        // Set while a kill may still get victims.
        let mut settle: Option<tokio::time::Instant> = None;
        while !verb.is_over() {
            let Drive { interrupts, command, marking, asks, .. } = self;
            let ended = async {
                match command.as_deref_mut() {
                    Some(command) => command.event().await,
                    None => std::future::pending().await,
                }
            };
            let interrupted = async {
                match interrupts {
                    Some(interrupts) => interrupts.next().await,
                    None => std::future::pending().await,
                }
            };
            let wished = async {
                match marking.as_deref_mut() {
                    Some(marking) => marking.next().await,
                    None => std::future::pending().await,
                }
            };
            let asked = async {
                match asks {
                    Some(asks) => match asks.recv().await {
                        Some(ask) => ask,
                        None => std::future::pending().await,
                    },
                    None => std::future::pending().await,
                }
            };
            let settled = async {
                match settle {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut end => match self.command.as_deref_mut() {
                    Some(command) => {
                        let next = command.end()?.unwrap_or(FOREVER);
                        end.as_mut().reset(tokio::time::Instant::now() + next);
                    }
                    None => return Ok(()),
                },
                () = interrupted => return Ok(()),
                ended = ended => if ended.map_err(|error| anyhow!(error).context("cannot wait for the command"))? { return Ok(()) },
                wish = wished => if let Some(marking) = self.marking.as_deref_mut() { verb.mark(marking, wish, trace) },
                ask = asked => verb.look(ask, trace),
                () = settled => {
                    settle = None;
                    faults.note(verb.kills(trace));
                }
                beat = pulse.next() => match beat? {
                    Beat::Events => faults.note(trace.take_events()),
                    Beat::Kill => {
                        faults.note(trace.drain_oom());
                        settle = Some(tokio::time::Instant::now() + SETTLE);
                    }
                    Beat::Tick => {
                        faults.note_reading(verb.tick(trace))?;
                        progress.show();
                    }
                },
            }
        }
        Ok(())
    }
}

/// The time that has passed, on a terminal.
struct Progress {
    /// `None` where it is not shown.
    since: Option<Instant>,
}

impl Progress {
    fn begin(is_shown: bool) -> Progress {
        Progress { since: (is_shown && std::io::stderr().is_terminal()).then(Instant::now) }
    }

    fn show(&self) {
        if let Some(since) = self.since {
            eprint!("\r\x1b[Kmemtrail: {} ", units::duration(Duration::from_secs(since.elapsed().as_secs())));
        }
    }

    fn end(&self) {
        if self.since.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
