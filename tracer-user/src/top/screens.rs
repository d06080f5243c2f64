//! What each screen shows: lines of a width, as many as there is room for.

use super::{
    rows::Row,
    state::{Screen, State, Tab, View},
    theme::{KINDS, Theme},
};
use crate::analyse::figures;
use crate::report::Cgroup;
use crate::text::{self, units};
use ratatui::{
    style::Style,
    text::{Line, Span},
};

/// A smaller terminal has no room for a table.
pub const LEAST: (u16, u16) = (60, 12);
/// Width of the bar of kinds.
const BAR: usize = 10;

/// All of the screen: as many lines as it is high.
#[must_use]
pub fn draw(state: &State, view: &View, theme: Theme, (width, height): (u16, u16)) -> Vec<Line<'static>> {
    if width < LEAST.0 || height < LEAST.1 {
        return vec![Line::raw(format!("memtrail needs {}x{}, this is {width}x{height}", LEAST.0, LEAST.1))];
    }
    let (columns, room) = (usize::from(width), usize::from(height) - 2);
    let pen = Pen { theme, columns };
    let mut lines = vec![head(view, state, pen)];
    lines.extend(match state.screen() {
        Screen::Table => table(state, view, pen, room),
        Screen::Container { id, tab, chosen } => container(view, id, *tab, *chosen, pen, room),
        Screen::Text { title, lines, from } => read(title, lines, *from, pen, room),
        Screen::Flame { id, zoom, chosen } => flame(view, id.as_deref(), zoom, chosen, pen, room),
        Screen::Kills { chosen } => kills(view, *chosen, pen, room),
    });
    lines.truncate(room + 1);
    lines.resize(room + 1, Line::raw(""));
    lines.push(foot(state, pen));
    lines
}

/// How lines are written.
#[derive(Clone, Copy)]
struct Pen {
    theme: Theme,
    columns: usize,
}

impl Pen {
    /// Text in so many columns, cut in its middle.
    fn cell(self, text: &str, columns: usize) -> String {
        let text = text::cut_middle(&self.theme.text(text), columns);
        let text = if self.theme.ascii { text.replace('…', "~") } else { text };
        text::pad_right(&text, columns)
    }

    fn line(self, text: &str, style: Style) -> Line<'static> {
        Line::styled(self.cell(text, self.columns), style)
    }
}

fn head(view: &View, state: &State, pen: Pen) -> Line<'static> {
    let report = &view.report;
    let own: u64 = report.cgroups.iter().filter_map(figures::own_bytes).fold(0, u64::saturating_add);
    let dead: u64 =
        report.cgroups.iter().filter(|cgroup| cgroup.state == "dead").filter_map(figures::own_bytes).fold(0, u64::saturating_add);
    let lost = figures::losses(report);
    let mut words = vec![format!("memtrail  {}  {} cgroups hold {}", view.source, report.cgroups.len(), units::bytes(own))];
    if dead > 0 {
        words.push(format!("{} of them dead", units::bytes(dead)));
    }
    if let Some((cause, count)) = lost.causes.first() {
        words.push(format!("lost: {cause} {count}"));
    }
    if let (Some(cpu), Some(rss)) = (report.cost.cpu_percent, report.cost.collector_rss_bytes) {
        words.push(format!("own {cpu:.1} % {}", units::bytes(rss)));
    }
    words.push(if state.is_frozen {
        "FROZEN".to_owned()
    } else if view.interval_s > 0.0 {
        format!("{}s", view.interval_s)
    } else {
        report.ended.clone()
    });
    pen.line(&words.join("  "), pen.theme.head())
}

fn foot(state: &State, pen: Pen) -> Line<'static> {
    if let Some(text) = &state.typing {
        return pen.line(&format!("filter: {text}_   Enter keeps it, Esc leaves"), pen.theme.head());
    }
    if let Some(message) = &state.message {
        return pen.line(message, pen.theme.head());
    }
    let keys = match state.screen() {
        Screen::Table => "[Enter] look  [s] sort  [/] filter  [t] pods  [d] dead  [f] flame  [o] OOM  [z] freeze  [?] help  [q] quit",
        Screen::Container { .. } => "[1] kinds [2] stacks [3] files [4] regions  [Enter] whole  [f] flame  [x] export  [Esc] back",
        Screen::Text { .. } => "[up, down] scroll  [Esc] back",
        Screen::Flame { .. } => "[hjkl] move  [Enter] zoom in  [Esc] out  [x] export",
        Screen::Kills { .. } => "[Enter] autopsy  [Esc] back",
    };
    pen.line(keys, pen.theme.dim())
}

/// The first row of a list that is shown, so that the chosen one is.
fn first(chosen: usize, length: usize, room: usize) -> usize {
    let last = length.saturating_sub(room);
    chosen.saturating_sub(room.saturating_sub(1)).min(last)
}

