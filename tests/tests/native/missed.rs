//! What the exact counters missed: zero, whatever became of the memory that they count.
//!
//! The counters are of the tiers that hook functions. On the others the figure is unknown, which is checked too.

use harness::memtrail::Outcome;
use harness::{kernel, report};

/// What a workload's process does besides: a page here and there between the reading of the counters and that of `memory.stat`.
const BESIDES: u64 = 64 << 10;

/// Complains unless the exact counters of all these kinds of the cgroup agree with `memory.stat`, as far as the kernel brings that up to date.
/// Call it after `memory.stat` has settled.
pub fn assert_none(outcome: &Outcome, path: &str, kinds: &[&str]) {
    let tier = report::tier(&outcome.report).unwrap();
    let passed_over = outcome.report["losses"]["recursion_misses"].as_u64().unwrap_or(0);
    let allowed = BESIDES + kernel::stat_batching().unwrap() + passed_over * 4096;
    for kind in kinds {
        // A cgroup without any memory of a kind has no row of it.
        let Some(row) = report::kind(&outcome.report, path, kind).unwrap() else { continue };
        println!("{path} {kind}, {tier}: missed {:?}, stat {:?}, {allowed} allowed, {passed_over} passed over", row.missed, row.stat);
        match row.missed {
            Some(missed) => assert!(missed.unsigned_abs() <= allowed, "{kind} of {path}: missed {missed}, at most {allowed}"),
            None => assert!(tier == "tracepoint" || row.stat.is_none(), "{kind} of {path}: missed is unknown on {tier}"),
        }
    }
}
