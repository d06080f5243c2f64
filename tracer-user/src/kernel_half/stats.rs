//! What the programs cost: runs and time, as the kernel counts them.
//!
//! Only where the administrator has switched counting on (`kernel.bpf_stats_enabled=1`). Switching it on and off here would patch
//! kernel text on all CPUs each time; an emulated 7.3 died of it (an instruction changed under a running CPU).

use super::{loaded::KernelHalf, program_info, tables};
use aya::{Ebpf, programs::Program};
use std::os::fd::AsFd as _;

/// Shortest time between two looks that says something, nanoseconds.
const SHORTEST_NS: u64 = 20_000_000;

/// Runs and time of all programs since the start, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Nanoseconds in programs.
    pub run_ns: u64,
    /// Runs.
    pub runs: u64,
}

/// Sums over the times between two looks in which the kernel counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    run_ns: u64,
    runs: u64,
    observed_ns: u64,
    /// When was looked last, monotonic nanoseconds, and at what; `None` while the kernel does not count.
    last: Option<(u64, Estimate)>,
}

impl Moments {
    /// Looks at the kernel's counts, and adds what came since the last look. Nothing happens where the kernel does not count.
    pub fn observe(&mut self, half: &KernelHalf) {
        let counts = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.trim() == "1");
        self.look(counts.then(|| (crate::host::clock::monotonic_ns(), totals(&half.bpf))));
    }

    /// Takes in a look at the counts; `None`: the kernel does not count, so what has come since the last one is not known.
    fn look(&mut self, now: Option<(u64, Estimate)>) {
        let (Some((now_ns, after)), Some((then_ns, before))) = (now, self.last) else {
            self.last = now;
            return;
        };
        let took_ns = now_ns.saturating_sub(then_ns);
        if took_ns < SHORTEST_NS {
            return;
        }
        self.last = now;
        self.run_ns += after.run_ns.saturating_sub(before.run_ns);
        self.runs += after.runs.saturating_sub(before.runs);
        self.observed_ns += took_ns;
    }

    /// What that makes of a whole recording of that length; `None` if nothing was seen of it.
    #[must_use]
    pub fn estimate(&self, duration_ns: u64) -> Option<Estimate> {
        (self.observed_ns > 0).then(|| {
            let scaled =
                |value: u64| u64::try_from(u128::from(value) * u128::from(duration_ns) / u128::from(self.observed_ns)).unwrap_or(u64::MAX);
            Estimate { run_ns: scaled(self.run_ns), runs: scaled(self.runs) }
        })
    }
}

/// Programs that the kernel skipped because they were running already, less what the spare took; `None` where the kernel does not count them
/// (before 5.12) or the spare's count cannot be read.
#[must_use]
pub fn recursion_misses(half: &KernelHalf) -> Option<u64> {
    // First: each of them was a miss before it was taken.
    let taken = tables::passed_on(half).ok()?;
    let loaded = half.bpf.programs().filter_map(|(_, program)| program.fd().ok());
    let misses =
        loaded.map(|fd| program_info::recursion_misses(fd.as_fd())).try_fold(0, |sum: u64, misses| misses.map(|misses| sum + misses))?;
    Some(misses.saturating_sub(taken))
}

fn totals(bpf: &Ebpf) -> Estimate {
    let infos = bpf.programs().filter(|(_, program)| program.fd().is_ok()).filter_map(|(_, program)| Program::info(program).ok());
    infos.fold(Estimate::default(), |sum, info| Estimate {
        run_ns: sum.run_ns + u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
        runs: sum.runs + info.run_count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_scaled_to_the_whole_and_unknown_without_a_moment() {
        assert_eq!(Moments::default().estimate(1000), None);
        let moments = Moments { run_ns: 10, runs: 2, observed_ns: 100, last: None };
        assert_eq!(moments.estimate(1000), Some(Estimate { run_ns: 100, runs: 20 }));
    }

    #[test]
    fn what_comes_between_two_looks_counts_and_what_nobody_counted_does_not() {
        let mut moments = Moments::default();
        let at = |ms: u64, runs| Some((ms * 1_000_000, Estimate { run_ns: runs * 100, runs }));
        moments.look(at(1000, 5));
        assert_eq!(moments.estimate(1), None, "one look says nothing");
        moments.look(at(1010, 6));
        assert_eq!(moments.estimate(1), None, "too short");
        moments.look(at(2000, 15));
        assert_eq!((moments.runs, moments.run_ns, moments.observed_ns), (10, 1000, 1_000_000_000));
        // Counting was switched off and on again.
        moments.look(None);
        moments.look(at(9000, 500));
        moments.look(at(10_000, 510));
        assert_eq!((moments.runs, moments.observed_ns), (20, 2_000_000_000));
        assert_eq!(moments.estimate(4_000_000_000), Some(Estimate { run_ns: 4000, runs: 40 }));
    }
}
