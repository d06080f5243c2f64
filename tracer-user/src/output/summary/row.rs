//! One cgroup of the summary: its line, its kinds, its verdicts and its stacks.
//!
//! Says the same at every level of detail; a level only decides how many lines it takes.

use super::{COLUMNS, Line, Style};
use crate::analyse::comparison::merged::{Merged, merge};
use crate::report::{Cgroup, FileRow, KindRow, Report, StackRow};
use crate::text::units;
use crate::{
    analyse::figures,
    output::{Value, files, histograms},
    text::{self, source},
};

/// Most stacks of a cgroup, and frames of a stack.
const STACKS: usize = 3;
const FRAMES: usize = 4;

/// Most verdicts of a cgroup and lines of one.
const VERDICTS: usize = 3;
const VERDICT_LINES: usize = 6;

/// A smaller file is not worth a line.
const LARGE_FILE: u64 = 1 << 20;

/// Order of the kinds in their line. Others follow by name.
const ORDER: [&str; 8] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap", "zswap"];

/// Slower growth than this is not worth a word: 64 KiB a minute.
const STEADY_BYTES_PER_S: f64 = 64.0 * 1024.0 / 60.0;

/// A limit further away than this is not worth a word: a day. One nearer than an hour always is.
const FAR_S: f64 = 86_400.0;
const NEAR_S: f64 = 3_600.0;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The cgroup and its kinds.
    Head,
    /// And its verdicts.
    Verdicts,
    /// And the files that hold most of its page cache or shmem.
    Files,
    /// And that many stacks, a line each.
    Flat(usize),
    /// And that many stacks, a line for the bytes and one for each frame.
    Tall(usize),
}

impl Level {
    /// In the order in which room is given.
    pub(super) const GROWING: [Level; 7] =
        [Level::Verdicts, Level::Files, Level::Flat(1), Level::Flat(2), Level::Flat(STACKS), Level::Tall(2), Level::Tall(STACKS)];
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
        let mut stacks = merge(cgroup.stacks.iter().map(|row| (cgroup, row)), value);
        if value == Value::Charged {
            stacks.iter_mut().for_each(|stack| stack.stderr = Some(charged_stderr(stack.bytes, report)));
        }
        stacks.truncate(STACKS);
        Block {
            head: vec![Line::new(headline(cgroup, report), style), Line::new(format!("  {}", kinds(cgroup, value)), Style::Plain)],
            verdicts: verdicts(cgroup).into_iter().chain(waits(cgroup)).collect(),
            files: dominant_files(cgroup),
            flat: stacks.iter().map(flat).collect(),
            tall: stacks.iter().map(tall).collect(),
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
            Level::Flat(count) => lines.extend(self.flat.iter().take(count).cloned()),
            Level::Tall(count) => lines.extend(self.tall.iter().take(count).flatten().cloned()),
        }
        lines
    }
}

/// `cart-7/web 15.9 of 16.0 GiB (99 %), +41 MiB/min, limit in 2 min 20 s`.
fn headline(cgroup: &Cgroup, report: &Report) -> String {
    let name = name(cgroup);
    let size = size(cgroup, report);
    let near = time_to_limit(cgroup, FAR_S);
    // A far limit gives its room to the name.
    let parts = |time: Option<String>| [Some(size.clone()), growth(cgroup), time].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let mut figures = parts(near);
    if text::width(&name) + 1 + text::width(&figures) > COLUMNS {
        figures = parts(time_to_limit(cgroup, NEAR_S));
    }
    let room = COLUMNS.saturating_sub(text::width(&figures) + 1).max(COLUMNS / 4);
    format!("{} {figures}", text::cut_middle(&name, room))
}

