//! What the tracer itself costs.

use crate::host::{clock::process_cpu_ns, proc::Process};

/// CPU time of this process at the moments that tell recording from what comes before and after.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    /// Counting began.
    pub started: u64,
    /// The report began.
    pub reporting: u64,
}

impl CpuTimes {
    /// CPU time of recording over one CPU's time, percent. `None` for a recording of no length.
    #[must_use]
    pub fn percent(&self, recorded_ns: u64) -> Option<f64> {
        (recorded_ns > 0).then(|| 100.0 * self.reporting.saturating_sub(self.started) as f64 / recorded_ns as f64)
    }

    /// CPU time of the start, milliseconds.
    #[must_use]
    pub fn start_ms(&self) -> u64 {
        self.started.div_ceil(1_000_000)
    }

    /// CPU time of the report by now, milliseconds.
    #[must_use]
    pub fn report_ms(&self) -> u64 {
        process_cpu_ns().saturating_sub(self.reporting).div_ceil(1_000_000)
    }
}

/// What recording costs so far, `duration_ns` after counting began: CPU time over one CPU's time in percent, largest resident set in
/// bytes.
#[must_use]
pub fn so_far(cpu: CpuTimes, duration_ns: u64) -> (Option<f64>, Option<u64>) {
    (CpuTimes { reporting: process_cpu_ns(), ..cpu }.percent(duration_ns), peak_resident_bytes())
}

/// VmHWM of this process, bytes. getrusage's ru_maxrss would keep the peak of the program that exec'd this one.
#[must_use]
pub fn peak_resident_bytes() -> Option<u64> {
    Process::own().ok()?.status().ok()?.peak_resident
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_and_reporting_are_not_recording() {
        let times = CpuTimes { started: 700_000_000, reporting: 710_000_000 };
        assert_eq!(times.percent(1_000_000_000), Some(1.0));
        assert_eq!((times.percent(0), times.start_ms()), (None, 700));
    }

    #[test]
    fn work_is_counted() {
        let times = CpuTimes { started: 0, reporting: process_cpu_ns() };
        let mut sum = 0_u64;
        while times.report_ms() < 2 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(times.reporting > 0 && sum > 0);
    }
}
