//! Tables over a whole report for `report --view`: cgroups with their ledger, and stacks with all their frames.
//!
//! Pure: a report and a selection in, text out. Figures are those of the report; what the selection leaves out is said, never dropped in
//! silence.

use super::text::{escape, pad_left, pad_right};
use super::{Value, figures};
use crate::glob::Glob;
use crate::model::{Cgroup, KindRow, Report, StackRow};
use crate::units;
use std::collections::{BTreeMap, BTreeSet};

/// Width of the cgroup's column.
const NAME_COLUMNS: usize = 52;

/// What of a report is shown.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Cgroups, by any of these patterns; all if there is none.
    pub cgroups: Vec<Glob>,
    /// Kinds, by name; all if there is none.
    pub kinds: Vec<String>,
    /// Which bytes.
    pub value: Value,
    /// Most rows; all if `None`.
    pub top: Option<usize>,
}

impl Selection {
    fn takes_cgroup(&self, cgroup: &Cgroup) -> bool {
        self.cgroups.is_empty() || self.cgroups.iter().any(|glob| glob.matches(&cgroup.path))
    }

    fn takes_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|wanted| wanted == kind)
    }

    /// The report with the selected cgroups and kinds only, for any output. Figures of the whole cgroup (usage, limit) stay.
    #[must_use]
    pub fn apply(&self, report: &Report) -> Report {
        let mut report = report.clone();
        report.cgroups.retain(|cgroup| self.takes_cgroup(cgroup));
        for cgroup in &mut report.cgroups {
            cgroup.kinds.retain(|kind, _| self.takes_kind(kind));
            cgroup.subtree.retain(|kind, _| self.takes_kind(kind));
            cgroup.stacks.retain(|row| self.takes_kind(&row.kind));
            let kind_of = |file: &serde_json::Value| file.get("kind").and_then(serde_json::Value::as_str).unwrap_or("file").to_owned();
            cgroup.files.retain(|file| self.takes_kind(&kind_of(file)));
        }
        report
    }
}

/// The cgroups as a tree: usage and limit, and below each its ledger, a line for each kind.
#[must_use]
pub fn cgroups(report: &Report, selection: &Selection) -> String {
    let mut chosen: Vec<&Cgroup> = report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup)).collect();
    let all = chosen.len();
    if let Some(top) = selection.top {
        chosen.sort_by_key(|cgroup| std::cmp::Reverse(figures::own_bytes(cgroup).max(cgroup.usage_bytes)));
        chosen.truncate(top);
    }
    chosen.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')).then_with(|| a.id.cmp(&b.id)));
    let paths: BTreeSet<&str> = chosen.iter().map(|cgroup| cgroup.path.as_str()).collect();

    let mut table = String::new();
    push_line(&mut table, &format!("{}{}{}", pad_right("CGROUP", NAME_COLUMNS), pad_left("USAGE", 12), pad_left("LIMIT", 12)));
    let value = selection.value.name().to_uppercase();
    push_line(&mut table, &kind_line("  KIND", ["STAT", "BEFORE START", &value, "UNMAPPED", "UNATTRIBUTED", "GROWTH"]));
    for cgroup in &chosen {
        push_line(&mut table, &cgroup_line(cgroup, &paths));
        for (kind, row) in cgroup.kinds.iter().filter(|(kind, row)| selection.takes_kind(kind) && !is_empty(row)) {
            push_line(&mut table, &kind_row(kind, row, selection.value));
        }
    }
    push_hidden(&mut table, chosen.len(), all, "cgroups");
    table
}

/// The largest stacks over all cgroups: equal ones added up over processes, all their frames, innermost last.
#[must_use]
pub fn stacks(report: &Report, selection: &Selection) -> String {
    let mut merged: BTreeMap<StackKey<'_>, Sum> = BTreeMap::new();
    let mut total: u128 = 0;
    for cgroup in report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup)) {
        for row in cgroup.stacks.iter().filter(|row| selection.takes_kind(&row.kind)) {
            let bytes = selection.value.of(row);
            if bytes > 0 {
                total += u128::from(bytes);
                merged.entry(StackKey::of(row)).or_default().add(cgroup, row, bytes);
            }
        }
    }
    let mut rows: Vec<(StackKey<'_>, Sum)> = merged.into_iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.bytes));
    let all = rows.len();
    rows.truncate(selection.top.unwrap_or(usize::MAX));

    let mut list = String::new();
    push_line(&mut list, &format!("{} {} in {all} stacks", clamp(total), selection.value));
    for (key, sum) in &rows {
        push_stack(&mut list, key, sum, total, selection.value);
    }
    push_hidden(&mut list, rows.len(), all, "stacks");
    list
}

/// What makes two rows one stack.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct StackKey<'a> {
    comm: &'a str,
    kind: &'a str,
    region: &'a str,
    status: &'a str,
    frames: &'a [String],
}