/// The name of a cgroup, escaped.
pub(super) fn name(cgroup: &Cgroup) -> String {
    text::escape(&figures::name(cgroup))
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
    let above =
        |name: &str, used: u64, limit: u64| format!("{}, {} {}", units::bytes(usage), text::cut_middle(name, 20), against(used, limit));
    let binding = cgroup.binding_limit.as_ref().filter(|limit| limit.path != cgroup.path);
    let mut size = match (binding, cgroup.limit_bytes, limited_ancestor(cgroup, report)) {
        // What is met first is what matters, also where the cgroup has a limit of its own.
        (Some(limit), ..) => above(&name_of(&limit.path, report), limit.usage_bytes.unwrap_or(0), limit.limit_bytes),
        (None, Some(limit), _) => against(usage, limit),
        (None, None, Some((ancestor, used, limit))) => above(&name(ancestor), used, limit),
        (None, None, None) => format!("{}, no limit", units::bytes(usage)),
    };
    // Usage counts the children too; say so where most of it is theirs.
    if let Some(own) = own.filter(|own| *own < usage / 10 * 9) {
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
    match figures::growth(cgroup) {
        None => Some("growth unknown".to_owned()),
        Some(slope) if slope.abs() < STEADY_BYTES_PER_S => Some("steady".to_owned()),
        Some(slope) => units::rate_per_minute(slope),
    }
}

/// `limit in 2 min 20 s`, if it comes within so many seconds.
fn time_to_limit(cgroup: &Cgroup, within: f64) -> Option<String> {
    let (seconds, is_growing) = match &cgroup.binding_limit {
        // That one grows, or the time would not be known.
        Some(limit) if limit.path != cgroup.path => (limit.reached_in_s, true),
        _ => (figures::seconds_to_limit(cgroup), figures::growth(cgroup)? >= STEADY_BYTES_PER_S),
    };
    let seconds = seconds.filter(|seconds| is_growing && *seconds >= 1.0 && *seconds <= within)?;
    units::seconds(seconds).map(|time| format!("limit in {time}"))
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
        Some(uncovered) if uncovered.unsigned_abs() >= 4 << 20 => {
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
    let bytes = match figures::kind_bytes(row) {
        None if is_followed => return Some(format!("{name} ?")),
        None => return None,
        Some(0) if charged.is_none() => return None,
        Some(bytes) => bytes,
    };
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
    large.map(|file| Line::new(format!("    {}", files::summary_line(file, COLUMNS - 4)), Style::Plain)).collect()
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

/// `    1.2 GiB ± 40.0 MiB  java: … > Buffer::grow > realloc`.
fn flat(stack: &Merged<'_>) -> Line {
    let comm = text::cut_middle(&text::escape(&stack.row.comm), 15);
    let head = format!("    {}  {comm}: ", figures::sampled(stack.bytes, stack.stderr));
    let room = COLUMNS.saturating_sub(text::width(&head));
    Line::new(format!("{head}{}", chain(stack.row, room)), Style::Plain)
}

fn tall(stack: &Merged<'_>) -> Vec<Line> {
    let about = text::escape(&format!("{}, {}", stack.process(), stack.kind()));
    let mut lines = vec![Line::new(format!("    {}  {about}", figures::sampled(stack.bytes, stack.stderr)), Style::Plain)];
    let frames = frames(stack.row);
    if frames.names.is_empty() {
        lines.push(Line::new("      no stack", Style::Dim));
    }
    for (index, name) in frames.names.iter().enumerate() {
        let prefix =
            if index == 0 { frames.prefix(stack.row.status.strip_prefix("cut").map(|_| stack.row.status.as_str())) } else { String::new() };
        lines.push(Line::new(format!("      {}{prefix}{name}", " ".repeat(index)), Style::Dim));
    }
    lines
}

/// The frames on one line, outermost first. When they do not fit, outer frames go before names are cut, and names are cut evenly.
fn chain(row: &StackRow, room: usize) -> String {
    const BETWEEN: &str = " > ";
    /// A name cut shorter than this says nothing.
    const SHORTEST: usize = 22;
    let mut frames = frames(row);
    if frames.names.is_empty() {
        return "no stack".to_owned();
    }
    loop {
        let prefix = frames.prefix(row.status.starts_with("cut").then_some("cut"));
        let fixed = text::width(&prefix) + BETWEEN.len() * (frames.names.len() - 1);
        let share = fair_share(&frames.names, room.saturating_sub(fixed));
        if share >= SHORTEST || frames.names.len() == 1 {
            let names: Vec<String> = frames.names.iter().map(|name| text::cut_middle(name, share)).collect();
            return format!("{prefix}{}", names.join(BETWEEN));
        }
        frames.names.remove(0);
        frames.more = true;
    }
}

/// The largest width to which names must be cut so that all fit in the room: short ones leave theirs to the long.
fn fair_share(names: &[String], room: usize) -> usize {
    let mut widths: Vec<usize> = names.iter().map(|name| text::width(name)).collect();
    widths.sort_unstable();
    let mut left = room;
    for (index, width) in widths.iter().enumerate() {
        let share = left / (widths.len() - index);
        if *width > share {
            return share;
        }
        left -= width;
    }
    usize::MAX
}

/// The frames that are shown, outermost first.
struct Frames {
    names: Vec<String>,
    /// Outer ones are left out.
    more: bool,
}

impl Frames {
    /// What stands before the first shown frame: where the stack was cut, and that there are more.
    fn prefix(&self, cut: Option<&str>) -> String {
        let cut = cut.map(|status| format!("[{}] > ", text::escape(status))).unwrap_or_default();
        format!("{cut}{}", if self.more { "… > " } else { "" })
    }
}

/// The innermost user frames, or kernel frames where there are no others (see [`source::window`]).
fn frames(row: &StackRow) -> Frames {
    // Where it was cut stands before the frames.
    let is_cut_root = |name: &String| row.status.starts_with("cut") && *name == format!("[{}]", row.status);
    let mut names: Vec<&String> = row.frames.iter().filter(|name| !name.ends_with("_[k]") && !is_cut_root(name)).collect();
    if names.is_empty() {
        names = row.frames.iter().collect();
    }
    let (range, has_inner) = source::window(&names, FRAMES);
    let hidden = range.start;
    let shown = names[range].iter().map(|name| text::escape(name)).chain(has_inner.then(|| source::INNER.to_owned()));
    Frames { names: shown.collect(), more: hidden > 0 }
}
