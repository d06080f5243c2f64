//! The terminal summary: what grew, against which limit, by which stacks, and how far the figures can be trusted.
//!
//! At most 80 columns; at most 40 lines for up to ten cgroups, so that it fits a terminal and a ticket. Within that, the room is shared
//! out: every cgroup gets its line and its kinds, then verdicts, then stacks, the largest cgroups first. Never prints an unknown as zero.

use super::Value;
use crate::report::{Cgroup, Report};
use crate::text::units;
use crate::{analyse::figures, text};
use std::collections::BTreeMap;

mod holding;
mod row;

/// Columns of a line.
pub const COLUMNS: usize = 80;

/// Lines for up to ten cgroups.
const LINES: usize = 40;

/// Slower growth than this is not worth a line: 1 MiB a minute.
const LEAST_GROWTH_PER_S: f64 = 1048576.0 / 60.0;
/// Below this share of live bytes with whole stacks, a line warns.
const WHOLE_STACKS_WARNING: f64 = 0.8;
/// Most JVMs of which that is said one by one.
const MOST_JVMS: usize = 3;

/// What to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most cgroups. Above ten, four lines more for each.
    pub top: usize,
    /// Escape sequences for a terminal.
    pub color: bool,
    /// Kinds were left out, so that what is attributed cannot be told.
    pub is_part: bool,
    /// Which bytes rank the stacks: those at its peak after a command, which holds nothing any more.
    pub value: Value,
}

impl Default for Options {
    fn default() -> Self {
        Options { top: 10, color: false, is_part: false, value: Value::Live }
    }
}

/// How a line looks in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Dim,
    Warning,
    Critical,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    style: Style,
}

impl Line {
    /// Cut in the middle to the width as a last resort; callers fit their parts before.
    fn new(text: impl AsRef<str>, style: Style) -> Line {
        Line { text: text::cut_middle(text.as_ref(), COLUMNS), style }
    }

    fn print(&self, color: bool) -> String {
        let code = match self.style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Warning => "33",
            Style::Critical => "1;31",
            Style::Plain => return self.text.clone(),
        };
        if color { format!("\x1b[{code}m{}\x1b[0m", self.text) } else { self.text.clone() }
    }
}

/// The summary, each line ended by a newline.
#[must_use]
pub fn render(report: &Report, options: Options) -> String {
    let trailer = trailer(report, options);
    let mut lines = body(report, options, trailer.len());
    lines.extend(trailer);
    lines.iter().map(|line| line.print(options.color) + "\n").collect()
}

/// The cgroups, with what fits of their stacks.
fn body(report: &Report, options: Options, trailer: usize) -> Vec<Line> {
    let ranked = ranked(report, options.value);
    if ranked.is_empty() {
        let why = if report.filter.pids.is_empty() { "no memory cgroup was charged" } else { "the process charged nothing" };
        return vec![Line::new(format!("nothing measured: {why}"), Style::Bold)];
    }
    let shown = ranked.len().min(options.top.max(1));
    let budget = LINES + 4 * shown.saturating_sub(10);
    let rest = rest(&ranked[shown..]);
    let grew_most = grew_most(report, ranked.first().copied());
    let room = budget.saturating_sub(trailer + rest.len() + usize::from(grew_most.is_some()));

    let blocks: Vec<row::Block> =
        ranked[..shown].iter().enumerate().map(|(index, cgroup)| row::Block::new(cgroup, report, options.value, index == 0)).collect();
    let mut lines: Vec<Line> = fit(&blocks, room).into_iter().flatten().collect();
    lines.extend(grew_most);
    lines.extend(rest);
    lines
}

/// Chooses how much of each block is shown: level by level, the largest cgroups first, while there is room.
fn fit(blocks: &[row::Block], room: usize) -> Vec<Vec<Line>> {
    let mut chosen: Vec<Vec<Line>> = blocks.iter().map(|block| block.lines(row::Level::Head)).collect();
    let mut used: usize = chosen.iter().map(Vec::len).sum();
    for level in row::Level::GROWING {
        for (block, current) in blocks.iter().zip(&mut chosen) {
            let larger = block.lines(level);
            let after = used - current.len() + larger.len();
            if after <= room {
                used = after;
                *current = larger;
            }
        }
    }
    chosen
}

