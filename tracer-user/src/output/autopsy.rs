//! Autopsies of OOM kills as text: the sentence, then the evidence under it. Pure.
//!
//! Every name in an autopsy may come from a recording that somebody else made: it is escaped here again, which changes nothing of what is
//! escaped already.

use crate::{
    analyse::figures,
    text::{self, source},
};
use crate::{
    analyse::oom::{
        facts::{WINDOWS_S, window_text},
        growth::{OWN, USAGE},
        loops::Loops,
    },
    report::{
        FileRow, Report,
        autopsy::{Autopsy, Growth, LiveStack, Trigger, Victim},
    },
    text::units,
};
use std::io;

/// Columns of a line.
const COLUMNS: usize = 100;
/// Columns of the labels.
const LABEL: usize = 10;
/// Stacks, siblings and rows of growth shown.
const SHOWN: usize = 5;
/// Innermost frames shown of a stack.
const FRAMES: usize = 6;

/// One autopsy.
#[must_use]
pub fn render(autopsy: &Autopsy) -> String {
    let mut out = Lines::default();
    let what = if autopsy.event == "warning" { "Warning" } else { "OOM kill" };
    out.plain(&format!("{what} at {}, {} into the recording", autopsy.time, at(autopsy.at_s)));
    for line in text::wrap(autopsy.verdict.as_deref().unwrap_or("no verdict"), COLUMNS - 2) {
        out.plain(&format!("  {line}"));
    }
    out.label("limit", &limit(autopsy));
    // The root has neither figure.
    for level in autopsy.levels.iter().filter(|level| level.usage_bytes.is_some() || level.limit_bytes.is_some()) {
        let limit = level.limit_bytes.map_or_else(|| "no limit".to_owned(), units::bytes);
        let usage = level.usage_bytes.map_or_else(|| "?".to_owned(), units::bytes);
        let met = level.failcnt.filter(|count| *count > 0).map(|count| format!(", met {count} times")).unwrap_or_default();
        out.label("levels", &format!("{}: {usage}, {limit}{met}", level.cgroup));
    }
    kinds(autopsy, &mut out);
    for victim in &autopsy.victims {
        out.label("victim", &self::victim(victim));
    }
    if let Some(trigger) = &autopsy.trigger {
        self::trigger(autopsy, trigger, &mut out);
    }
    stacks(autopsy, &mut out);
    files(autopsy, &mut out);
    regions(autopsy, &mut out);
    growth(autopsy, &mut out);
    for sibling in autopsy.siblings.iter().take(SHOWN) {
        let usage = sibling.usage_bytes.map_or_else(|| "?".to_owned(), units::bytes);
        out.label("below", &format!("{usage}  {} ({}; {})", sibling.cgroup, sibling.state, sibling.source));
    }
    out.more("below", autopsy.siblings.len());
    out.label("picture", &autopsy.picture);
    for verdict in &autopsy.verdicts {
        out.label("verdict", &format!("{}: {}", verdict.id, verdict.text));
    }
    out.text
}

/// Kills that repeat and what the host's limits promise; empty if there is nothing to say.
#[must_use]
pub fn loops(loops: &Loops) -> String {
    let mut out = Lines::default();
    if loops.kills > 1 || !loops.verdicts.is_empty() {
        let sorts = [(loops.memcg, "at a cgroup's limit"), (loops.global, "of the whole host")];
        let sorts: Vec<String> = sorts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        out.plain(&format!("{} OOM kills in {}: {}", loops.kills, window_text(loops.window_s), sorts.join(", ")));
        for killed in loops.victims.iter().take(SHOWN) {
            let adjustment = killed.oom_score_adj.map(|value| format!(", oom_score_adj {value}")).unwrap_or_default();
            let who = killed.comm.as_deref().unwrap_or("?");
            out.label("killed", &format!("{} times {who} of {}, {} restarts{adjustment}", killed.kills, killed.unit, killed.restarts));
        }
        for grower in loops.growers.iter().take(SHOWN) {
            let by = format!("{} in {}", units::signed(grower.bytes), window_text(grower.window_s));
            out.label("grew", &format!("{by}  {}, most of all before {} of them", grower.cgroup, grower.kills));
        }
        if let Some(limits) = loops.limits_bytes {
            let of = loops.limits_of.as_deref().unwrap_or("/");
            let reserve = loops.reserve_bytes.map(|bytes| format!("; left for the kernel and the system: {}", units::signed(bytes)));
            out.label("limits", &format!("{} right below {of}{}", units::bytes(limits), reserve.unwrap_or_default()));
        }
        for row in loops.unlimited.iter().take(SHOWN) {
            out.label("no limit", &format!("{}  {}", units::bytes(row.usage_bytes), row.cgroup));
        }
        for verdict in &loops.verdicts {
            out.label("verdict", &format!("{}: {}", verdict.id, verdict.text));
        }
    }
    out.text
}

