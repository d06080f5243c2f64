//! The view of regions for `report --view regions`: for each cgroup and process, what its anonymous memory is for, and malloc's arenas.
//!
//! Pure. What is unknown is `?`; what the selection leaves out is said.

use super::figures;
use super::text::{escape, pad_left, pad_right, wrap};
use super::views::Selection;
use crate::model::{ArenaRow, Cgroup, RegionRow, Report};
use crate::units;
use std::collections::BTreeMap;

/// Width of the first column.
const NAME_COLUMNS: usize = 24;

/// Regions of all chosen cgroups; `--top` limits the processes.
#[must_use]
pub fn render(report: &Report, selection: &Selection) -> String {
    let mut processes: Vec<(u64, &Cgroup, Option<u32>)> = Vec::new();
    for cgroup in report.cgroups.iter().filter(|cgroup| selection.takes_cgroup(cgroup) && selection.takes_kind("anon")) {
        let mut sizes: BTreeMap<Option<u32>, u64> = BTreeMap::new();
        for row in &cgroup.regions {
            let size = sizes.entry(row.pid).or_default();
            *size = size.saturating_add(row.resident.unwrap_or(row.live));
        }
        processes.extend(sizes.into_iter().map(|(pid, size)| (size, cgroup, pid)));
    }
    processes.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (&a.1.path, a.2).cmp(&(&b.1.path, b.2))));
    let all = processes.len();
    processes.truncate(selection.top.unwrap_or(usize::MAX));

    let mut text = String::new();
    for (_, cgroup, pid) in &processes {
        process(&mut text, cgroup, *pid);
    }
    if all == 0 {
        push(&mut text, "no regions: no process with anonymous memory was read");
    } else if processes.len() < all {
        push(&mut text, &format!("{} more processes not shown", all - processes.len()));
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

fn process(text: &mut String, cgroup: &Cgroup, pid: Option<u32>) {
    let rows: Vec<&RegionRow> = cgroup.regions.iter().filter(|row| row.pid == pid).collect();
    let comm = rows.first().map_or("?", |row| row.comm.as_str());
    let pid_text = pid.map_or_else(String::new, |pid| format!("[{pid}]"));
    push(text, &escape(&format!("{comm}{pid_text}  {}", cgroup.path)));
    push(text, &line("  REGION", ["COUNT", "RESERVED", "RESIDENT", "LIVE"], "RECOGNISED BY"));
    for row in rows {
        let count = row.count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let live = figures::sampled(row.live, Some(row.live_stderr));
        let cells = [count, figures::known(row.reserved), figures::known(row.resident), live];
        let by = row.recognised_by.as_deref().unwrap_or("-");
        push(text, &line(&format!("  {}", escape(&row.class)), cells.each_ref().map(String::as_str), &escape(by)));
    }
    for row in cgroup.arenas.iter().filter(|row| Some(row.pid) == pid) {
        for line in wrap(&arenas(row), super::summary::COLUMNS - 2) {
            push(text, &format!("  {line}"));
        }
    }
    push(text, "");
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
