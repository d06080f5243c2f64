//! Names of threads that run now. Thread ids are used again: a name is only that of the thread that lived at a given moment.

use super::event::{Comm, comm_from};
use super::listing::parse_stat;
use super::sys;
use std::fs;

/// `/proc` tells start times in ticks of 10 ms.
const TICK_SLACK_NS: u64 = 30_000_000;

/// The name of a thread of a process, if it still runs and ran at that moment of CLOCK_MONOTONIC already.
#[must_use]
pub fn name_at(tgid: u32, tid: u32, monotonic_ns: u64) -> Option<Comm> {
    let bytes = fs::read(format!("/proc/{tgid}/task/{tid}/stat")).ok()?;
    let stat = parse_stat(&bytes)?;
    let since_boot = u128::from(stat.start_ticks) * 1_000_000_000 / u128::from(sys::ticks_per_second());
    let suspended = crate::host::clock::boot_ns().saturating_sub(crate::host::clock::monotonic_ns());
    let started = u64::try_from(since_boot).ok()?.saturating_sub(suspended);
    (started <= monotonic_ns.saturating_add(TICK_SLACK_NS)).then(|| comm_from(stat.comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name_from_its_start_on() {
        let (hello, told) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("memtrail (name".to_owned()).spawn(move || {
            // SAFETY: no pointers.
            hello.send(unsafe { libc::gettid() }).unwrap();
            let _ = finished.recv();
        });
        let tid = u32::try_from(told.recv().unwrap()).unwrap();
        let own = std::process::id();
        let name = name_at(own, tid, crate::host::clock::monotonic_ns()).unwrap();
        assert!(name.starts_with(b"memtrail (name\0"), "{name:?}");
        assert_eq!(name_at(own, tid, 0), None, "another thread had this id then");
        drop(finish);
        thread.unwrap().join().unwrap();
        assert_eq!(name_at(own, tid, crate::host::clock::monotonic_ns()), None);
        assert_eq!(name_at(1, own, crate::host::clock::monotonic_ns()), None, "a thread of another process");
    }
}