/// Writes autopsies as a list of JSON objects.
///
/// # Errors
/// When the writer fails.
pub fn write_json(autopsies: &[Autopsy], writer: &mut dyn io::Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *writer, autopsies).map_err(io::Error::from)?;
    writer.write_all(b"\n")
}

/// The view `oom` of a report: each autopsy, or that there was no kill.
#[must_use]
pub fn view(report: &Report) -> String {
    let mut parts: Vec<String> = report.oom.iter().map(render).collect();
    parts.extend(report.oom_loops.as_ref().map(loops).filter(|text| !text.is_empty()));
    if parts.is_empty() { "no OOM kill while recording\n".to_owned() } else { parts.join("\n") }
}

/// A line a kill for the summary: the sentence, in at most that many columns and lines.
#[must_use]
pub fn brief(report: &Report, most: usize, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in report.oom.iter().filter_map(|autopsy| autopsy.verdict.as_ref()).take(most) {
        let mut wrapped = text::wrap(&format!("OOM: {}", text::escape(verdict)), columns);
        if wrapped.len() > 3 {
            wrapped.truncate(3);
            if let Some(last) = wrapped.last_mut() {
                *last = format!("{} …", text::cut_middle(last, columns - 2));
            }
        }
        lines.extend(wrapped);
    }
    lines
}

#[derive(Default)]
struct Lines {
    text: String,
    last: String,
}

impl Lines {
    fn plain(&mut self, line: &str) {
        self.text.push_str(text::escape(&text::cut_middle(line, COLUMNS)).trim_end());
        self.text.push('\n');
    }

    /// Text under a label, which is printed once for all that follows each other under it. What is too wide for a line is wrapped.
    fn label(&mut self, label: &str, line: &str) {
        let room = COLUMNS - LABEL - 2;
        let indent = line.len() - line.trim_start().len();
        let lines = if text::width(line) <= room {
            vec![line.to_owned()]
        } else {
            let wrapped = text::wrap(line, room.saturating_sub(indent + 2).max(1));
            wrapped.iter().enumerate().map(|(at, line)| " ".repeat(indent + 2 * usize::from(at > 0)) + line).collect()
        };
        for line in lines {
            let shown = if self.last == label { "" } else { label };
            self.last = label.to_owned();
            self.plain(&format!("  {}{line}", text::pad_right(shown, LABEL)));
        }
    }

    fn more(&mut self, label: &str, all: usize) {
        if all > SHOWN {
            self.label(label, &format!("{} more", all - SHOWN));
        }
    }
}

fn at(seconds: f64) -> String {
    units::seconds(seconds.max(0.0)).unwrap_or_else(|| "?".to_owned())
}

fn limit(autopsy: &Autopsy) -> String {
    let constraint = autopsy.constraint.as_deref().unwrap_or("unknown");
    let Some(path) = &autopsy.limit_cgroup else { return format!("constraint {constraint}") };
    let from = autopsy.sources.get("limit_cgroup").map(|from| format!(" ({from})")).unwrap_or_default();
    match (autopsy.usage_bytes, autopsy.limit_bytes) {
        (Some(usage), Some(limit)) => format!("{path}: {}{from}", units::part_of(usage, limit)),
        _ => format!("{path}{from}"),
    }
}

fn kinds(autopsy: &Autopsy, out: &mut Lines) {
    let mut rows: Vec<(&String, i64)> = autopsy.before.iter().filter_map(|(kind, bytes)| Some((kind, (*bytes)?))).collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    for (kind, bytes) in rows.into_iter().filter(|(kind, bytes)| *bytes != 0 || *kind == "remainder") {
        let size = if bytes < 0 { units::signed(bytes) } else { units::bytes(bytes.unsigned_abs()) };
        let from = autopsy.sources.get(&format!("before.{kind}")).map_or("", String::as_str);
        out.label("kinds", &format!("{}  {} ({from})", text::pad_left(&size, 10), text::pad_right(kind, 10)));
    }
}

