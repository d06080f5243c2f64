//! One cgroup of the summary: its line, its kinds, its verdicts and its stacks.
//!
//! Says the same at every level of detail; a level only decides how many lines it takes.

use super::holding::Holding;
use super::{COLUMNS, Line, Style};
use crate::analyse::{before, common, comparison::merged::merge};
use crate::report::{Cgroup, FileRow, KindRow, ProcessRow, Report};
use crate::text::units;
use crate::{
    analyse::figures,
    output::{Value, files, histograms, trend},
    text,
};

/// Most rows of what a cgroup holds, and most of them with a line for each frame.
const ROWS: usize = 8;
const TALL: usize = 3;
/// A row with less than this share of what the cgroup holds is left out, unless it is the first.
const LEAST_SHARE: u64 = 200;

/// Most verdicts of a cgroup and lines of one.
const VERDICTS: usize = 3;
const VERDICT_LINES: usize = 12;

/// A smaller file is not worth a line.
const LARGE_FILE: u64 = 1 << 20;

/// Order of the kinds in their line. Others follow by name.
const ORDER: [&str; 8] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap", "zswap"];

/// Columns of the name of a cgroup above whose limit is met first.
const LIMIT_COLUMNS: usize = 26;
/// A part of kernel memory below this is not worth a word.
const LEAST_PART: u64 = 1 << 20;

/// A limit further away than this is not worth a word: a day.
const FAR_S: f64 = 86_400.0;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The cgroup and its kinds.
    Head,
    /// And its verdicts.
    Verdicts,
    /// And the files that hold most of its page cache or shmem.
    Files,
    /// And rows of what it holds: with a line for each frame so many of them, and so many in all.
    Rows { tall: usize, all: usize },
}

impl Level {
    /// In the order in which room is given.
    pub(super) const GROWING: [Level; 8] = [
        Level::Verdicts,
        Level::Files,
        Level::Rows { tall: 0, all: 1 },
        Level::Rows { tall: 0, all: 2 },
        Level::Rows { tall: 0, all: 3 },
        Level::Rows { tall: 2, all: 3 },
        Level::Rows { tall: TALL, all: 3 },
        Level::Rows { tall: TALL, all: ROWS },
    ];
}

/// The parts of a cgroup, made once.
pub(super) struct Block {
    head: Vec<Line>,
    verdicts: Vec<Line>,
    files: Vec<Line>,
    flat: Vec<Line>,
    tall: Vec<Vec<Line>>,
}

impl Block {
    pub(super) fn new(cgroup: &Cgroup, report: &Report, value: Value, is_first: bool) -> Block {
        let style = if is_first { Style::Bold } else { Style::Plain };
        let rows = holdings(cgroup, report, value);
        let mut head: Vec<Line> = headline(cgroup, report, value).into_iter().map(|line| Line::new(line, style)).collect();
        head.push(Line::new(format!("  {}", kinds(cgroup, value)), Style::Plain));
        Block {
            head,
            verdicts: verdicts(cgroup).into_iter().chain(waits(cgroup)).collect(),
            files: dominant_files(cgroup),
            flat: rows.iter().map(Holding::flat).collect(),
            tall: rows.iter().take(TALL).map(Holding::tall).collect(),
        }
    }

    pub(super) fn lines(&self, level: Level) -> Vec<Line> {
        let mut lines = self.head.clone();
        if level != Level::Head {
            lines.extend_from_slice(&self.verdicts);
        }
        if !matches!(level, Level::Head | Level::Verdicts) {
            lines.extend_from_slice(&self.files);
        }
        match level {
            Level::Head | Level::Verdicts | Level::Files => {}
            Level::Rows { tall, all } => {
                lines.extend(self.tall.iter().take(tall).flatten().cloned());
                lines.extend(self.flat.iter().take(all).skip(tall).cloned());
            }
        }
        lines
    }
}

/// Processes with huge pages of hugetlbfs, where the cgroup is not charged for them.
fn hugetlb(cgroup: &Cgroup) -> Option<&ProcessRow> {
    let is_charged = cgroup.kinds.get("hugetlb").and_then(|row| row.stat).is_some_and(|bytes| bytes > 0);
    cgroup
        .processes
        .iter()
        .filter(|row| !is_charged && row.hugetlb_bytes.is_some_and(|bytes| bytes > 0))
        .max_by_key(|row| row.hugetlb_bytes)
}

