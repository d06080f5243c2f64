//! Names of threads that run now. Thread ids are used again: a name is only that of the thread that lived at a given moment.

use crate::host::proc::{Process, comm, stat::SLACK_NS};

/// The name of a thread of a process, escaped, if it still runs and ran at that moment of CLOCK_MONOTONIC already.
#[must_use]
pub fn name_at(tgid: u32, tid: u32, monotonic_ns: u64) -> Option<String> {
    let stat = Process::open(tgid).ok()?.stat_of_thread(tid).ok()?;
    (stat.monotonic_ns() <= monotonic_ns.saturating_add(SLACK_NS)).then(|| comm::text(&stat.comm))
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
        assert_eq!(name, "memtrail (name");
        assert_eq!(name_at(own, tid, 0), None, "another thread had this id then");
        drop(finish);
        thread.unwrap().join().unwrap();
        assert_eq!(name_at(own, tid, crate::host::clock::monotonic_ns()), None);
        assert_eq!(name_at(1, own, crate::host::clock::monotonic_ns()), None, "a thread of another process");
    }
}