fn victim(victim: &Victim) -> String {
    let sizes =
        [("anon", victim.anon), ("file", victim.file), ("shmem", victim.shmem), ("swap", victim.swap), ("page tables", victim.pagetables)];
    let sizes: Vec<String> = sizes
        .iter()
        .filter(|(_, bytes)| *bytes != Some(0))
        .map(|(name, bytes)| format!("{name} {}", bytes.map_or_else(|| "?".to_owned(), units::bytes)))
        .collect();
    let adjustment = victim.oom_score_adj.map(|value| format!(", oom_score_adj {value}")).unwrap_or_default();
    let ending = if victim.already_ending == Some(true) { ", was ending already" } else { "" };
    format!("{} in {}: {}{adjustment}{ending}", who(victim.comm.as_deref(), victim.pid), place(victim.cgroup.as_deref()), sizes.join(", "))
}

fn who(comm: Option<&str>, pid: Option<u32>) -> String {
    let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    format!("{}[{pid}]", comm.unwrap_or("?"))
}

fn place(cgroup: Option<&str>) -> &str {
    cgroup.unwrap_or("an unknown cgroup")
}

fn trigger(autopsy: &Autopsy, trigger: &Trigger, out: &mut Lines) {
    let itself = autopsy.victims.iter().any(|victim| victim.pid.is_some() && victim.pid == trigger.pid);
    let order = autopsy.order.map(|order| format!(", order {}", order as i32)).unwrap_or_default();
    let mask = autopsy.gfp_mask.map(|mask| format!(", gfp mask {mask:#x}")).unwrap_or_default();
    let who = who(trigger.comm.as_deref(), trigger.pid);
    let itself = if itself { " (a victim itself)" } else { "" };
    out.label("trigger", &format!("{who} in {}{itself}{order}{mask}", place(trigger.cgroup.as_deref())));
    for (name, stack) in [("user", &trigger.user_stack), ("kernel", &trigger.kernel_stack)] {
        if let Some(stack) = stack.as_ref().filter(|stack| !stack.is_empty()) {
            // The way from the failed allocation to the marking is the same in every kill.
            let end = stack.iter().position(|frame| frame.contains("out_of_memory") || frame.contains("mem_cgroup_oom"));
            let stack = &stack[..end.filter(|end| *end > 0).unwrap_or(stack.len())];
            out.label("trigger", &format!("  {name}: {}", innermost(stack)));
        }
    }
}

fn innermost(frames: &[String]) -> String {
    let (shown, has_inner) = source::window(frames, FRAMES);
    let outer = (shown.start > 0).then_some("…");
    let inner = has_inner.then_some(source::INNER);
    outer.into_iter().chain(frames[shown].iter().map(String::as_str)).chain(inner).collect::<Vec<_>>().join(" > ")
}

fn stacks(autopsy: &Autopsy, out: &mut Lines) {
    // What has too few samples to say more than "less than" says nothing beside what has enough.
    let firm = |row: &&LiveStack| row.live / 2 >= row.live_stderr;
    let mut rows: Vec<&LiveStack> = autopsy.stacks.iter().filter(firm).take(SHOWN).collect();
    if rows.is_empty() {
        rows.extend(autopsy.stacks.first());
    }
    let (shown, shown_bytes) = (rows.len(), rows.iter().map(|row| row.live).sum());
    for row in rows {
        out.label("live", &format!("{}  {}, {}{}", figures::sampled(row.live, Some(row.live_stderr)), owner(row), row.kind, young(row)));
        if row.frames != ["[before start]"] {
            out.label("live", &format!("  {}", innermost(user_frames(&row.frames))));
        }
    }
    if autopsy.stacks.len() > shown {
        let rest = autopsy.stacks.iter().map(|row| row.live).sum::<u64>().saturating_sub(shown_bytes);
        out.label("live", &format!("{} in {} more", units::bytes(rest), autopsy.stacks.len() - shown));
    }
}

/// The program's own frames, if there are any: how the kernel charged it says less.
fn user_frames(frames: &[String]) -> &[String] {
    let end = frames.iter().position(|frame| frame.ends_with("_[k]")).unwrap_or(frames.len());
    if end > 0 { &frames[..end] } else { frames }
}

fn owner(row: &LiveStack) -> String {
    let dead = if row.state == "dead" { " (removed)" } else { "" };
    let who = row.pid.map_or_else(|| row.comm.clone(), |pid| format!("{}[{pid}]", row.comm));
    format!("{who} in {}{dead}", row.cgroup)
}