/// What the cgroup holds, the largest first: stacks, and for live bytes also what is older than the recording.
fn holdings<'a>(cgroup: &'a Cgroup, report: &Report, value: Value) -> Vec<Holding<'a>> {
    let mut stacks = merge(cgroup.stacks.iter().map(|row| (cgroup, row)), value);
    if value == Value::Charged {
        stacks.iter_mut().for_each(|stack| stack.stderr = Some(charged_stderr(stack.bytes, report)));
    }
    let mut rows: Vec<Holding<'a>> = common::common(&stacks).into_iter().map(Holding::Common).collect();
    rows.extend(stacks.into_iter().map(Holding::Stack));
    if value == Value::Live {
        rows.extend(before::before(cgroup).into_iter().map(Holding::Before));
    }
    rows.extend(hugetlb(cgroup).into_iter().map(Holding::Hugetlb));
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
    let least = rows.iter().map(Holding::bytes).fold(0, u64::saturating_add) / LEAST_SHARE;
    let mut first = true;
    rows.retain(|row| std::mem::take(&mut first) || (row.bytes() >= least && row.is_firm()));
    rows.truncate(ROWS);
    rows
}

/// `cart-7/web 15.9 of 16.0 GiB (99 %), +41 MiB/min, limit in 2 min 20 s`: on two lines where it does not fit on one, so that neither the
/// name nor the figures are cut.
fn headline(cgroup: &Cgroup, report: &Report, value: Value) -> Vec<String> {
    let name = name(cgroup);
    let parts = match peak(cgroup).filter(|_| value == Value::Peak) {
        // Of what has ended nothing grows.
        Some(peak) => [Some(peak), None, None],
        None => [Some(size(cgroup, report)), growth(cgroup), time_to_limit(cgroup)],
    };
    let figures = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let whole = format!("{name} {figures}");
    if text::width(&whole) <= COLUMNS {
        return vec![whole];
    }
    let mut lines = vec![text::cut_middle(&name, COLUMNS)];
    lines.extend(text::wrap(&figures, COLUMNS - 2).into_iter().map(|line| format!("  {line}")));
    lines
}

/// The name of a cgroup, escaped.
pub(super) fn name(cgroup: &Cgroup) -> String {
    text::escape(&figures::name(cgroup))
}

/// `64.1 MiB at its peak (by the kernel 65.2 MiB since it was made), 0 B now`. The kernel's figure has kernel memory in it.
fn peak(cgroup: &Cgroup) -> Option<String> {
    let followed = cgroup.peak_bytes.filter(|bytes| *bytes > 0)?;
    let kernel =
        cgroup.kernel_peak_bytes.map(|bytes| format!(" (by the kernel {} since it was made)", units::bytes(bytes))).unwrap_or_default();
    let now = cgroup.usage_bytes.map(|bytes| format!(", {} now", units::bytes(bytes))).unwrap_or_default();
    Some(format!("{} at its peak{kernel}{now}", units::bytes(followed)))
}

fn size(cgroup: &Cgroup, report: &Report) -> String {
    let own = figures::own_bytes(cgroup);
    let Some(usage) = cgroup.usage_bytes else {
        return match (own, cgroup.state.as_str()) {
            (Some(own), "dead") => format!("{} still charged", units::bytes(own)),
            (Some(own), _) => format!("{}, usage unknown", units::bytes(own)),
            (None, _) => "usage unknown".to_owned(),
        };
    };
    let above = |name: &str, used: u64, limit: u64| {
        format!("{}, {} {}", units::bytes(usage), text::cut_middle(name, LIMIT_COLUMNS), against(used, limit))
    };
    let binding = cgroup.binding_limit.as_ref().filter(|limit| limit.path != cgroup.path);
    let mut size = match (binding, cgroup.limit_bytes, limited_ancestor(cgroup, report)) {
        // What is met first is what matters, also where the cgroup has a limit of its own.
        (Some(limit), ..) => above(&name_of(&limit.path, report), limit.usage_bytes.unwrap_or(0), limit.limit_bytes),
        (None, Some(limit), _) => against(usage, limit),
        (None, None, Some((ancestor, used, limit))) => above(&name(ancestor), used, limit),
        (None, None, None) => format!("{}, no limit", units::bytes(usage)),
    };
    // Usage counts the children too; say so where much of it is theirs.
    let whole = figures::sum_of_kinds(&cgroup.subtree).unwrap_or(usage);
    if let Some(own) = own.filter(|own| *own < whole.min(usage) / 10 * 9) {
        size.push_str(&format!(", own {}", units::bytes(own)));
    }
    size
}