fn table(state: &State, view: &View, pen: Pen, room: usize) -> Vec<Line<'static>> {
    let rows = state.rows(view);
    let chosen = state.chosen(&rows);
    let wanted = &state.wanted;
    let mut said = vec![format!("sorted by {}", wanted.sort.name())];
    said.extend(wanted.only_pods.then(|| "pods only".to_owned()));
    said.extend(wanted.only_dead.then(|| "dead only".to_owned()));
    said.extend((!wanted.filter.is_empty()).then(|| format!("filter {}", wanted.filter)));
    let columns = Columns::of(pen.columns);
    let mut lines = vec![pen.line(&said.join("  "), pen.theme.dim()), pen.line(&columns.head(), pen.theme.head())];
    let room = room.saturating_sub(lines.len());
    let from = first(chosen, rows.len(), room);
    lines.extend(rows.iter().enumerate().skip(from).take(room).map(|(at, row)| columns.line(row, at == chosen, pen)));
    if rows.is_empty() {
        lines.push(pen.line("nothing is shown: Esc clears the filter, t and d show more", Style::new()));
    }
    lines
}

/// Which columns there is room for.
struct Columns {
    name: usize,
    verdict: usize,
    with_bar: bool,
    with_growth: bool,
}

const NUMBER: usize = 11;
const SHARE: usize = 5;
const GROWTH: usize = 15;
const FULL: usize = 9;

impl Columns {
    fn of(columns: usize) -> Columns {
        let with_growth = columns >= 76;
        let with_bar = columns >= 92;
        let fixed = 2 * NUMBER + SHARE + if with_growth { GROWTH + FULL } else { 0 } + if with_bar { BAR + 2 } else { 0 };
        let verdict = if columns >= 110 { 22 } else { 0 };
        Columns { name: columns.saturating_sub(fixed + verdict + 1), verdict, with_bar, with_growth }
    }

    fn head(&self) -> String {
        let mut head = format!(
            "{} {}{}{}",
            text::pad_right("CONTAINER OR CGROUP", self.name),
            right("HOLDS", NUMBER),
            right("LIMIT", NUMBER),
            right("%", SHARE)
        );
        if self.with_bar {
            head.push_str(&format!("  {}", text::pad_right("KINDS", BAR)));
        }
        if self.with_growth {
            head.push_str(&format!("{}{}", right("GROWTH", GROWTH), right("FULL IN", FULL)));
        }
        if self.verdict > 0 {
            head.push_str("  VERDICT");
        }
        head
    }

    fn line(&self, row: &Row, is_chosen: bool, pen: Pen) -> Line<'static> {
        let base = match (is_chosen, row.is_dead) {
            (true, _) => pen.theme.chosen(),
            (false, true) => pen.theme.dim(),
            _ => Style::new(),
        };
        let bytes = |figure: Option<u64>| figure.map(units::bytes).unwrap_or_default();
        let share = row.share.map(|share| format!("{:.0}", 100.0 * share)).unwrap_or_default();
        let mark = if is_chosen { '>' } else { ' ' };
        let name = format!("{mark}{}", pen.cell(&row.name, self.name - 1));
        let mut spans = vec![Span::styled(
            format!("{name} {}{}{}", right(&units::bytes(row.bytes), NUMBER), right(&bytes(row.limit), NUMBER), right(&share, SHARE)),
            base,
        )];
        if self.with_bar {
            spans.push(Span::styled("  ", base));
            spans.extend(bar(row, pen, base));
        }
        if self.with_growth {
            let growth = row.growth.and_then(units::rate_per_minute).unwrap_or_default();
            let full = row.full_in.and_then(units::seconds).unwrap_or_default();
            spans.push(Span::styled(format!("{}{}", right(&growth, GROWTH), right(&full, FULL)), base));
        }
        if self.verdict > 0
            && let Some((severity, id)) = &row.verdict
        {
            let style = if is_chosen { base } else { pen.theme.severity(severity) };
            spans.push(Span::styled(format!("  {} {}", Theme::sign(severity), pen.cell(id, self.verdict.saturating_sub(4))), style));
        }
        Line::from(spans)
    }
}

fn right(text: &str, columns: usize) -> String {
    text::pad_left(text, columns)
}

/// The kinds of a row as signs, each as wide as its share.
fn bar(row: &Row, pen: Pen, base: Style) -> Vec<Span<'static>> {
    let total = row.kinds.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)).max(1);
    let (mut done, mut from, mut spans) = (0_u64, 0, Vec::new());
    for ((kind, sign), bytes) in KINDS.iter().zip(row.kinds) {
        done = done.saturating_add(bytes);
        let end = (done as f64 / total as f64 * BAR as f64).round() as usize;
        let style = if base == pen.theme.chosen() { base } else { pen.theme.kind(kind) };
        spans.push(Span::styled(sign.to_string().repeat(end.saturating_sub(from)), style));
        from = end;
    }
    spans.push(Span::styled(" ".repeat(BAR.saturating_sub(from)), base));
    spans
}

