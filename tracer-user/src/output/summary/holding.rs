//! What a cgroup holds, a row each: stacks, memory from before the recording, and what many small stacks have in common.

use super::{COLUMNS, Line, Style};
use crate::{
    analyse::{
        before::{Before, Holder},
        common::Common,
        comparison::merged::Merged,
        figures,
    },
    report::{ProcessRow, StackRow},
    text::{self, source, units},
};

/// Frames of a stack.
const FRAMES: usize = 4;

/// One row.
pub(super) enum Holding<'a> {
    /// Equal stacks of all processes.
    Stack(Merged<'a>),
    /// Memory that nobody saw being charged.
    Before(Before<'a>),
    /// The part that many small stacks have in common.
    Common(Common<'a>),
    /// Huge pages of hugetlbfs that the cgroup is not charged for.
    Hugetlb(&'a ProcessRow),
}

impl Holding<'_> {
    /// Bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Holding::Stack(stack) => stack.bytes,
            Holding::Before(before) => before.bytes,
            Holding::Common(common) => common.bytes,
            Holding::Hugetlb(row) => row.hugetlb_bytes.unwrap_or(0),
        }
    }

    /// Whether the figure is more than two of its errors.
    pub(super) fn is_firm(&self) -> bool {
        let stderr = match self {
            Holding::Stack(stack) => stack.stderr.unwrap_or(0),
            Holding::Before(before) => before.stderr,
            Holding::Common(common) => common.stderr.unwrap_or(0),
            Holding::Hugetlb(_) => 0,
        };
        self.bytes() / 2 >= stderr
    }

    /// On one line.
    pub(super) fn flat(&self) -> Line {
        match self {
            Holding::Stack(stack) => flat_stack(stack),
            Holding::Before(before) => before_line(before),
            Holding::Common(common) => flat_common(common),
            Holding::Hugetlb(row) => hugetlb(row),
        }
    }

    /// A line for the bytes, and one for each frame where there are frames.
    pub(super) fn tall(&self) -> Vec<Line> {
        match self {
            Holding::Stack(stack) => tall_stack(stack),
            Holding::Before(before) => vec![before_line(before)],
            Holding::Common(common) => tall_common(common),
            Holding::Hugetlb(row) => vec![hugetlb(row)],
        }
    }
}

/// `    47.7 MiB  hog[12], anon brk-heap, before the start`.
fn before_line(before: &Before<'_>) -> Line {
    const WHEN: &str = ", before the start";
    let head = format!("    {}  ", figures::sampled(before.bytes, Some(before.stderr)));
    let what = match &before.holder {
        Holder::Region { comm, pids, class } => {
            let comm = text::escape(comm);
            match pids.as_slice() {
                [pid] => format!("{comm}[{pid}], anon {class}"),
                pids => format!("{comm}[{} processes], anon {class}", pids.len()),
            }
        }
        Holder::Elsewhere => "anon of processes not looked into".to_owned(),
        Holder::File(file) => {
            let deleted = if file.state.as_deref() == Some("deleted") { ", deleted" } else { "" };
            let head = format!("{} ", text::escape(&file.kind));
            let room = COLUMNS.saturating_sub(text::width(WHEN) + 28 + text::width(&head) + deleted.len());
            format!("{head}{}{deleted}", text::cut_middle(&text::escape(&file.path), room))
        }
        Holder::OtherFiles(kind) => format!("{kind}, other files"),
    };
    Line::new(format!("{head}{what}{WHEN}"), Style::Plain)
}

/// `    64.0 MiB  db[12], huge pages, outside the limit`.
fn hugetlb(row: &ProcessRow) -> Line {
    let (bytes, comm) = (units::bytes(row.hugetlb_bytes.unwrap_or(0)), text::escape(&row.comm));
    Line::new(format!("    {bytes}  {comm}[{}], huge pages of hugetlbfs, outside the limit", row.pid), Style::Plain)
}

fn flat_common(common: &Common<'_>) -> Line {
    let head = format!("    {}  {}, ", figures::sampled(common.bytes, common.stderr), text::escape(&common.whose()));
    let count = format!("{} stacks below ", common.stacks);
    let below = common.frames.last().map_or_else(|| "the start".to_owned(), |frame| text::escape(frame));
    let room = COLUMNS.saturating_sub(text::width(&head) + text::width(&count));
    Line::new(format!("{head}{count}{}", text::cut_middle(&below, room)), Style::Plain)
}

fn tall_common(common: &Common<'_>) -> Vec<Line> {
    let about = text::escape(&common.whose());
    let head = format!("    {}  {about}, in {} stacks below", figures::sampled(common.bytes, common.stderr), common.stacks);
    let mut lines = vec![Line::new(head, Style::Plain)];
    let hidden = common.frames.len().saturating_sub(FRAMES);
    for (index, frame) in common.frames[hidden..].iter().enumerate() {
        let more = if index == 0 && hidden > 0 { "… > " } else { "" };
        lines.push(Line::new(format!("      {}{more}{}", " ".repeat(index), text::escape(frame)), Style::Dim));
    }
    lines
}

/// `    1.2 GiB ± 40.0 MiB  java: … > Buffer::grow > realloc`.
fn flat_stack(stack: &Merged<'_>) -> Line {
    let comm = text::cut_middle(&text::escape(&stack.row.comm), 15);
    let head = format!("    {}  {comm}: ", figures::sampled(stack.bytes, stack.stderr));
    let room = COLUMNS.saturating_sub(text::width(&head));
    Line::new(format!("{head}{}", chain(stack.row, room)), Style::Plain)
}

fn tall_stack(stack: &Merged<'_>) -> Vec<Line> {
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