impl<'a> StackKey<'a> {
    fn of(row: &'a StackRow) -> Self {
        StackKey { comm: &row.comm, kind: &row.kind, region: &row.region, status: &row.status, frames: &row.frames }
    }
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    variance: f64,
    pids: BTreeSet<u32>,
    cgroups: BTreeSet<String>,
}

impl Sum {
    fn add(&mut self, cgroup: &Cgroup, row: &StackRow, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.variance += (row.live_stderr as f64).powi(2);
        self.pids.extend(row.pid);
        self.cgroups.insert(cgroup.path.clone());
    }
}

fn push_stack(list: &mut String, key: &StackKey<'_>, sum: &Sum, total: u128, value: Value) {
    let bytes = match value {
        Value::Live => figures::sampled(sum.bytes, Some(sum.variance.sqrt().round() as u64)),
        // The report has no error for charged bytes of a stack.
        Value::Charged => units::bytes(sum.bytes),
    };
    let share = figures::percent((total > 0).then(|| sum.bytes as f64 / total as f64), 1);
    let some = |first: Option<String>, count: usize, noun: &str| match (first, count) {
        (Some(first), 1) => first,
        (_, count) => format!("{count} {noun}"),
    };
    let pids = match sum.pids.len() {
        0 => String::new(),
        count => format!("[{}]", some(sum.pids.first().map(u32::to_string), count, "processes")),
    };
    let cgroups = some(sum.cgroups.first().cloned(), sum.cgroups.len(), "cgroups");
    let region = if key.kind == "anon" && !key.region.is_empty() { format!(" {}", key.region) } else { String::new() };
    push_line(list, "");
    push_line(list, &escape(&format!("{bytes}  {share}  {}{region}  {}{pids}  {cgroups}", key.kind, key.comm)));
    if key.status != "complete" {
        push_line(list, &escape(&format!("    [stack {}]", key.status)));
    }
    for frame in key.frames {
        push_line(list, &format!("    {}", escape(frame)));
    }
}

fn cgroup_line(cgroup: &Cgroup, paths: &BTreeSet<&str>) -> String {
    let (depth, name) = place(&cgroup.path, paths);
    let dead = if cgroup.state == "dead" { " (dead)" } else { "" };
    let indent = " ".repeat(2 * depth.min(10));
    let name = pad_right(&format!("{indent}{}{dead}", escape(name)), NAME_COLUMNS);
    let limit = cgroup.limit_bytes.map_or_else(|| "none".to_owned(), units::bytes);
    let limit = if cgroup.state == "dead" { "-" } else { &limit };
    format!("{name}{}{}", pad_left(&figures::known(cgroup.usage_bytes), 12), pad_left(limit, 12))
}

/// Depth below the ancestors that are shown, and the rest of the path below the nearest of them.
fn place<'a>(path: &'a str, paths: &BTreeSet<&str>) -> (usize, &'a str) {
    let (mut depth, mut name) = (0, path);
    for (index, _) in path.match_indices('/').filter(|(index, _)| *index > 0) {
        if paths.contains(&path[..index]) {
            depth += 1;
            name = &path[index..];
        }
    }
    (depth, name)
}

fn kind_row(kind: &str, row: &KindRow, value: Value) -> String {
    let (bytes, stderr) = match value {
        Value::Live => (row.live, row.live_stderr),
        Value::Charged => (row.charged, row.charged_stderr),
    };
    let followed = bytes.map_or_else(|| "?".to_owned(), |bytes| figures::sampled(bytes, stderr));
    let signed = |bytes: Option<i64>| bytes.map_or_else(|| "?".to_owned(), units::signed);
    let growth = row.growth_bytes_per_s.and_then(units::rate_per_minute).unwrap_or_else(|| "?".to_owned());
    let figures =
        [figures::known(row.stat), figures::known(row.baseline), followed, figures::known(row.unmapped), signed(row.unattributed), growth];
    kind_line(&format!("  {}", escape(kind)), figures.each_ref().map(String::as_str))
}

fn kind_line(name: &str, [stat, baseline, value, unmapped, unattributed, growth]: [&str; 6]) -> String {
    let columns = [(stat, 12), (baseline, 14), (value, 24), (unmapped, 12), (unattributed, 14), (growth, 16)];
    columns.iter().fold(pad_right(name, 12), |line, (figure, columns)| line + &pad_left(figure, *columns))
}

/// Nothing known but zeros.
fn is_empty(row: &KindRow) -> bool {
    [row.stat, row.baseline, row.live, row.charged].iter().flatten().all(|bytes| *bytes == 0) && row.stat.is_some()
}

fn push_hidden(text: &mut String, shown: usize, all: usize, noun: &str) {
    if shown < all {
        push_line(text, "");
        push_line(text, &format!("{} more {noun} not shown", all - shown));
    } else if all == 0 {
        push_line(text, &format!("no {noun} match"));
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// A sum for print; only a forged recording exceeds 64 bits.
fn clamp(bytes: u128) -> String {
    units::bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}