/// What the cgroup at that path is called, where the report has it.
fn name_of(path: &str, report: &Report) -> String {
    report.cgroups.iter().find(|other| other.path == path).map_or_else(|| text::escape(path), name)
}

fn against(usage: u64, limit: u64) -> String {
    // Rounded down: 100 % means at the limit.
    let percent = (u128::from(usage) * 100).checked_div(u128::from(limit)).map_or_else(|| "?".to_owned(), |percent| percent.to_string());
    format!("{} ({percent} %)", units::part_of(usage, limit))
}

/// The nearest ancestor in the report with a limit: its usage decides for the cgroup too.
fn limited_ancestor<'a>(cgroup: &Cgroup, report: &'a Report) -> Option<(&'a Cgroup, u64, u64)> {
    let is_above = |path: &str| path != "/" && cgroup.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let above = report.cgroups.iter().filter(|other| other.state != "dead" && is_above(&other.path));
    above.filter_map(|other| Some((other, other.usage_bytes?, other.limit_bytes?))).max_by_key(|(other, ..)| other.path.len())
}

fn growth(cgroup: &Cgroup) -> Option<String> {
    if cgroup.state == "dead" {
        return None;
    }
    Some(cgroup.trend.as_ref().map_or_else(|| "growth unknown".to_owned(), trend::in_words))
}

/// `limit in 2 min 20 s`, if it comes within a day.
fn time_to_limit(cgroup: &Cgroup) -> Option<String> {
    let seconds = match &cgroup.binding_limit {
        Some(limit) if limit.path != cgroup.path => limit.reached_in_s,
        _ => figures::seconds_to_limit(cgroup),
    };
    units::seconds(seconds.filter(|seconds| (1.0..=FAR_S).contains(seconds))?).map(|time| format!("limit in {time}"))
}

/// `anon 15.2 GiB (1.9 GiB live) · file 412.0 MiB · ...`: with the live part where much is older than the recording, if it fits. Kinds
/// without bytes are left out, unknown ones among the followed are not.
fn kinds(cgroup: &Cgroup, value: Value) -> String {
    let room = COLUMNS - 2;
    for detail in [Some(value), None] {
        let line = cells(cgroup, detail).join(" · ");
        if text::width(&line) <= room {
            return line;
        }
    }
    let mut cells = cells(cgroup, None);
    let mut hidden = 0;
    loop {
        let line = format!("{} · {hidden} more kinds", cells.join(" · "));
        if text::width(&line) <= room || cells.pop().is_none() {
            return line;
        }
        hidden += 1;
    }
}

fn cells(cgroup: &Cgroup, detail: Option<Value>) -> Vec<String> {
    if cgroup.kinds.is_empty() {
        return vec!["kinds unknown".to_owned()];
    }
    let mut names: Vec<&str> = ORDER.to_vec();
    names.extend(cgroup.kinds.keys().map(String::as_str).filter(|name| !ORDER.contains(name)));
    let mut cells: Vec<String> = names.iter().filter_map(|name| cell(name, cgroup.kinds.get(*name)?, detail)).collect();
    match cgroup.uncovered_bytes {
        // The kernel's batching: 64 pages a CPU are noise.
        Some(uncovered) if detail != Some(Value::Peak) && uncovered.unsigned_abs() >= 4 << 20 => {
            let sign = if uncovered < 0 { "-" } else { "" };
            cells.push(format!("uncovered {sign}{}", units::bytes(uncovered.unsigned_abs())));
        }
        _ => {}
    }
    if cells.is_empty() { vec!["no bytes of any kind".to_owned()] } else { cells }
}

