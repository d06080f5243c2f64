//! Joins a descriptor to the event loop.

use std::{io, os::fd::OwnedFd};
use tokio::io::{Interest, unix::AsyncFd};

/// Watches until it becomes readable.
#[expect(deprecated, reason = "sound for an owned descriptor, which stays open as long as it is watched; its replacement is unsafe")]
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
