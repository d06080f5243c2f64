//! Marks of the recording that runs here: where the wishes come from, and what is done with them.

use super::{series::Series, status::Conflict, traced::Traced};
use crate::cli::mark_socket::{self, Listener, Request};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use std::collections::HashSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that can make a mark: those that mean nothing by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MarkSignal {
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// A wish for a mark.
pub enum Wish {
    /// Through the socket.
    Asked(Request),
    /// By the signal.
    Signal,
}

/// The socket, the signal, and the marks so far.
pub struct Marking {
    listener: Option<Listener>,
    signal: Option<Signal>,
    signals: u64,
    names: HashSet<String>,
}

impl Marking {
    /// Catches the signal from now on. `holds_marks` says whether the recording has a place for marks.
    pub fn prepare(mark_signal: Option<MarkSignal>, holds_marks: bool) -> Result<Marking> {
        if mark_signal.is_some() && !holds_marks {
            return Err(Conflict("--mark-signal: nothing would hold the marks: add -o FILE.mtrail or --stream".to_owned()).into());
        }
        let kind = mark_signal.map(|which| match which {
            MarkSignal::Usr1 => SignalKind::user_defined1(),
            MarkSignal::Usr2 => SignalKind::user_defined2(),
        });
        let signal = kind.map(signal).transpose().context("cannot wait for the signal of marks")?;
        Ok(Marking { listener: None, signal, signals: 0, names: HashSet::new() })
    }

    /// Lets `memtrail mark` find the recording. It goes on without, where that cannot be.
    pub fn listen(&mut self) {
        match Listener::start() {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => log::warn!("memtrail mark cannot reach this recording: {error}"),
        }
    }

    /// The next wish. Can be dropped at any point; never ready where there can be none.
    pub async fn next(&mut self) -> Wish {
        let Marking { listener, signal, .. } = self;
        let asked = async {
            match listener {
                Some(listener) => match listener.next().await {
                    Some(request) => request,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let signalled = async {
            match signal {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = asked => Wish::Asked(request),
            _ = signalled => Wish::Signal,
        }
    }

    /// Makes the mark and answers. A failure is the asker's to know; the recording goes on.
    pub fn take(&mut self, wish: Wish, trace: &mut dyn Traced, series: &mut Series) {
        self.signals += u64::from(matches!(wish, Wish::Signal));
        let signals = self.signals;
        let mut make = |name: &str| self.make(name, trace, series);
        match wish {
            Wish::Asked(request) => {
                let result = make(&request.name);
                request.answer(result.map_err(|error| format!("{error:#}")));
            }
            Wish::Signal => {
                let name = format!("signal-{signals}");
                if let Err(error) = make(&name) {
                    log::warn!("no mark {name}: {error:#}");
                }
            }
        }
    }

    /// A snapshot in every recording, named. Its time in seconds.
    fn make(&mut self, name: &str, trace: &mut dyn Traced, series: &mut Series) -> Result<f64> {
        mark_socket::check_name(name).map_err(anyhow::Error::msg)?;
        anyhow::ensure!(!self.names.contains(name), "there is a mark {name} already");
        anyhow::ensure!(self.names.len() < mark_socket::MOST_MARKS, "it has {} marks, and more do not fit", mark_socket::MOST_MARKS);
        let at_s = series.mark(name, trace)?;
        self.names.insert(name.to_owned());
        log::info!("mark {name} at {at_s:.3} s");
        Ok(at_s)
    }
}
