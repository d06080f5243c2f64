//! Waiting for OOM events.

use std::os::fd::OwnedFd;
use tokio::io::{Interest, unix::AsyncFd};

/// Tells when the kernel half has sent OOM events.
pub struct Kills(AsyncFd<OwnedFd>);

impl Kills {
    /// Watches a descriptor that becomes readable when there are events.
    ///
    /// # Errors
    /// When the event loop does not take it.
    pub fn of(descriptor: OwnedFd) -> std::io::Result<Kills> {
        // SAFETY: the descriptor is owned, so it stays open and the same as long as it is registered.
        Ok(Kills(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?))
    }

    /// Returns when there may be an event: the ring is to be read until it is empty then.
    ///
    /// # Errors
    /// When the event loop fails.
    pub async fn next(&mut self) -> std::io::Result<()> {
        // Cleared before the ring is read: what comes during the reading wakes again.
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }
}