fn cell(name: &str, row: &KindRow, detail: Option<Value>) -> Option<String> {
    let is_followed = figures::FOLLOWED.contains(&name);
    let charged = row.charged.filter(|bytes| is_followed && *bytes > 0 && detail == Some(Value::Charged));
    // What is known of that moment, and not what is there now.
    if detail == Some(Value::Peak) {
        let peak = row.peak.filter(|peak| *peak > 0)?;
        return Some(format!("{} {}", text::escape(name), figures::sampled(peak, row.peak_stderr)));
    }
    let bytes = match figures::kind_bytes(row) {
        None if is_followed => return Some(format!("{name} ?")),
        None => return None,
        Some(0) if charged.is_none() => return None,
        Some(bytes) => bytes,
    };
    if name.starts_with("kernel.") && bytes < LEAST_PART {
        return None;
    }
    let cell = format!("{} {}", text::escape(name), units::bytes(bytes));
    match (detail, row.live) {
        (Some(Value::Charged), _) => {
            Some(charged.map_or_else(|| cell.clone(), |bytes| format!("{cell} ({} charged)", units::bytes(bytes))))
        }
        (Some(Value::Live), None) if is_followed => Some(format!("{cell} (? live)")),
        (Some(Value::Live), Some(live)) if is_followed && live < bytes / 10 * 9 => Some(format!("{cell} ({} live)", units::bytes(live))),
        _ => Some(cell),
    }
}

/// At most: the error of that many bytes in samples of the mean size. Zero where every charge was taken.
fn charged_stderr(bytes: u64, report: &Report) -> u64 {
    if report.sampling.mode == "exact" { 0 } else { (bytes as f64 * report.sampling.mean_bytes as f64).sqrt().round() as u64 }
}

/// A line for a file that holds more than half of the cgroup's page cache or shmem, where that is worth a line.
fn dominant_files(cgroup: &Cgroup) -> Vec<Line> {
    let files = ["file", "shmem"].into_iter().filter_map(|kind| files::dominant(cgroup, kind));
    // A verdict that names it says more.
    let is_told = |file: &&FileRow| cgroup.verdicts.iter().any(|verdict| verdict.text.contains(&file.path));
    let large = files.filter(|file| file.bytes() >= LARGE_FILE && !is_told(file));
    let mut lines: Vec<Line> =
        large.map(|file| Line::new(format!("    {}", files::summary_line(file, COLUMNS - 4)), Style::Plain)).collect();
    let without = ["file", "shmem"].into_iter().filter(|kind| files::dominant(cgroup, kind).is_none());
    let is_told =
        |group: &files::Group<'_>| group.files.iter().any(|file| cgroup.verdicts.iter().any(|verdict| verdict.text.contains(&file.path)));
    let groups = without.filter_map(|kind| files::group(cgroup, kind)).filter(|group| !is_told(group));
    let large = groups.filter(|group| group.files.iter().map(|file| file.bytes()).fold(0, u64::saturating_add) >= LARGE_FILE);
    lines.extend(large.map(|group| Line::new(format!("    {}", files::group_line(&group, COLUMNS - 4)), Style::Plain)));
    lines
}

/// A line for long waits for memory.
fn waits(cgroup: &Cgroup) -> Option<Line> {
    histograms::waits(cgroup).map(|line| Line::new(format!("  {}", text::cut_middle(&line, COLUMNS - 2)), Style::Plain))
}

fn verdicts(cgroup: &Cgroup) -> Vec<Line> {
    let mut lines = Vec::new();
    for verdict in cgroup.verdicts.iter().take(VERDICTS) {
        let style = match verdict.severity.as_str() {
            "critical" => Style::Critical,
            "info" => Style::Plain,
            _ => Style::Warning,
        };
        let words = text::escape(if verdict.text.is_empty() { &verdict.id } else { &verdict.text });
        let mut wrapped = text::wrap(&words, COLUMNS - 4);
        if wrapped.len() > VERDICT_LINES {
            wrapped.truncate(VERDICT_LINES);
            if let Some(last) = wrapped.last_mut() {
                *last = text::cut_middle(&format!("{last} …"), COLUMNS - 4);
            }
        }
        let prefixed = wrapped.iter().enumerate().map(|(index, line)| format!("  {} {line}", if index == 0 { '!' } else { ' ' }));
        lines.extend(prefixed.map(|line| Line::new(line, style)));
    }
    if cgroup.verdicts.len() > VERDICTS {
        lines.push(Line::new(format!("  ! {} more verdicts: see the JSON", cgroup.verdicts.len() - VERDICTS), Style::Warning));
    }
    lines
}
