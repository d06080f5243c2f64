//! `memory-high`: processes sleep because their cgroup is beyond memory.high, and nothing kills or restarts them (cgroup v2).
//!
//! Fires when usage is 95 % of memory.high or more and its processes were held up ten times since the start, and once in
//! five seconds. Silent below, and without it.

use super::Severity;
use crate::report::{Cgroup, Report, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "memory-high";

/// Usage of memory.high, in percent.
const PERCENT: u64 = 95;
/// Times that processes were held up.
const TIMES: u64 = 10;
/// And a second.
const LEAST_PER_S: f64 = 0.2;

/// The verdict on a cgroup.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    // The count has that of the cgroups below, which have a memory.high of their own.
    let times = super::innermost(cgroup, report, TIMES, |cgroup| cgroup.high_events.filter(|_| cgroup.high_bytes.is_some()))?;
    let (high, usage) = (cgroup.high_bytes?, cgroup.usage_bytes?);
    if usage < high / 100 * PERCENT || (times as f64) < report.duration_s * LEAST_PER_S {
        return None;
    }
    let kinds = crate::analyse::figures::SHARES_OF_USAGE.iter().filter_map(|kind| Some((*kind, cgroup.subtree.get(*kind)?.stat?)));
    let largest = kinds.max_by_key(|(_, bytes)| *bytes);
    let mostly = largest.map(|(kind, bytes)| format!(", of which {} is {kind}", units::bytes(bytes))).unwrap_or_default();
    Some(super::verdict(
        ID,
        Severity::Critical,
        format!(
            "{} of memory.high{mostly}: its processes were made to reclaim and to sleep {times} times since the start, up to 2 s each time. \
             Nothing is killed below memory.max. Raise memory.high, or let it hold less.",
            units::part_of(usage, high),
        ),
        [("usage_bytes", json!(usage)), ("high_bytes", json!(high)), ("high_events", json!(times))],
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn told(usage: u64, high: Option<u64>, times: u64) -> Option<String> {
        let anon = crate::report::KindRow { stat: Some(usage * MIB - MIB), ..crate::report::KindRow::default() };
        let cgroup = Cgroup {
            usage_bytes: Some(usage * MIB),
            high_bytes: high.map(|high| high * MIB),
            high_events: Some(times),
            subtree: [("anon".to_owned(), anon)].into(),
            ..Cgroup::default()
        };
        let report = Report { duration_s: 60.0, ..Report::default() };
        verdict(&cgroup, &report).map(|verdict| verdict.text)
    }

    #[test]
    fn it_is_told_where_processes_sleep() {
        let text = told(65, Some(64), 400).unwrap();
        assert!(text.starts_with("65.0 of 64.0 MiB of memory.high, of which 64.0 MiB is anon: its processes were made"), "{text}");
        assert_eq!(told(50, Some(64), 400), None, "below it");
        assert_eq!(told(65, Some(64), 9), None, "seldom");
        assert_eq!(told(65, Some(64), 11), None, "once in five seconds and a half");
        assert_eq!(told(65, None, 400), None);
    }
}
