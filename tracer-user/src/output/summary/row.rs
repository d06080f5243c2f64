//! One cgroup of the summary: its line, its kinds, its verdicts and its stacks.
//!
//! Says the same at every level of detail; a level only decides how many lines it takes.

use super::{COLUMNS, Line, Style};
use crate::model::{Cgroup, KindRow, Report, StackRow};
use crate::output::{figures, text};
use crate::units;

/// Most stacks of a cgroup, and frames of a stack.
const STACKS: usize = 3;
const FRAMES: usize = 4;

/// Most verdicts of a cgroup and lines of one.
const VERDICTS: usize = 3;
const VERDICT_LINES: usize = 4;

/// Order of the kinds in their line. Others follow by name.
const ORDER: [&str; 8] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock", "swap", "zswap"];

/// Slower growth than this is not worth a word: 64 KiB a minute.
const STEADY_BYTES_PER_S: f64 = 64.0 * 1024.0 / 60.0;

/// A limit further away than this is not near: a week.
const FAR_S: f64 = 7.0 * 86_400.0;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The cgroup and its kinds.
    Head,
    /// And its verdicts.
    Verdicts,
    /// And that many stacks, a line each.
    Flat(usize),
    /// And that many stacks, a line for the bytes and one for each frame.
    Tall(usize),
}

impl Level {
    /// In the order in which room is given.
    pub(super) const GROWING: [Level; 6] =
        [Level::Verdicts, Level::Flat(1), Level::Flat(2), Level::Flat(STACKS), Level::Tall(2), Level::Tall(STACKS)];
}

/// The parts of a cgroup, made once.
pub(super) struct Block {
    head: Vec<Line>,
    verdicts: Vec<Line>,
    flat: Vec<Line>,
    tall: Vec<Vec<Line>>,
}

impl Block {
    pub(super) fn new(cgroup: &Cgroup, report: &Report, is_first: bool) -> Block {
        let style = if is_first { Style::Bold } else { Style::Plain };
        let mut rows: Vec<&StackRow> = cgroup.stacks.iter().filter(|row| row.live > 0).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.live));
        rows.truncate(STACKS);
        Block {
            head: vec![Line::new(headline(cgroup, report), style), Line::new(format!("  {}", kinds(cgroup)), Style::Plain)],
            verdicts: verdicts(cgroup),
            flat: rows.iter().map(|row| flat(row)).collect(),
            tall: rows.iter().map(|row| tall(row)).collect(),
        }
    }

    pub(super) fn lines(&self, level: Level) -> Vec<Line> {
        let mut lines = self.head.clone();
        if level != Level::Head {
            lines.extend_from_slice(&self.verdicts);
        }
        match level {
            Level::Head | Level::Verdicts => {}
            Level::Flat(count) => lines.extend(self.flat.iter().take(count).cloned()),
            Level::Tall(count) => lines.extend(self.tall.iter().take(count).flatten().cloned()),
        }
        lines
    }
}

/// `cart-7/web 15.9 of 16.0 GiB (99 %), +41 MiB/min, limit in 2 min 20 s`.
fn headline(cgroup: &Cgroup, report: &Report) -> String {
    let mut parts = vec![size(cgroup, report)];
    parts.extend(growth(cgroup));
    let figures = parts.join(", ");
    let room = COLUMNS.saturating_sub(text::width(&figures) + 1).max(COLUMNS / 4);
    format!("{} {figures}", text::cut_middle(&name(cgroup), room))
}

