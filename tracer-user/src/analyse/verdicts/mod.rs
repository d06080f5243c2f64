//! Verdicts: what the figures of a report mean for whoever runs the cgroup. One file a verdict, each a pure function of the report.
//!
//! docs/verdicts.md has a row for each: when it fires, when it is silent, and what to do. A verdict states what was seen, its cause (with
//! `consistent with` where that is inferred), and an action. It never repeats what the figures beside it say, and never fires on a
//! figure that is within its own error of nothing.

mod dead_container_shmem;
mod dirty_writeback;
pub mod glibc_arenas;
mod growth;
mod huge_pages;
mod java_direct_memory;
mod lazily_freed;
mod locked_memory;
mod log_page_cache;
mod memory_high;
mod pinned_memory;
mod refaults;
mod untracked;

use crate::report::{Cgroup, FileRow, KindRow, ProcessRow, Report, Verdict};
use crate::text::units;
use std::collections::BTreeMap;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It will fail, or has.
    Critical,
    /// It may.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

/// A verdict with its id.
pub struct Rule {
    /// Identifier in docs and outputs.
    pub id: &'static str,
    verdict: fn(&Cgroup, &Report) -> Option<Verdict>,
    /// The evidence of an OOM kill has what it needs: a limit's cgroup stands there with all that is below it, and without readings over time.
    of_kills: bool,
}

/// All verdicts, in the order in which they are shown.
pub const RULES: [Rule; 13] = [
    Rule { id: growth::ID, verdict: growth::verdict, of_kills: false },
    Rule { id: dead_container_shmem::ID, verdict: dead_container_shmem::verdict, of_kills: true },
    Rule { id: dirty_writeback::ID, verdict: dirty_writeback::verdict, of_kills: true },
    Rule { id: glibc_arenas::ID, verdict: |cgroup, _| glibc_arenas::verdict(cgroup), of_kills: true },
    Rule { id: java_direct_memory::ID, verdict: |cgroup, _| java_direct_memory::verdict(cgroup), of_kills: true },
    Rule { id: log_page_cache::ID, verdict: log_page_cache::verdict, of_kills: true },
    Rule { id: refaults::ID, verdict: refaults::verdict, of_kills: false },
    Rule { id: memory_high::ID, verdict: memory_high::verdict, of_kills: false },
    Rule { id: huge_pages::ID, verdict: huge_pages::verdict, of_kills: false },
    Rule { id: lazily_freed::ID, verdict: lazily_freed::verdict, of_kills: false },
    Rule { id: locked_memory::ID, verdict: locked_memory::verdict, of_kills: false },
    Rule { id: pinned_memory::ID, verdict: pinned_memory::verdict, of_kills: false },
    Rule { id: untracked::ID, verdict: untracked::verdict, of_kills: false },
];

/// The verdicts on a cgroup of the evidence of an OOM kill; those above it are looked for in the report.
#[must_use]
pub fn of_kill(cgroup: &Cgroup, report: &Report) -> Vec<Verdict> {
    RULES.iter().filter(|rule| rule.of_kills).filter_map(|rule| (rule.verdict)(cgroup, report)).collect()
}

/// Writes the verdicts of every cgroup into the report.
pub fn conclude(report: &mut Report) {
    // Looked for once, and not by each living cgroup among all others.
    let heirs = dead_container_shmem::heirs(report);
    let is_asked =
        |rule: &&Rule, cgroup: &Cgroup| rule.id != dead_container_shmem::ID || cgroup.state == "dead" || heirs.contains(&cgroup.path);
    let of =
        |cgroup: &Cgroup| RULES.iter().filter(|rule| is_asked(rule, cgroup)).filter_map(|rule| (rule.verdict)(cgroup, report)).collect();
    let verdicts: Vec<Vec<Verdict>> = report.cgroups.iter().map(of).collect();
    for (cgroup, verdicts) in report.cgroups.iter_mut().zip(verdicts) {
        cgroup.verdicts = verdicts;
    }
}

fn verdict(id: &str, severity: Severity, text: String, evidence: impl IntoIterator<Item = (&'static str, serde_json::Value)>) -> Verdict {
    let evidence: BTreeMap<String, serde_json::Value> = evidence.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Verdict { id: id.to_owned(), severity: severity.name().to_owned(), text, evidence }
}

/// The living cgroups above one, without the root.
fn living_above<'a>(cgroup: &Cgroup, report: &'a Report) -> impl Iterator<Item = &'a Cgroup> {
    let is_above = |path: &str| path != "/" && cgroup.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    report.cgroups.iter().filter(move |other| other.state != "dead" && is_above(&other.path))
}

