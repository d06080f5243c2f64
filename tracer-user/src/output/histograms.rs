//! Distributions as text: the view for `report --view histograms`, and a line of the summary.
//!
//! Pure. Values are at most 1.6 % from the truth, which no shown digit tells.

use super::selection::Selection;
use crate::report::distribution::is_bytes;
use crate::report::{Cgroup, HistogramRow, Report};
use crate::text::units;
use crate::text::{escape, pad_left, pad_right};

/// Width of the first column.
const NAME_COLUMNS: usize = 20;
const COLUMNS: usize = 12;

/// Waits worth a line of the summary, by what they are called there.
const WAITS: [(&str, &str); 4] = [
    ("charge_stall_ns", "charges stalled"),
    ("memcg_reclaim_ns", "memcg reclaim"),
    ("high_throttle_ns", "throttled by memory.high"),
    ("dirty_throttle_ns", "writers held up for dirty page cache"),
];

/// Shorter waits (99 in 100 of them) are no trouble: a millisecond.
const SHORT_NS: u64 = 1_000_000;

/// The distributions of all chosen cgroups; `--top` limits the cgroups.
#[must_use]
pub fn render(report: &Report, selection: &Selection) -> String {
    let with_any = |cgroup: &&Cgroup| selection.takes_cgroup(cgroup) && !(cgroup.histograms.is_empty() && cgroup.histogram_losses == 0);
    let chosen: Vec<&Cgroup> = report.cgroups.iter().filter(with_any).collect();
    let mut text = String::new();
    for cgroup in chosen.iter().take(selection.top.unwrap_or(usize::MAX)) {
        push(&mut text, &escape(&cgroup.path));
        push(&mut text, &line("  METRIC", ["COUNT", "P50", "P90", "P99", "P99.9", "MAX"].map(str::to_owned)));
        for (name, row) in &cgroup.histograms {
            let cell = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value_text(name, value));
            let cells = [row.count.to_string(), cell(row.p50), cell(row.p90), cell(row.p99), cell(row.p999), cell(row.max)];
            push(&mut text, &line(&format!("  {}", escape(name)), cells));
        }
        if cgroup.histogram_losses > 0 {
            push(&mut text, &format!("  {} values found no room and are missing", cgroup.histogram_losses));
        }
        push(&mut text, "");
    }
    match chosen.len() - chosen.len().min(selection.top.unwrap_or(usize::MAX)) {
        0 if chosen.is_empty() => push(&mut text, "no distributions: nothing was charged, freed or reclaimed"),
        0 => {}
        hidden => push(&mut text, &format!("{hidden} more cgroups not shown")),
    }
    text
}

/// `120 charges stalled: p50 1.2 ms, p99 8.0 ms, max 9.1 ms`; of the waits the one that says most, if it is worth a line.
#[must_use]
pub fn waits(cgroup: &Cgroup) -> Option<String> {
    let worth = |row: &&HistogramRow| row.p99.is_some_and(|p99| p99 >= SHORT_NS);
    let (name, what, row) = WAITS.iter().find_map(|(name, what)| Some((*name, *what, cgroup.histograms.get(*name).filter(worth)?)))?;
    let at = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value_text(name, value));
    Some(format!("{what}: {} times, p50 {}, p99 {}, max {}", row.count, at(row.p50), at(row.p99), at(row.max)))
}

/// A value in the unit of its metric.
fn value_text(metric: &str, value: u64) -> String {
    if is_bytes(metric) { units::bytes(value) } else { time(value) }
}

/// Nanoseconds: `840 ns`, `12.3 us`, `1.2 ms`, `4.0 s`, `2.1 h`.
fn time(ns: u64) -> String {
    const UNITS: [(f64, &str); 5] = [(3.6e12, "h"), (6e10, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "us")];
    match UNITS.iter().find(|(size, _)| ns as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", ns as f64 / size),
        None => format!("{ns} ns"),
    }
}

fn line(name: &str, cells: [String; 6]) -> String {
    cells.iter().fold(pad_right(name, NAME_COLUMNS), |line, cell| line + &pad_left(cell, COLUMNS))
}

fn push(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::distribution::Distribution;

    fn cgroup(metric: &str, values: &[u64]) -> Cgroup {
        let mut distribution = Distribution::default();
        values.iter().for_each(|value| distribution.add(*value, 1));
        let histograms = [(metric.to_owned(), distribution.row().unwrap())].into();
        Cgroup { path: "/a\n".to_owned(), histograms, ..Cgroup::default() }
    }

    #[test]
    fn a_table_has_units_and_says_what_is_missing() {
        let mut small = cgroup("mapping_bytes", &[4096, 4096, 1 << 20]);
        small.histogram_losses = 3;
        let cgroups = vec![small, cgroup("memcg_reclaim_ns", &[1_500_000]), Cgroup::default()];
        let report = Report { cgroups, ..Report::default() };
        let text = render(&report, &Selection::default());
        assert!(text.starts_with("/a\\x0a\n  METRIC"), "{text}");
        assert!(text.contains("mapping_bytes") && text.contains("4.0 KiB") && text.contains("1.0 MiB"), "{text}");
        assert!(text.contains("1.5 ms") && text.contains("3 values found no room"), "{text}");
        let one = render(&report, &Selection { top: Some(1), ..Selection::default() });
        assert!(one.contains("1 more cgroups not shown") && !one.contains("1.5 ms"), "{one}");
        assert!(render(&Report::default(), &Selection::default()).starts_with("no distributions"));
    }

    #[test]
    fn only_long_waits_have_a_line() {
        assert_eq!(waits(&cgroup("memcg_reclaim_ns", &[900])), None);
        assert_eq!(waits(&cgroup("lifetime_ns", &[9_000_000_000])), None);
        let line = waits(&cgroup("memcg_reclaim_ns", &[8_000_000, 2_000_000_000])).unwrap();
        assert_eq!(line, "memcg reclaim: 2 times, p50 8.0 ms, p99 2.0 s, max 2.0 s");
    }
}