/// `pod/container` where known, else the path.
pub(super) fn name(cgroup: &Cgroup) -> String {
    let name = match (&cgroup.pod, &cgroup.container) {
        (Some(pod), Some(container)) => format!("{pod}/{container}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => cgroup.path.clone(),
    };
    let name = text::escape(&name);
    if cgroup.state == "dead" { format!("{name} (dead)") } else { name }
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
    let mut size = match (cgroup.limit_bytes, limited_ancestor(cgroup, report)) {
        (Some(limit), _) => against(usage, limit),
        (None, Some((ancestor, used, limit))) => {
            format!("{}, {} {}", units::bytes(usage), text::cut_middle(&name(ancestor), 20), against(used, limit))
        }
        (None, None) => format!("{}, no limit", units::bytes(usage)),
    };
    // Usage counts the children too; say so where most of it is theirs.
    if let Some(own) = own.filter(|own| *own < usage / 10 * 9) {
        size.push_str(&format!(", own {}", units::bytes(own)));
    }
    size
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

fn growth(cgroup: &Cgroup) -> Vec<String> {
    if cgroup.state == "dead" {
        return Vec::new();
    }
    let Some(slope) = figures::growth(cgroup) else { return vec!["growth unknown".to_owned()] };
    if slope.abs() < STEADY_BYTES_PER_S {
        return vec!["steady".to_owned()];
    }
    let mut parts: Vec<String> = units::rate_per_minute(slope).into_iter().collect();
    let time = figures::seconds_to_limit(cgroup).filter(|seconds| *seconds >= 1.0 && *seconds <= FAR_S).and_then(units::seconds);
    parts.extend(time.map(|time| format!("limit in {time}")));
    parts
}

/// `anon 15.2 GiB (14.9 GiB live) · file 412.0 MiB · ...`: with the live parts if they fit. Kinds without bytes are left out, unknown ones
/// among the followed are not.
fn kinds(cgroup: &Cgroup) -> String {
    let room = COLUMNS - 2;
    for with_live in [true, false] {
        let line = cells(cgroup, with_live).join(" · ");
        if text::width(&line) <= room {
            return line;
        }
    }
    let mut cells = cells(cgroup, false);
    let mut hidden = 0;
    loop {
        let line = format!("{} · {hidden} more kinds", cells.join(" · "));
        if text::width(&line) <= room || cells.pop().is_none() {
            return line;
        }
        hidden += 1;
    }
}

fn cells(cgroup: &Cgroup, with_live: bool) -> Vec<String> {
    let mut names: Vec<&str> = ORDER.to_vec();
    names.extend(cgroup.kinds.keys().map(String::as_str).filter(|name| !ORDER.contains(name)));
    let mut cells: Vec<String> = names.iter().filter_map(|name| cell(name, cgroup.kinds.get(*name), with_live)).collect();
    match cgroup.uncovered_bytes {
        // The kernel's batching: 64 pages a CPU are noise.
        Some(uncovered) if uncovered.unsigned_abs() >= 4 << 20 => cells.push(format!("uncovered {}", units::signed(uncovered))),
        _ => {}
    }
    if cells.is_empty() { vec!["no bytes of any kind".to_owned()] } else { cells }
}

fn cell(name: &str, row: Option<&KindRow>, with_live: bool) -> Option<String> {
    let is_followed = figures::FOLLOWED.contains(&name);
    let bytes = row.and_then(figures::kind_bytes);
    let live = row.and_then(|row| row.live);
    match bytes {
        None if is_followed => Some(format!("{name} ?")),
        None | Some(0) => None,
        Some(bytes) if !with_live || !is_followed => Some(format!("{} {}", text::escape(name), units::bytes(bytes))),
        Some(bytes) => {
            let live = live.map_or_else(|| "?".to_owned(), units::bytes);
            Some(format!("{name} {} ({live} live)", units::bytes(bytes)))
        }
    }
}

fn verdicts(cgroup: &Cgroup) -> Vec<Line> {
    let mut lines = Vec::new();
    for verdict in cgroup.verdicts.iter().take(VERDICTS) {
        let field = |name: &str| verdict.get(name).and_then(serde_json::Value::as_str).unwrap_or("");
        let style = match field("severity") {
            "critical" => Style::Critical,
            "info" => Style::Plain,
            _ => Style::Warning,
        };
        let words = text::escape(if field("text").is_empty() { field("id") } else { field("text") });
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
fn flat(row: &StackRow) -> Line {
    let head = format!("    {}  {}: ", figures::sampled(row.live, Some(row.live_stderr)), text::cut_middle(&text::escape(&row.comm), 15));
    let room = COLUMNS.saturating_sub(text::width(&head));
    Line::new(format!("{head}{}", chain(row, room)), Style::Plain)
}

fn tall(row: &StackRow) -> Vec<Line> {
    let region = if row.region.is_empty() || row.kind != "anon" { String::new() } else { format!(" {}", row.region) };
    let process = row.pid.map_or_else(|| row.comm.clone(), |pid| format!("{}[{pid}]", row.comm));
    let status = if row.status == "complete" { String::new() } else { format!(", stack {}", row.status) };
    let about = text::escape(&format!("{process}, {}{region}{status}", row.kind));
    let bytes = figures::sampled(row.live, Some(row.live_stderr));
    let mut lines = vec![Line::new(format!("    {bytes}  {about}"), Style::Plain)];
    let (names, more) = frames(row);
    let more = if more { "… > " } else { "" };
    for (index, name) in names.iter().enumerate() {
        let prefix = if index == 0 { more } else { "" };
        lines.push(Line::new(format!("      {}{prefix}{name}", " ".repeat(index)), Style::Dim));
    }
    lines
}

/// The frames on one line, outermost first. When they do not fit, outer frames go before names are cut, and names are cut evenly.
fn chain(row: &StackRow, room: usize) -> String {
    const BETWEEN: &str = " > ";
    /// A name cut shorter than this says nothing.
    const SHORTEST: usize = 14;
    let (mut names, mut more) = frames(row);
    if names.is_empty() {
        return text::cut_middle(&format!("stack {}", text::escape(&row.status)), room);
    }
    loop {
        let prefix = if more { "… > " } else { "" };
        let fixed = text::width(prefix) + BETWEEN.len() * (names.len() - 1);
        let needed: usize = fixed + names.iter().map(|name| text::width(name)).sum::<usize>();
        let share = room.saturating_sub(fixed) / names.len();
        if needed <= room || names.len() == 1 || (names.len() == 2 && share >= SHORTEST) {
            let names: Vec<String> = if needed <= room { names } else { names.iter().map(|name| text::cut_middle(name, share)).collect() };
            return format!("{prefix}{}", names.join(BETWEEN));
        }
        names.remove(0);
        more = true;
    }
}

/// The innermost user frames, or kernel frames where there are no others, outermost first; and whether outer ones were left out.
fn frames(row: &StackRow) -> (Vec<String>, bool) {
    let is_kernel = |name: &&String| name.ends_with("_[k]");
    let mut names: Vec<&String> = row.frames.iter().filter(|name| !is_kernel(name)).collect();
    if names.is_empty() {
        names = row.frames.iter().collect();
    }
    let hidden = names.len().saturating_sub(FRAMES);
    (names[hidden..].iter().map(|name| text::escape(name)).collect(), hidden > 0)
}
