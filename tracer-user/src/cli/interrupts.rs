//! The signals that end what memtrail does by itself, in one place. SIGTERM always ends it. SIGINT, which is Ctrl-C, does unless memtrail
//! was started with it ignored, as a shell starts what it puts into the background. SIGHUP has the effect that the system gives it.
//!
//! With a command its signals are caught and passed on in [`crate::command`] instead.

use crate::command::signals;
use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for a signal that ends.
pub(super) struct Interrupts {
    /// `None` where it was ignored at the start, and stays so.
    interrupt: Option<Signal>,
    terminate: Signal,
}

impl Interrupts {
    /// Catches them from now on.
    pub(super) fn catch() -> Result<Interrupts> {
        let is_wanted = !signals::is_ignored(libc::SIGINT).context("cannot look at SIGINT")?;
        let interrupt = is_wanted.then(|| signal(SignalKind::interrupt())).transpose().context("cannot wait for Ctrl-C")?;
        Ok(Interrupts { interrupt, terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")? })
    }

    /// Returns when one came. May be dropped at any time.
    pub(super) async fn next(&mut self) {
        let Interrupts { interrupt, terminate } = self;
        let interrupted = async {
            match interrupt {
                Some(interrupt) => interrupt.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupted => {}
            _ = terminate.recv() => {}
        }
    }
}
