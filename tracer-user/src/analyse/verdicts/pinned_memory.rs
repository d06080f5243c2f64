//! `pinned-memory`: memory that a process has pinned for io_uring or a device; it stays charged after the process has unmapped it.
//!
//! Fires from 8 MiB and a tenth of usage on, for the processes of a cgroup and of those below it. Silent for little of it.

use super::Severity;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "pinned-memory";

/// Bytes.
const LEAST: u64 = 8 << 20;
/// Of usage, in percent.
const PERCENT: u64 = 10;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let own = |cgroup: &Cgroup| Some(cgroup.processes.iter().filter_map(|row| row.pinned_bytes).fold(0, u64::saturating_add));
    let pinned = super::innermost(cgroup, report, LEAST, own)?;
    let usage = cgroup.usage_bytes?;
    if pinned < usage / 100 * PERCENT {
        return None;
    }
    Some(super::verdict(
        ID,
        Severity::Info,
        format!(
            "{} are pinned for io_uring or a device{}: the kernel can neither swap nor move them, and they stay charged after munmap, in no \
             RSS, until the process unregisters them or ends.",
            units::bytes(pinned),
            super::mostly_of(cgroup, report, |row| row.pinned_bytes),
        ),
        [("pinned_bytes", json!(pinned)), ("usage_bytes", json!(usage))],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::ProcessRow;

    const MIB: u64 = 1 << 20;

    fn told(pinned: u64, usage: u64) -> Option<String> {
        let row = ProcessRow { pid: 7, comm: "uring".into(), pinned_bytes: Some(pinned * MIB), ..ProcessRow::default() };
        let cgroup = Cgroup { usage_bytes: Some(usage * MIB), processes: vec![row], ..Cgroup::default() };
        let report = Report { cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| verdict.text)
    }

    #[test]
    fn it_is_told_from_a_tenth_of_usage_on() {
        assert!(told(32, 42).unwrap().starts_with("32.0 MiB are pinned for io_uring or a device, mostly of uring[7] 32.0 MiB: "));
        assert_eq!(told(7, 8), None);
        assert_eq!(told(32, 400), None);
    }
}
