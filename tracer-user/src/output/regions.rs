//! The view of regions for `report --view regions`: for each cgroup and process, what its anonymous memory is for, who mapped it, malloc's
//! arenas, and what address space was asked for since the start.
//!
//! Pure. What is unknown is `?`; what the selection leaves out is said.

use super::selection::Selection;
use crate::analyse::figures;
use crate::report::{ArenaRow, Cgroup, MappingRow, OriginRow, RegionRow, Report};
use crate::text::units;
use crate::text::{escape, pad_left, pad_right, wrap};
use std::collections::BTreeMap;

/// Width of the first column.
const NAME_COLUMNS: usize = 24;
/// Stacks shown of a row, and of a process.
const STACKS: usize = 3;
/// Innermost frames shown of each.
const FRAMES: usize = 6;

/// Regions of all chosen cgroups, a line each; `--top` limits the processes. With origins, who mapped each of them, and what was asked for.
#[must_use]
pub fn render(report: &Report, selection: &Selection, with_origins: bool) -> String {
    let mut processes: Vec<(u64, &Cgroup, Option<u32>)> = Vec::new();
    for cgroup in report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup) && selection.takes_kind("anon")) {
        let mut sizes: BTreeMap<Option<u32>, u64> = BTreeMap::new();
        for row in &cgroup.regions {
            let size = sizes.entry(row.pid).or_default();
            *size = size.saturating_add(row.resident.unwrap_or(row.live));
        }
        for row in cgroup.mappings.iter().flatten() {
            sizes.entry(Some(row.pid)).or_default();
        }
        processes.extend(sizes.into_iter().map(|(pid, size)| (size, cgroup, pid)));
    }
    processes.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1.path, a.2).cmp(&(&b.1.path, b.2))));
    let all = processes.len();
    processes.truncate(selection.top.unwrap_or(usize::MAX));

    let mut text = String::new();
    for (_, cgroup, pid) in &processes {
        process(&mut text, cgroup, *pid, with_origins);
    }
    if all == 0 {
        push(&mut text, "no regions: no process with anonymous memory was read");
    } else if processes.len() < all {
        push(&mut text, &format!("{} more processes not shown", all - processes.len()));
    }
    if let Some(mapping) = report.mapping.as_ref().filter(|mapping| mapping.thinned > 0) {
        push(&mut text, &format!("{} of {} calls that change mappings were passed over: storms", mapping.thinned, mapping.calls));
    }
    if report.surveyed.left_out > 0 {
        push(&mut text, &format!("{} processes were not read", report.surveyed.left_out));
    }
    if report.surveyed.unplaced_bytes > 0 {
        push(
            &mut text,
            &format!("{} of live anonymous memory is in no mapping that was read", units::bytes(report.surveyed.unplaced_bytes)),
        );
    }
    text
}

fn process(text: &mut String, cgroup: &Cgroup, pid: Option<u32>, with_origins: bool) {
    let rows: Vec<&RegionRow> = cgroup.regions.iter().filter(|row| row.pid == pid).collect();
    let asked: Vec<&MappingRow> = cgroup.mappings.iter().flatten().filter(|row| Some(row.pid) == pid).collect();
    let comm = rows.first().map(|row| &row.comm).or(asked.first().map(|row| &row.comm)).map_or("?", String::as_str);
    let pid_text = pid.map_or_else(String::new, |pid| format!("[{pid}]"));
    push(text, &escape(&format!("{comm}{pid_text}  {}", cgroup.path)));
    if !rows.is_empty() {
        push(text, &line("  REGION", ["COUNT", "RESERVED", "RESIDENT", "LIVE"], "RECOGNISED BY"));
    }
    for row in rows {
        let count = row.count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let live = figures::sampled(row.live, Some(row.live_stderr));
        let cells = [count, figures::known(row.reserved), figures::known(row.resident), live];
        let by = row.recognised_by.as_deref().unwrap_or("-");
        push(text, &line(&format!("  {}", escape(&row.class)), cells.each_ref().map(String::as_str), &escape(by)));
        if with_origins {
            origins(text, "mapped", &row.origins);
            origins(text, "taken into use", &row.growers);
        }
    }
    for row in cgroup.arenas.iter().filter(|row| Some(row.pid) == pid) {
        for line in wrap(&arenas(row), super::summary::COLUMNS - 2) {
            push(text, &format!("  {line}"));
        }
    }
    if !with_origins {
        let bytes = asked.iter().fold(0_u64, |sum, row| sum.saturating_add(row.bytes));
        if bytes > 0 {
            let noun = if asked.len() == 1 { "stack" } else { "stacks" };
            push(text, &format!("  asked for since the start: {} by {} {noun}: see --origins", units::bytes(bytes), asked.len()));
        }
        push(text, "");
        return;
    }
    for row in asked.iter().take(STACKS) {
        let calls = if row.calls == 1 { "1 call".to_owned() } else { format!("{} calls", row.calls) };
        let bytes = figures::sampled(row.bytes, Some(row.bytes_stderr));
        stack(text, "  ", &format!("asked for since the start: {bytes}, {} in {calls}", escape(&row.call)), &row.frames);
    }
    if asked.len() > STACKS {
        let rest = asked[STACKS..].iter().fold(0, |sum: u64, row| sum.saturating_add(row.bytes));
        push(text, &format!("  asked for by {} more stacks: {}", asked.len() - STACKS, units::bytes(rest)));
    }
    push(text, "");
}

