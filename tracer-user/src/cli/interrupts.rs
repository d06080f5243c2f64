//! The signals that end what memtrail does by itself, in one place. SIGTERM always ends it. SIGINT, which is Ctrl-C, and SIGHUP, which a terminal
//! sends when it closes, do unless memtrail was started with them ignored, as a shell and `nohup` start what goes on in the background.
//!
//! With a command its signals are caught and passed on in [`crate::command`] instead.

use crate::command::signals;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for a signal that ends.
pub(super) struct Interrupts {
    /// `None` where it was ignored at the start, and stays so.
    interrupt: Option<Signal>,
    /// The same.
    hangup: Option<Signal>,
    terminate: Signal,
}

impl Interrupts {
    /// Catches them from now on.
    pub(super) fn catch() -> Result<Interrupts> {
        let wanted = |number: i32| -> Result<Option<Signal>> {
            let is_wanted = !signals::is_ignored(number).context("cannot look at SIGINT and SIGHUP")?;
            is_wanted.then(|| signal(SignalKind::from_raw(number))).transpose().context("cannot wait for SIGINT and SIGHUP")
        };
        let (interrupt, hangup) = (wanted(libc::SIGINT)?, wanted(libc::SIGHUP)?);
        Ok(Interrupts { interrupt, hangup, terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")? })
    }

    /// Returns when one came. May be dropped at any time.
    pub(super) async fn next(&mut self) {
        async fn of(signal: &mut Option<Signal>) {
            match signal {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            };
        }
        let Interrupts { interrupt, hangup, terminate } = self;
        tokio::select! {
            () = of(interrupt) => {}
            () = of(hangup) => {}
            _ = terminate.recv() => {}
        }
    }
}
