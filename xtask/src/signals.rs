//! The signal dispositions that test programs, and what they start, begin with. The tests' harness has this file too.

use std::{io, mem, os::unix::process::CommandExt as _, process::Command, ptr};

/// Lets the child begin as from a shell in the foreground: every signal has its default action, and none is blocked.
pub fn plain(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes async-signal-safe system calls on memory of its own, and allocates nothing.
    unsafe { command.pre_exec(reset) }
}

fn reset() -> io::Result<()> {
    // SAFETY: both are plain data for which zeros are valid, and the calls get pointers to them. Numbers that are no signals, and the two that cannot
    // be changed, give EINVAL and change nothing.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
        let none: libc::sigset_t = mem::zeroed();
        match libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
