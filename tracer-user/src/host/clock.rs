//! The kernel's clocks in nanoseconds.

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// CLOCK_MONOTONIC: the clock of `bpf_ktime_get_ns`, and of every time in this crate that has no other name.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// CLOCK_BOOTTIME: the clock of process start times in `/proc`.
#[must_use]
pub fn boot_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

/// CPU time of this process, all threads.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// Id of the thread that calls.
#[must_use]
pub fn this_thread() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// CPU time of a thread of this process, by its id; `None` if there is no such thread.
#[must_use]
pub fn thread_cpu_ns(thread: i32) -> Option<u64> {
    // As glibc's `pthread_getcpuclockid` makes it: the scheduler's clock (2) of one thread (4).
    let clock = !thread << 3 | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel checks the clock's id and writes one time.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    (!failed).then(|| u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Monotonic, boot-clock and real nanoseconds of one moment.
#[must_use]
pub fn triple() -> [u64; 3] {
    [ClockId::Monotonic, ClockId::Boottime, ClockId::Realtime].map(|clock| nanoseconds(clock_gettime(clock)))
}

/// Nanoseconds of a tick (1/CONFIG_HZ): the resolution of the clock that only ticks move.
#[must_use]
pub fn tick_ns() -> u64 {
    nanoseconds(clock_getres(ClockId::MonotonicCoarse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_are_those_that_their_names_say() {
        let before = monotonic_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let [monotonic, boot, real] = triple();
        assert!(monotonic >= before + 2_000_000 && monotonic <= monotonic_ns());
        assert!(boot >= monotonic && boot <= boot_ns(), "the boot clock goes on while the machine sleeps");
        assert!(real > 1_600_000_000_000_000_000, "a real clock that stands after 2020");
        assert!(process_cpu_ns() > 0 && process_cpu_ns() < monotonic_ns());
        assert!(thread_cpu_ns(this_thread()).is_some_and(|ns| ns > 0 && ns <= process_cpu_ns()));
        assert_eq!(thread_cpu_ns(1 << 27), None);
        assert!((1_000_000..=100_000_000).contains(&tick_ns()), "a tick is 1 to 10 ms");
    }
}