fn container(view: &View, id: &str, tab: Tab, chosen: usize, pen: Pen, room: usize) -> Vec<Line<'static>> {
    let Some(cgroup) = view.cgroup(id) else {
        return vec![pen.line("it was removed, and nothing is charged to it any more: Esc goes back", Style::new())];
    };
    let tabs: Vec<String> =
        Tab::ALL.iter().map(|other| if *other == tab { format!("[{}]", other.name()) } else { other.name().to_owned() }).collect();
    let mut lines = vec![pen.line(&what(cgroup), pen.theme.head()), pen.line(&tabs.join("  "), pen.theme.dim())];
    let room = room.saturating_sub(lines.len() + 1);
    let list = |head: String, rows: Vec<String>, nothing: &str| {
        let mut lines = vec![pen.line(&head, pen.theme.head())];
        let from = first(chosen, rows.len(), room);
        let is_empty = rows.is_empty();
        let shown = rows.into_iter().enumerate().skip(from).take(room);
        lines.extend(shown.map(|(at, row)| pen.line(&row, if at == chosen { pen.theme.chosen() } else { Style::new() })));
        lines.extend(is_empty.then(|| pen.line(nothing, Style::new())));
        lines
    };
    lines.extend(match tab {
        Tab::Kinds => kinds(cgroup, view.looked_into(id), pen),
        Tab::Stacks => {
            let rows = view.stacks(id).into_iter().map(|row| {
                format!(
                    "{}  {}  {}",
                    right(&units::bytes(row.live), NUMBER),
                    text::pad_right(&format!("{} {}", row.kind, row.region), 18),
                    innermost(&row.comm, &row.frames)
                )
            });
            list(
                format!("{}  {}  STACK, INNERMOST FIRST", right("LIVE", NUMBER), text::pad_right("KIND", 18)),
                rows.collect(),
                "nothing that was charged since the start is live",
            )
        }
        Tab::Files => {
            let known = |bytes: Option<u64>| bytes.map(units::bytes).unwrap_or_default();
            let rows = view
                .files(id)
                .into_iter()
                .map(|row| format!("{}{}  {}", right(&units::bytes(row.bytes()), NUMBER), right(&known(row.dirty), NUMBER), row.path));
            list(
                format!("{}{}  FILE", right("HOLDS", NUMBER), right("DIRTY", NUMBER)),
                rows.collect(),
                "no file is known to hold memory here",
            )
        }
        Tab::Regions => {
            let known = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), units::bytes);
            let rows = view.regions(id).into_iter().map(|row| {
                let who = format!("{}[{}]", row.comm, row.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()));
                format!(
                    "{}{}  {}  {who}",
                    right(&known(row.resident), NUMBER),
                    right(&known(row.reserved), NUMBER),
                    text::pad_right(&row.class, 18)
                )
            });
            list(
                format!("{}{}  {}  PROCESS", right("RESIDENT", NUMBER), right("RESERVED", NUMBER), text::pad_right("REGION", 18)),
                rows.collect(),
                "processes are being looked into",
            )
        }
    });
    lines
}

/// A container in one line.
fn what(cgroup: &Cgroup) -> String {
    let mut words = vec![figures::name(cgroup), figures::own_bytes(cgroup).map(units::bytes).unwrap_or_default()];
    if let Some(limit) = &cgroup.binding_limit {
        let at = if limit.path == cgroup.path { String::new() } else { format!(" of {}", limit.path) };
        let left = limit.left_bytes.map(|left| format!(", {} left", units::bytes(left))).unwrap_or_default();
        words.push(format!("limit{at} {}{left}", units::bytes(limit.limit_bytes)));
        words.extend(limit.reached_in_s.and_then(units::seconds).map(|time| format!("full in {time}")));
    }
    words.extend(cgroup.trend.as_ref().map(crate::output::trend::in_words).filter(|words| !words.is_empty()));
    words.join("  ")
}

/// The innermost frames of a stack, which fit in a line.
fn innermost(comm: &str, frames: &[String]) -> String {
    let inner: Vec<&str> = frames.iter().rev().map(String::as_str).take(8).collect();
    format!("{} ({comm})", inner.join(" < "))
}

