//! What the tracer itself costs.

/// CPU time of this process over one CPU's time in percent, and its largest resident set in bytes.
pub(super) fn of_this_process(duration_ns: u64) -> (Option<f64>, Option<u64>) {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid rusage to write to.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0;
    if failed {
        return (None, peak_resident_bytes());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    let percent = (duration_ns > 0).then(|| 100.0 * cpu / (duration_ns as f64 / 1e9));
    (percent, peak_resident_bytes())
}

/// VmHWM of this process. getrusage's ru_maxrss would keep the peak of the program that exec'd this one.
fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_ascii_whitespace().next());
    line?.parse::<u64>().ok().map(|kib| kib * 1024)
}