/// Cgroups with memory of their own, largest first; ties by path, so that the order is stable. Where processes were followed, those that
/// they charged, by that.
fn ranked(report: &Report, value: Value) -> Vec<&Cgroup> {
    if !report.filter.pids.is_empty() {
        let of = |cgroup: &Cgroup| cgroup.stacks.iter().fold(0_u64, |sum, row| sum.saturating_add(value.of(row)));
        let mut ranked: Vec<&Cgroup> = report.cgroups.iter().filter(|cgroup| !cgroup.stacks.is_empty()).collect();
        ranked.sort_by(|a, b| of(b).cmp(&of(a)).then_with(|| a.path.cmp(&b.path)));
        return ranked;
    }
    let size = |cgroup: &Cgroup| figures::own_bytes(cgroup).or(if cgroup.kinds.is_empty() { cgroup.usage_bytes } else { None });
    let mut ranked: Vec<&Cgroup> = report
        .cgroups
        .iter()
        .filter(|cgroup| size(cgroup) != Some(0) || !cgroup.stacks.is_empty() || !cgroup.verdicts.is_empty())
        .collect();
    ranked.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.path.cmp(&b.path)));
    ranked
}

/// A line for the innermost cgroup that grows most, where there are several and it is not the first that is shown.
fn grew_most(report: &Report, first: Option<&Cgroup>) -> Option<Line> {
    let alive = report.cgroups.iter().filter(|cgroup| cgroup.state != "dead");
    let growing = alive.filter_map(|cgroup| Some((figures::growth(cgroup).filter(|slope| *slope > LEAST_GROWTH_PER_S)?, cgroup)));
    // What is above a cgroup grows by as much as it: of equal ones the longer path.
    let order = |a: &(f64, &Cgroup), b: &(f64, &Cgroup)| {
        let is_within = |long: &Cgroup, short: &Cgroup| short.path == "/" || long.path.starts_with(&format!("{}/", short.path));
        match () {
            () if is_within(a.1, b.1) && a.0 >= b.0 / 2.0 => std::cmp::Ordering::Greater,
            () if is_within(b.1, a.1) && b.0 >= a.0 / 2.0 => std::cmp::Ordering::Less,
            () => a.0.total_cmp(&b.0),
        }
    };
    let (slope, cgroup) = growing.reduce(|a, b| if order(&a, &b).is_lt() { b } else { a })?;
    let is_first = first.is_some_and(|first| first.path == cgroup.path);
    let rate = units::rate_per_minute(slope).filter(|_| !is_first)?;
    let head = format!("grows most: {rate}, ");
    Some(Line::new(format!("{head}{}", text::cut_middle(&row::name(cgroup), COLUMNS - text::width(&head))), Style::Bold))
}

/// One line for the cgroups that are not shown.
fn rest(hidden: &[&Cgroup]) -> Vec<Line> {
    if hidden.is_empty() {
        return Vec::new();
    }
    let known: Vec<u64> = hidden.iter().filter_map(|cgroup| figures::own_bytes(cgroup)).collect();
    let sum = known.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let unknown = hidden.len() - known.len();
    let bytes = if known.is_empty() { "?".to_owned() } else { units::bytes(sum) };
    let suffix = if unknown > 0 && !known.is_empty() { format!(", {unknown} of unknown size") } else { String::new() };
    let noun = if hidden.len() == 1 { "cgroup" } else { "cgroups" };
    vec![Line::new(format!("{} more {noun}: {bytes}{suffix}", hidden.len()), Style::Dim)]
}

/// OOM kills, losses by cause, a warning about cut stacks, and the line of quality and cost.
fn trailer(report: &Report, options: Options) -> Vec<Line> {
    let value = options.value;
    let mut lines = Vec::new();
    if !report.oom.is_empty() {
        let noun = if report.oom.len() == 1 { "kill" } else { "kills" };
        lines.extend(super::autopsy::brief(report, 2, COLUMNS).into_iter().map(|line| Line::new(line, Style::Critical)));
        lines.push(Line::new(format!("{} OOM {noun} while recording: see the view oom", report.oom.len()), Style::Critical));
    }
    let losses = figures::losses(report);
    let causes: Vec<String> = losses.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    lines.extend(list("lost: ", &causes, Style::Warning));
    let of_names: Vec<String> = losses.of_names.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    lines.extend(list("no bytes lost, names or calls: ", &of_names, Style::Dim));
    lines.extend(list("not counted by this kernel: ", &losses.not_counted, Style::Dim));
    if let Some(bytes) = report.migration.bound().filter(|bytes| *bytes > 0) {
        let which = if report.migration.followed == "mapped" { "page cache that nobody maps" } else { "all memory" };
        let text = format!("the kernel moved {} on the whole host: of that, {which} lost its stack", units::bytes(bytes));
        lines.push(Line::new(text, Style::Dim));
    }
    let whole = figures::whole_stacks(report, value);
    if let Some(share) = whole.filter(|share| *share < WHOLE_STACKS_WARNING) {
        let cut = figures::percent(Some(1.0 - share), 0);
        let reason = figures::largest_cut(report, value);
        let reason = reason.map(|(reason, program)| format!(", mostly: {reason} ({})", text::escape(program))).unwrap_or_default();
        lines.push(Line::new(format!("{cut} of {value} bytes have no whole stack{reason}"), Style::Warning));
    }
    lines.extend(cut_jvms(report, value).into_iter().map(|line| Line::new(line, Style::Warning)));
    lines.extend(list("", &followed(report), Style::Dim));
    lines.extend(last(report, &losses, whole, options));
    lines
}

