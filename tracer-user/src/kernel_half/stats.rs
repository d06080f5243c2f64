//! What the programs cost: runs and time, counted by the kernel and read in short moments, scaled up.
//!
//! Only where the administrator has switched counting on (`kernel.bpf_stats_enabled=1`). Switching it on and off here would patch
//! kernel text on all CPUs each time; an emulated 7.3 died of it (an instruction changed under a running CPU).

use super::{preemption, program_info};
use aya::{Ebpf, programs::Program};
use std::{os::fd::AsFd as _, time::Duration};

/// Length of a moment.
const MOMENT: Duration = Duration::from_millis(20);

/// Runs and time of all programs since the start, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Nanoseconds in programs.
    pub run_ns: u64,
    /// Runs.
    pub runs: u64,
}

/// Sums over the moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    run_ns: u64,
    runs: u64,
    observed_ns: u64,
}

impl Moments {
    /// Counts for a moment, during which the caller waits. Nothing happens where the kernel does not count.
    pub fn observe(&mut self, bpf: &Ebpf) {
        if !std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|on| on.trim() == "1") {
            return;
        }
        let (start, before) = (crate::host::clock::monotonic_ns(), totals(bpf));
        std::thread::sleep(MOMENT);
        let (end, after) = (crate::host::clock::monotonic_ns(), totals(bpf));
        self.run_ns += after.run_ns.saturating_sub(before.run_ns);
        self.runs += after.runs.saturating_sub(before.runs);
        self.observed_ns += end.saturating_sub(start);
    }

    /// What that makes of a whole recording of that length; `None` if there was no moment.
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
pub fn recursion_misses(bpf: &Ebpf) -> Option<u64> {
    // First: each of them was a miss before it was taken.
    let taken = preemption::passed_on(bpf).ok()?;
    let loaded = bpf.programs().filter_map(|(_, program)| program.fd().ok());
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
        let moments = Moments { run_ns: 10, runs: 2, observed_ns: 100 };
        assert_eq!(moments.estimate(1000), Some(Estimate { run_ns: 100, runs: 20 }));
    }
}
