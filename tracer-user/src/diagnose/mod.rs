//! What memtrail concludes from a report: one file a verdict, each a pure function from figures to a row `{id, severity, text, evidence}`.
//!
//! A verdict states what was observed, what that is consistent with, and what to do. It is silent where figures are unknown.

pub mod glibc_arenas;

use crate::model::Cgroup;
use serde_json::Value;

/// The verdicts of one cgroup.
#[must_use]
pub fn verdicts(cgroup: &Cgroup) -> Vec<Value> {
    glibc_arenas::verdict(cgroup).into_iter().collect()
}
