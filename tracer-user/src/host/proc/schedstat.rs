//! `/proc/PID/task/TID/schedstat`: how long a thread ran, and how long it wanted to run and another one did.

use std::{fs::File, io, os::unix::fs::FileExt as _, time::Duration};

/// Three numbers of at most 20 digits.
const MOST_BYTES: usize = 64;

/// What the scheduler says of a thread, whoever asks.
#[derive(Debug)]
pub struct Schedstat(File);

impl Schedstat {
    /// That of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted, or the kernel was built without CONFIG_SCHED_INFO.
    pub fn of_this_thread() -> io::Result<Schedstat> {
        Ok(Schedstat(File::open("/proc/thread-self/schedstat")?))
    }

    /// How long it wanted to run and did not, since its start. What it waits for now is not counted yet.
    ///
    /// # Errors
    /// `ESRCH` if it has ended.
    pub fn waited(&self) -> io::Result<Duration> {
        let mut bytes = [0; MOST_BYTES];
        let length = self.0.read_at(&mut bytes, 0)?;
        waited(&bytes[..length]).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat: no second number"))
    }
}

/// The second of three numbers: nanoseconds on a run queue (Linux, Documentation/scheduler/sched-stats.rst).
fn waited(bytes: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_time_on_the_run_queue() {
        assert_eq!(waited(b"128911245 3001 57\n"), Some(Duration::from_nanos(3001)));
        assert_eq!(waited(b"0 0 0\n"), Some(Duration::ZERO));
        for bad in [&b""[..], b"12", b"12 x 3", b"12 -3 4", b"\xff 3 4", b"1 99999999999999999999 4"] {
            assert_eq!(waited(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_thread_that_has_ended_is_an_error() {
        let of_other = std::thread::spawn(|| Schedstat::of_this_thread().unwrap()).join().unwrap();
        assert!(of_other.waited().is_err());
        assert!(Schedstat::of_this_thread().unwrap().waited().is_ok());
    }
}