/// Who did it to how much of the address space.
fn origins(text: &mut String, what: &str, rows: &[OriginRow]) {
    for row in rows.iter().take(STACKS) {
        let thread = match (row.tid, &row.thread_function) {
            (Some(tid), Some(function)) => format!(", thread {tid} of {}", escape(function)),
            (Some(tid), None) => format!(", thread {tid}"),
            (None, Some(function)) => format!(", threads of {}", escape(function)),
            (None, None) => String::new(),
        };
        stack(text, "    ", &format!("{what}: {} by {}{thread}", units::bytes(row.bytes), escape(&row.call)), &row.frames);
    }
}

/// A line, and behind it the innermost frames of a stack.
fn stack(text: &mut String, indent: &str, head: &str, frames: &[String]) {
    // A function and what was inlined into it under the same name are one.
    let mut frames: Vec<&String> = frames.iter().collect();
    frames.dedup();
    let shown: Vec<String> = frames[frames.len().saturating_sub(FRAMES)..].iter().map(|frame| escape(frame)).collect();
    let through = if shown.is_empty() { String::new() } else { format!(", through {}", shown.join(" > ")) };
    for line in wrap(&format!("{head}{through}"), super::summary::COLUMNS - indent.len()) {
        push(text, &format!("{indent}{line}"));
    }
}

/// `9 glibc arenas (most 16: 8 a CPU) in 8 heaps: 512.0 MiB reserved, ...`.
fn arenas(row: &ArenaRow) -> String {
    let count = match row.arenas {
        Some(arenas) => format!("{arenas} glibc arenas"),
        None => "at least 2 glibc arenas".to_owned(),
    };
    let limit = match row.environment_limit {
        Some(limit) => format!("at most {limit}, by its environment"),
        None => format!("at most {}, glibc's own limit here", row.default_limit),
    };
    let free = row.free.zip(row.looked_through).map(|(free, of)| {
        let of = if Some(of) == row.resident { String::new() } else { format!(" of {} looked through", units::bytes(of)) };
        format!(", {} free blocks{of}", units::bytes(free))
    });
    let threads = row.threads.map(|threads| format!("; {threads} threads")).unwrap_or_default();
    format!(
        "{count} ({limit}) with {} heaps: {} reserved, {} committed, {} resident{}{threads}",
        row.heaps,
        units::bytes(row.reserved),
        units::bytes(row.committed),
        figures::known(row.resident),
        free.unwrap_or_default(),
    )
}

fn line(name: &str, [count, reserved, resident, live]: [&str; 4], by: &str) -> String {
    let columns = [(count, 8), (reserved, 12), (resident, 12), (live, 24)];
    let line = columns.iter().fold(pad_right(name, NAME_COLUMNS), |line, (cell, columns)| line + &pad_left(cell, *columns));
    format!("{line}  {by}")
}

fn push(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}