/// How much of it is younger than a minute; the wider windows only if they say more.
fn young(row: &LiveStack) -> String {
    let all = |bytes: u64| bytes as f64 >= 0.99 * row.live as f64;
    match row.young {
        [_, _, 0] => String::new(),
        [minute, ..] if all(minute) => ", all of the last minute".to_owned(),
        young => match young.iter().zip(WINDOWS_S).find(|(bytes, _)| **bytes > 0) {
            Some((bytes, window)) => format!(", {} of the last {}", units::bytes(*bytes), window_text(window)),
            None => String::new(),
        },
    }
}

/// Files that held much, and by whom.
fn files(autopsy: &Autopsy, out: &mut Lines) {
    let firm = |file: &&FileRow| file.bytes() / 2 >= file.stderr();
    let rows: Vec<&FileRow> = autopsy.files.iter().filter(firm).take(SHOWN).collect();
    for file in &rows {
        let waiting = file.dirty.unwrap_or(0).saturating_add(file.writeback.unwrap_or(0));
        let waiting = if waiting > 0 { format!(", {} not on disk yet", units::bytes(waiting)) } else { String::new() };
        let owner = file.owner.as_ref().map(|owner| {
            let dead = if owner.state == "dead" { " (removed)" } else { "" };
            format!(", charged to {}{dead}", owner.cgroup)
        });
        let by = |verb: &str, of| if Vec::is_empty(of) { None } else { Some(format!(", {verb} by {}", figures::touchers(of))) };
        let by = by("written", &file.writers).or_else(|| by("read", &file.readers)).unwrap_or_default();
        let bytes = figures::sampled(file.bytes(), Some(file.stderr()));
        out.label("files", &format!("{bytes}  {} in {}{by}{}{waiting}", file.kind, file.path, owner.unwrap_or_default()));
    }
    if autopsy.files.len() > rows.len() {
        out.label("files", &format!("{} more", autopsy.files.len() - rows.len()));
    }
}

/// What anonymous memory was for.
fn regions(autopsy: &Autopsy, out: &mut Lines) {
    let rows = autopsy.regions.iter().flat_map(|of| of.regions.iter().map(move |row| (of, row)));
    let mut rows: Vec<_> = rows.filter(|(_, row)| row.live > 0 && row.live / 2 >= row.live_stderr).collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.live));
    for (of, row) in rows.into_iter().take(SHOWN) {
        let age = if of.before_s > 0.0 { format!("; looked into {} before", at(of.before_s)) } else { String::new() };
        let who = who(Some(&row.comm), row.pid);
        out.label("regions", &format!("{}  {} of {who}{age}", figures::sampled(row.live, Some(row.live_stderr)), row.class));
    }
}

/// Of each window the largest growth by kind, by cgroup and by stack.
fn growth(autopsy: &Autopsy, out: &mut Lines) {
    let mut windows: Vec<f64> = autopsy.growth.iter().filter(|row| row.frames.is_none()).map(|row| row.window_s).collect();
    windows.dedup_by(|a, b| (*a - *b).abs() < 2.0);
    for window in windows {
        let rows = || autopsy.growth.iter().filter(|row| row.bytes > 0 && (row.window_s - window).abs() < 2.0);
        let largest = |is: &dyn Fn(&Growth) -> bool| rows().filter(|row| is(row)).max_by_key(|row| row.bytes);
        let of_limit = |row: &Growth| Some(&row.cgroup) == autopsy.limit_cgroup.as_ref() && row.frames.is_none();
        let shown = [
            largest(&|row| row.kind == USAGE && (of_limit(row) || autopsy.limit_cgroup.is_none())),
            largest(&|row| of_limit(row) && row.kind != USAGE && row.kind != OWN),
            largest(&|row| row.kind == OWN || row.kind == USAGE && !of_limit(row) && autopsy.limit_cgroup.is_some()),
            largest(&|row| row.frames.is_some()),
        ];
        for row in shown.into_iter().flatten() {
            let by = format!("{} in {}", units::signed(row.bytes), window_text(row.window_s));
            let what = match (&row.frames, row.kind.as_str()) {
                (Some(frames), kind) => {
                    format!("{kind} of {} through {}", who(row.comm.as_deref(), row.pid), innermost(user_frames(frames)))
                }
                (None, OWN) => format!("{} for itself", row.cgroup),
                (None, kind) => format!("{kind} of {}", row.cgroup),
            };
            out.label("grew", &format!("{by}  {what}"));
        }
    }
}

#[cfg(test)]
#[path = "autopsy_tests.rs"]
mod tests;