fn kinds(cgroup: &Cgroup, looked_into: Option<&Cgroup>, pen: Pen) -> Vec<Line<'static>> {
    let largest = cgroup.kinds.values().filter_map(figures::kind_bytes).max().unwrap_or(1).max(1);
    let width = pen.columns.saturating_sub(60).clamp(8, 60);
    let mut lines = vec![pen.line(
        &format!("{}{}{}{}", text::pad_right("KIND", 12), right("HOLDS", NUMBER), right("SINCE START", 13), right("BEFORE", NUMBER)),
        pen.theme.head(),
    )];
    for (kind, row) in &cgroup.kinds {
        let Some(bytes) = figures::kind_bytes(row).filter(|bytes| *bytes > 0) else { continue };
        let known = |bytes: Option<u64>| bytes.map(units::bytes).unwrap_or_default();
        let sign = KINDS.iter().find(|(name, _)| name == kind).map_or('.', |(_, sign)| *sign);
        let filled = (bytes as f64 / largest as f64 * width as f64).round() as usize;
        lines.push(Line::from(vec![
            Span::raw(format!(
                "{}{}{}{}  ",
                text::pad_right(kind, 12),
                right(&units::bytes(bytes), NUMBER),
                right(&known(row.live), 13),
                right(&known(row.baseline), NUMBER)
            )),
            Span::styled(sign.to_string().repeat(filled), pen.theme.kind(kind)),
        ]));
    }
    let verdicts = looked_into.unwrap_or(cgroup).verdicts.iter();
    for verdict in verdicts {
        let words = format!("{} {}: {}", Theme::sign(&verdict.severity), verdict.id, verdict.text);
        lines.push(Line::raw(""));
        lines.extend(text::wrap(&words, pen.columns).iter().map(|line| pen.line(line, pen.theme.severity(&verdict.severity))));
    }
    lines
}

fn read(title: &str, text: &[String], from: usize, pen: Pen, room: usize) -> Vec<Line<'static>> {
    let mut lines = vec![pen.line(title, pen.theme.head())];
    lines.extend(text.iter().skip(from).take(room.saturating_sub(1)).map(|line| pen.line(line, Style::new())));
    lines
}

fn flame(view: &View, id: Option<&str>, zoom: &[String], chosen: &[String], pen: Pen, room: usize) -> Vec<Line<'static>> {
    let tree = view.tree(id);
    let of = id.and_then(|id| view.cgroup(id)).map_or_else(|| "all cgroups".to_owned(), figures::name);
    let node = tree.at(chosen).unwrap_or(&tree);
    let share = 100.0 * node.bytes as f64 / tree.bytes.max(1) as f64;
    let name = chosen.last().map_or("all", String::as_str);
    let mut lines = vec![
        pen.line(&format!("flame graph of {of}: {} live, charged since the start", units::bytes(tree.bytes)), pen.theme.head()),
        pen.line(&format!("{name}: {} ({share:.1} %)", units::bytes(node.bytes)), Style::new()),
    ];
    let room = room.saturating_sub(lines.len());
    let cells = tree.cells(zoom, u16::try_from(pen.columns).unwrap_or(u16::MAX), u16::try_from(room).unwrap_or(u16::MAX));
    for y in 0..room {
        let mut of_row: Vec<_> = cells.iter().filter(|cell| usize::from(cell.y) == y).collect();
        of_row.sort_by_key(|cell| cell.x);
        let (mut at, mut spans) = (0, Vec::new());
        for cell in of_row {
            let (x, width) = (usize::from(cell.x), usize::from(cell.width));
            spans.push(Span::raw(" ".repeat(x.saturating_sub(at))));
            let name = cell.path.last().map_or("all", String::as_str);
            let style = pen.theme.flame(name, cell.path == chosen);
            spans.push(Span::styled(boxed(name, width, pen), style));
            at = x + width;
        }
        lines.push(Line::from(spans));
    }
    if tree.bytes == 0 {
        lines.push(pen.line("nothing that was charged since the start is live", Style::new()));
    }
    lines
}

/// A box with a name in it, as far as there is room. Its ends show also without colours.
fn boxed(name: &str, width: usize, pen: Pen) -> String {
    match width {
        0 => String::new(),
        1 => "|".to_owned(),
        2 => "[]".to_owned(),
        _ => format!("[{}]", pen.cell(name, width - 2)),
    }
}

fn kills(view: &View, chosen: usize, pen: Pen, room: usize) -> Vec<Line<'static>> {
    let mut lines = vec![pen.line(&format!("{}  WHAT HAPPENED", text::pad_right("OOM KILL AT", 20)), pen.theme.head())];
    let room = room.saturating_sub(1);
    let from = first(chosen, view.kills.len(), room);
    for (at, autopsy) in view.kills.iter().rev().enumerate().skip(from).take(room) {
        let words = format!("{}  {}", text::pad_right(&autopsy.time, 20), autopsy.verdict.as_deref().unwrap_or("a process was killed"));
        lines.push(pen.line(&words, if at == chosen { pen.theme.chosen() } else { Style::new() }));
    }
    if view.kills.is_empty() {
        lines.push(pen.line("none since the start", Style::new()));
    }
    lines
}
