//! Catches SIGINT, SIGTERM and SIGHUP, so that they can be passed on, and says whether the terminal sent them.
//!
//! A signal that was ignored when memtrail began (nohup, a script's background job) is left alone, and the command begins with it ignored. SIGTERM
//! alone is caught all the same: something must end memtrail in order.
//!
//! The terminal's Ctrl-C goes to the whole foreground process group, the command included: passing it on too would deliver it twice.

use super::sys;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The signals that are passed on to the command.
pub const PASSED_ON: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Whether a signal was ignored when memtrail began, and so is not to end anything.
///
/// # Errors
/// The kernel's.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    sys::is_ignored(signal)
}

/// A signal that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub signal: i32,
    /// The kernel sent it (Ctrl-C, hang-up) and not a process.
    pub from_terminal: bool,
}

/// Write end of the pipe that the handler writes to; -1 before there is one. Never closed: a handler may be about to use it.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let fd = PIPE.load(Ordering::Relaxed);
    if fd >= 0 {
        let mut record = [0; 8];
        record[..4].copy_from_slice(&signal.to_ne_bytes());
        record[4..].copy_from_slice(&sys::signal_code(info).to_ne_bytes());
        sys::write_from_handler(fd, record);
    }
}

/// The caught signals, in order. There can be one in a process.
#[derive(Debug)]
pub struct Signals {
    pipe: PipeReader,
}

impl Signals {
    /// Catches [`PASSED_ON`] from now on, and to the end of the process. A signal that is ignored stays ignored, but for SIGTERM.
    ///
    /// # Errors
    /// The kernel's; `AlreadyExists` if they are being caught.
    pub fn catch() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        sys::set_nonblocking(reader.as_fd())?;
        sys::set_nonblocking(writer.as_fd())?;
        if PIPE.compare_exchange(-1, writer.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let _kept_open = writer.into_raw_fd();
        for signal in PASSED_ON {
            if signal == libc::SIGTERM || !sys::is_ignored(signal)? {
                sys::handle(signal, on_signal)?;
            }
        }
        Ok(Signals { pipe: reader })
    }

    /// Becomes readable when a signal came in.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The next signal, if one came in. Does not wait.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<Option<Caught>> {
        let mut record = [0; 8];
        match (&self.pipe).read(&mut record) {
            Ok(8) => Ok(Some(decode(record))),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn decode(record: [u8; 8]) -> Caught {
    let [a, b, c, d, code @ ..] = record;
    Caught { signal: i32::from_ne_bytes([a, b, c, d]), from_terminal: i32::from_ne_bytes(code) == libc::SI_KERNEL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminals_signals_are_told_from_a_process() {
        let record = |signal: i32, code: i32| {
            let mut record = [0; 8];
            record[..4].copy_from_slice(&signal.to_ne_bytes());
            record[4..].copy_from_slice(&code.to_ne_bytes());
            record
        };
        assert_eq!(decode(record(libc::SIGINT, libc::SI_KERNEL)), Caught { signal: libc::SIGINT, from_terminal: true });
        assert_eq!(decode(record(libc::SIGTERM, libc::SI_USER)), Caught { signal: libc::SIGTERM, from_terminal: false });
        assert!(!decode(record(libc::SIGTERM, libc::SI_TKILL)).from_terminal);
    }
}
