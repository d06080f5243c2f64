//! The signals that end what memtrail does by itself, in one place. SIGTERM always ends it. SIGINT, which is Ctrl-C, does unless memtrail
//! was started with it ignored, as a shell starts what it puts into the background. SIGHUP has the effect that the system gives it.
//!
//! With a command its signals are caught and passed on in [`crate::command`] instead.

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
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let interrupt =
            if is_ignored(&status, libc::SIGINT) { None } else { Some(signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?) };
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

/// Whether a process of that `/proc/PID/status` ignores a signal. Its mask has the bit N-1 for signal N.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::is_ignored;

    #[test]
    fn ignored_signals_are_those_of_the_mask() {
        // `sh -c 'trap "" INT QUIT; grep SigIgn /proc/self/status'`
        let status = "Name:\tgrep\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000006\nSigCgt:\t0000000000000000\n";
        assert!(is_ignored(status, libc::SIGINT) && is_ignored(status, libc::SIGQUIT));
        assert!(!is_ignored(status, libc::SIGTERM) && !is_ignored(status, libc::SIGHUP));
        assert!(!is_ignored("", libc::SIGINT) && !is_ignored("SigIgn:\tx\n", libc::SIGINT) && !is_ignored(status, 0));
    }
}