/// JVMs that are not known, whose stacks are cut more often than the same line allows for all, and how that is mended, as it can be without building
/// anything.
fn cut_jvms(report: &Report, value: Value) -> Vec<String> {
    let regions = report.cgroups.iter().flat_map(|cgroup| &cgroup.regions);
    let jvms: BTreeMap<u32, &str> = regions.filter(|row| row.class == "java-heap").filter_map(|row| Some((row.pid?, &*row.comm))).collect();
    let whole = |pid: u32| figures::whole_stacks_among(report, value, |row| row.pid == Some(pid));
    let is_unknown = |pid: u32| {
        let mut rows = report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks);
        rows.any(|row| row.pid == Some(pid) && row.status == figures::NO_JAVA_FRAMES)
    };
    let told = jvms.into_iter().filter(|(pid, _)| is_unknown(*pid) && whole(*pid).is_some_and(|share| share < WHOLE_STACKS_WARNING));
    told.map(|(pid, comm)| format!("{comm}[{pid}] has cut stacks: start it with -XX:+PreserveFramePointer")).take(MOST_JVMS).collect()
}

/// Whose memory the stacks are, where that is not everyone's: the figures of the cgroups are of all that they hold.
fn followed(report: &Report) -> Vec<String> {
    let pids: Vec<String> = report.filter.pids.iter().map(u32::to_string).collect();
    match pids.as_slice() {
        [] => Vec::new(),
        [pid] => vec![format!("stacks and live bytes: only what process {pid} and its later children caused")],
        // The list may be cut at its end; what it is a list of must not.
        pids => vec![format!("stacks and live bytes: only of these and their later children: {}", pids.join(" "))],
    }
}

/// An error below this share of usage is not worth a word.
const SMALL_ERROR: f64 = 0.005;

/// `attributed 99.4 %`, `attributed 103 ± 4 %` of usage: more than all of it only with its error, and not where more than that would have to be error.
fn attributed(report: &Report) -> String {
    match figures::attributed(report) {
        None => "attributed unknown".to_owned(),
        Some(part) if part.share - 1.0 > 3.0 * part.stderr.max(SMALL_ERROR) => {
            format!("attributed ?{}", if part.stderr > 0.0 { " (too few samples)" } else { "" })
        }
        Some(part) if part.stderr >= SMALL_ERROR => {
            format!("attributed {:.0} ± {:.0} %", part.share * 100.0, (part.stderr * 100.0).ceil())
        }
        Some(part) => format!("attributed {}", figures::percent(Some(part.share.min(1.0)), 1)),
    }
}

/// On one line if it fits, else on two, broken between parts.
fn last(report: &Report, losses: &figures::Losses<'_>, whole: Option<f64>, options: Options) -> Vec<Line> {
    // Of a peak the kernel's own figure stands beside it.
    let attributed = Some(attributed(report)).filter(|_| report.filter.pids.is_empty() && options.value != Value::Peak && !options.is_part);
    let lost = losses.counted.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    let cpu = report.cost.cpu_percent.filter(|cpu| cpu.is_finite()).map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.1} %"));
    let memory = report
        .cost
        .collector_rss_bytes
        .map_or_else(|| "? MB".to_owned(), |resident| units::megabytes(resident.saturating_add(report.cost.map_bytes)));
    let parts = [
        attributed,
        Some(format!("stacks complete {}", figures::percent(whole, 0))),
        Some(format!("losses {lost}")),
        Some(format!("cost {cpu} CPU, {memory}")),
    ];
    let mut lines: Vec<String> = Vec::new();
    for part in parts.into_iter().flatten() {
        match lines.last_mut() {
            Some(line) if text::width(line) + 3 + text::width(&part) <= COLUMNS => *line = format!("{line} · {part}"),
            _ => lines.push(part),
        }
    }
    lines.into_iter().map(|line| Line::new(line, Style::Dim)).collect()
}

/// Words after a prefix, on two lines at most.
fn list(prefix: &str, words: &[impl AsRef<str>], style: Style) -> Vec<Line> {
    if words.is_empty() {
        return Vec::new();
    }
    let words: Vec<String> = words.iter().map(|word| text::escape(word.as_ref())).collect();
    let mut lines = text::wrap(&format!("{prefix}{}", words.join(", ")), COLUMNS);
    if lines.len() > 2 {
        lines.truncate(2);
        let last = lines.pop().unwrap_or_default();
        lines.push(format!("{} …", text::cut_middle(&last, COLUMNS - 2)));
    }
    lines.into_iter().map(|line| Line::new(line, style)).collect()
}
