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
        assert!((1_000_000..=100_000_000).contains(&tick_ns()), "a tick is 1 to 10 ms");
    }
}