/// The nearest living cgroup above with a limit: that is where a dead cgroup's bytes count.
fn limited_ancestor<'a>(cgroup: &Cgroup, report: &'a Report) -> Option<(&'a Cgroup, u64)> {
    let limited = living_above(cgroup, report).filter_map(|other| Some((other, other.limit_bytes?)));
    limited.max_by_key(|(other, _)| other.path.len())
}

/// The cgroups below one, at any depth.
fn below<'a>(cgroup: &'a Cgroup, report: &'a Report) -> impl Iterator<Item = &'a Cgroup> {
    let is_below =
        |path: &str| path.strip_prefix(&cgroup.path).is_some_and(|rest| rest.starts_with('/') || (cgroup.path == "/" && !rest.is_empty()));
    report.cgroups.iter().filter(move |other| is_below(&other.path))
}

/// A figure of a living cgroup with all below it that is `least` or more, where no cgroup below it has half of that and `least`: there it is told.
fn innermost(cgroup: &Cgroup, report: &Report, least: u64, figure: impl Fn(&Cgroup) -> Option<u64>) -> Option<u64> {
    let bytes = figure(cgroup).filter(|bytes| cgroup.state != "dead" && *bytes >= least)?;
    (!below(cgroup, report).filter_map(figure).any(|of_other| of_other >= least.max(bytes / 2))).then_some(bytes)
}

/// The processes in a cgroup and below it that were looked into.
fn processes<'a>(cgroup: &'a Cgroup, report: &'a Report) -> impl Iterator<Item = &'a ProcessRow> {
    std::iter::once(cgroup).chain(below(cgroup, report)).flat_map(|cgroup| &cgroup.processes)
}

/// The row of a kind with what is below the cgroup, or where that is not known of the cgroup itself.
fn whole<'a>(cgroup: &'a Cgroup, kind: &str) -> Option<&'a KindRow> {
    cgroup.subtree.get(kind).or_else(|| cgroup.kinds.get(kind))
}

/// `, mostly of java[12] 40.0 MiB and 3 more processes`: of the processes in the cgroup and below it those with most bytes.
fn mostly_of(cgroup: &Cgroup, report: &Report, bytes: impl Fn(&ProcessRow) -> Option<u64>) -> String {
    let mut holders: Vec<(u64, &ProcessRow)> =
        processes(cgroup, report).filter_map(|row| Some((bytes(row).filter(|bytes| *bytes > 0)?, row))).collect();
    holders.sort_by_key(|(bytes, row)| (std::cmp::Reverse(*bytes), row.pid));
    let more = match holders.len().saturating_sub(1) {
        0 => String::new(),
        1 => " and another process".to_owned(),
        more => format!(" and {more} more processes"),
    };
    holders.first().map_or_else(String::new, |(bytes, row)| format!(", mostly of {}[{}] {}{more}", row.comm, row.pid, units::bytes(*bytes)))
}

/// Bytes of a kind that are followed, older ones included, and their standard error.
fn followed(row: &KindRow) -> (u64, f64) {
    let bytes = row.live.unwrap_or(0).saturating_add(row.baseline.unwrap_or(0));
    (bytes, (row.live_stderr.unwrap_or(0) as f64).hypot(row.baseline_stderr.unwrap_or(0) as f64))
}

/// A part in percent of a whole, rounded down; of nothing as if it were one.
fn percent_of(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// `60 %`, rounded down.
fn percent(part: u64, whole: u64) -> String {
    (u128::from(part) * 100).checked_div(u128::from(whole)).map_or_else(|| "? %".to_owned(), |share| format!("{share} %"))
}

/// The path as the text gives it, with its volume.
pub(crate) fn place(file: &FileRow) -> String {
    match &file.volume {
        Some(volume) => format!("{} ({volume})", file.path),
        None => file.path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::RULES;

    /// The table is what operators read: a verdict without a row there is not finished.
    #[test]
    fn every_verdict_has_its_row_in_the_documentation() {
        let table = include_str!("../../../../docs/verdicts.md");
        for id in RULES.iter().map(|rule| rule.id).chain(crate::analyse::oom::loops::IDS) {
            assert!(table.contains(&format!("| `{id}` |")), "docs/verdicts.md has no row for {id}");
        }
    }
}
