//! Tables over a whole report for `report --view`: cgroups with their ledger, and stacks with all their frames.
//!
//! Pure: a report and a selection in, text out. Figures are those of the report; what the selection leaves out is said, never dropped in
//! silence.

use super::Value;
use super::selection::Selection;
use crate::analyse::comparison::merged::{Merged, merge};
use crate::analyse::figures;
use crate::recording::Mark;
use crate::report::{Cgroup, KindRow, Report};
use crate::text::units;
use crate::text::{escape, pad_left, pad_right};
use std::collections::BTreeSet;

/// Width of the cgroup's column.
const NAME_COLUMNS: usize = 52;

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
    push_line(&mut table, &kind_line("    KIND", ["STAT", "BEFORE START", &value, "UNMAPPED", "UNATTRIBUTED", "GROWTH"]));
    for cgroup in &chosen {
        push_line(&mut table, &cgroup_line(cgroup, &paths));
        for (kind, row) in cgroup.kinds.iter().filter(|(kind, row)| selection.takes_kind(kind) && !is_empty(row)) {
            let indent = indent(place(&cgroup.path, &paths).0 + 2);
            push_line(&mut table, &kind_row(&format!("{indent}{}", escape(kind)), row, selection.value));
        }
    }
    push_hidden(&mut table, chosen.len(), all, "cgroups");
    table
}

/// The largest stacks over all cgroups: equal ones added up over processes, all their frames, innermost last.
#[must_use]
pub fn stacks(report: &Report, selection: &Selection) -> String {
    let chosen = report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup));
    let rows = chosen.flat_map(|cgroup| cgroup.stacks.iter().map(move |row| (cgroup, row)));
    let mut stacks = merge(rows.filter(|(_, row)| selection.takes_kind(&row.kind)), selection.value);
    let total: u128 = stacks.iter().map(|stack| u128::from(stack.bytes)).sum();
    let all = stacks.len();
    stacks.truncate(selection.top.unwrap_or(usize::MAX));

    let mut list = String::new();
    let noun = if all == 1 { "stack" } else { "stacks" };
    push_line(&mut list, &format!("{} {} in {all} {noun}", clamp(total), selection.value));
    for stack in &stacks {
        push_stack(&mut list, stack, total);
    }
    push_hidden(&mut list, stacks.len(), all, "stacks");
    list
}

/// The marks of a recording, in its order.
#[must_use]
pub fn marks(marks: &[Mark]) -> String {
    let mut list = String::new();
    for mark in marks {
        push_line(&mut list, &format!("{} s  {}", pad_left(&format!("{:.3}", mark.at_s), 12), escape(&mark.name)));
    }
    push_hidden(&mut list, marks.len(), marks.len(), "marks");
    list
}

fn push_stack(list: &mut String, stack: &Merged<'_>, total: u128) {
    let bytes = stack.stderr.map_or_else(|| units::bytes(stack.bytes), |stderr| figures::sampled(stack.bytes, Some(stderr)));
    let share = figures::percent((total > 0).then(|| stack.bytes as f64 / total as f64), 1);
    let cgroups = match (stack.cgroups.len(), stack.cgroups.first()) {
        (1, Some(path)) => (*path).to_owned(),
        (count, _) => format!("{count} cgroups"),
    };
    push_line(list, "");
    push_line(list, &escape(&format!("{bytes}  {share}  {}  {}  {cgroups}", stack.kind(), stack.process())));
    if stack.row.status != "complete" {
        push_line(list, &escape(&format!("    [stack {}]", stack.row.status)));
    }
    for frame in &stack.row.frames {
        push_line(list, &format!("    {}", escape(frame)));
    }
}

fn cgroup_line(cgroup: &Cgroup, paths: &BTreeSet<&str>) -> String {
    let (depth, name) = place(&cgroup.path, paths);
    let dead = if cgroup.state == "dead" { " (dead)" } else { "" };
    let name = pad_right(&format!("{}{}{dead}", indent(depth), escape(name)), NAME_COLUMNS);
    let (usage, limit) = if cgroup.state == "dead" {
        ("-".to_owned(), "-".to_owned())
    } else {
        (figures::known(cgroup.usage_bytes), cgroup.limit_bytes.map_or_else(|| "none".to_owned(), units::bytes))
    };
    let known = cgroup.pod_name.is_some() || cgroup.container_name.is_some();
    let people = if known { format!("  {}", escape(&super::pods::label(cgroup))) } else { String::new() };
    format!("{name}{}{}{people}", pad_left(&usage, 12), pad_left(&limit, 12))
}

/// Two columns a level, not more than ten levels: a path can be deep.
fn indent(depth: usize) -> String {
    " ".repeat(2 * depth.min(10))
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

fn kind_row(name: &str, row: &KindRow, value: Value) -> String {
    let (bytes, stderr) = match value {
        Value::Live | Value::Growth => (row.live, row.live_stderr),
        Value::Peak => (row.peak, row.peak_stderr),
        Value::Charged => (row.charged, row.charged_stderr),
    };
    let followed = bytes.map_or_else(|| "?".to_owned(), |bytes| figures::sampled(bytes, stderr));
    let signed = |bytes: Option<i64>| bytes.map_or_else(|| "?".to_owned(), units::signed);
    let growth = row.growth_bytes_per_s.and_then(units::rate_per_minute).unwrap_or_else(|| "?".to_owned());
    let figures =
        [figures::known(row.stat), figures::known(row.baseline), followed, figures::known(row.unmapped), signed(row.unattributed), growth];
    kind_line(name, figures.each_ref().map(String::as_str))
}

fn kind_line(name: &str, [stat, baseline, value, unmapped, unattributed, growth]: [&str; 6]) -> String {
    let columns = [(stat, 12), (baseline, 14), (value, 24), (unmapped, 12), (unattributed, 14), (growth, 16)];
    columns.iter().fold(pad_right(name, 20), |line, (figure, columns)| line + &pad_left(figure, *columns))
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
