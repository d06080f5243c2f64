//! The autopsy in one sentence: who was killed, at which limit, what filled it, who left it there, and what grew.

use super::{
    autopsy::window_text,
    model::{Autopsy, LiveStack, Victim},
};
use crate::units;

/// A kind or a stack is named if it holds at least this share of the usage.
const SHARE: f64 = 0.25;

/// The sentence. Names in it are escaped already.
#[must_use]
pub fn sentence(autopsy: &Autopsy, warning: Option<f64>) -> String {
    let mut text = match warning {
        Some(share) => near(autopsy, share),
        None => format!("{} {}", victims(&autopsy.victims), limit(autopsy)),
    };
    if let Some(filled) = filled(autopsy) {
        text = format!("{text}: {filled}");
    }
    if let Some(other) = other_trigger(autopsy) {
        text = format!("{text}; the allocation that failed was {other}");
    }
    if let Some(grown) = grown(autopsy) {
        text = format!("{text}; {grown}");
    }
    text
}

/// A warning.
fn near(autopsy: &Autopsy, share: f64) -> String {
    let path = autopsy.limit_cgroup.as_deref().unwrap_or("a cgroup");
    match (autopsy.usage_bytes, autopsy.limit_bytes) {
        (Some(usage), Some(limit)) => format!("{path} holds {}, over {:.0} % of its limit", units::part_of(usage, limit), share * 100.0),
        _ => format!("{path} is close to its limit"),
    }
}

fn name(comm: Option<&str>, pid: Option<u32>) -> String {
    let comm = comm.unwrap_or("a process");
    pid.map_or_else(|| comm.to_owned(), |pid| format!("{comm}[{pid}]"))
}

fn victims(victims: &[Victim]) -> String {
    let Some(first) = victims.first() else { return "a process of which no event arrived".to_owned() };
    let who = name(first.comm.as_deref(), first.pid);
    match victims.len() {
        1 => who,
        2 => format!("{who} and one other"),
        n => format!("{who} and {} others", n - 1),
    }
}

fn limit(autopsy: &Autopsy) -> String {
    let ending = autopsy.victims.iter().all(|victim| victim.already_ending == Some(true)) && !autopsy.victims.is_empty();
    let verb = match (ending, autopsy.victims.len()) {
        (true, _) => "was ending already and was given the last reserves",
        (false, 0 | 1) => "was killed",
        (false, _) => "were killed",
    };
    match (autopsy.constraint.as_deref(), &autopsy.limit_cgroup) {
        (Some("memcg"), Some(path)) => {
            let own = autopsy.victims.iter().all(|victim| victim.cgroup.as_deref() == Some(path));
            let whose = if own { "its cgroup" } else { "the cgroup above it" };
            match (autopsy.usage_bytes, autopsy.limit_bytes) {
                (Some(usage), Some(limit)) => format!("{verb} because {whose} {path} was at its limit ({})", units::part_of(usage, limit)),
                _ => format!("{verb} because {whose} {path} was at its limit"),
            }
        }
        (Some("memcg"), None) => format!("{verb} at the limit of a cgroup that could not be told"),
        (Some("cpuset"), _) => format!("{verb} because the nodes of its cpuset were full"),
        (Some("mempolicy"), _) => format!("{verb} because the nodes of its memory policy were full"),
        (Some(_), _) => format!("{verb} because the host was out of memory"),
        (None, _) => format!("{verb}; at which limit could not be told"),
    }
}

/// The largest kind, with the stack behind most of it; memory that the dead left comes first.
fn filled(autopsy: &Autopsy) -> Option<String> {
    let parts = || autopsy.before.iter().filter(|(kind, _)| !matches!(kind.as_str(), "swap" | "sock" | "remainder"));
    let known = || parts().filter_map(|(kind, bytes)| Some((kind, u64::try_from((*bytes)?).ok()?)));
    // A host has no counter of all of it.
    let whole = autopsy.usage_bytes.unwrap_or_else(|| known().map(|(_, bytes)| bytes).sum());
    let dead = autopsy.stacks.iter().filter(|row| row.state == "dead").max_by_key(|row| row.live);
    if let Some(row) = dead.filter(|row| row.live as f64 >= SHARE * whole as f64) {
        return Some(format!("{} is {} left by the removed cgroup {}", units::bytes(row.live), row.kind, row.cgroup));
    }
    let (kind, bytes) = known().max_by_key(|(_, bytes)| *bytes)?;
    let by = autopsy.stacks.iter().filter(|row| row.kind == *kind).max_by_key(|row| row.live);
    let by = by.filter(|row| row.live as f64 >= SHARE * bytes as f64).map(behind).unwrap_or_default();
    Some(format!("{} is {kind}{by}", units::bytes(bytes)))
}

fn behind(row: &LiveStack) -> String {
    let who = name(Some(&row.comm), row.pid);
    let place = row.frames.iter().rev().find(|frame| !frame.ends_with("_[k]") && !frame.starts_with('['));
    match place {
        Some(frame) => format!(", {} of it by {who} through {frame}", units::bytes(row.live)),
        None => format!(", {} of it by {who}", units::bytes(row.live)),
    }
}

/// The trigger, if it is not a victim.
fn other_trigger(autopsy: &Autopsy) -> Option<String> {
    let trigger = autopsy.trigger.as_ref().filter(|trigger| trigger.pid.is_some())?;
    if autopsy.victims.iter().any(|victim| victim.pid == trigger.pid) {
        return None;
    }
    Some(format!("{}'s", name(trigger.comm.as_deref(), trigger.pid)))
}

/// What grew most of what is right below the limit, else the limit's own.
fn grown(autopsy: &Autopsy) -> Option<String> {
    let window = autopsy.growth.first()?.window_s;
    let rows = || autopsy.growth.iter().filter(|row| row.window_s <= window + 1.0 && row.bytes > 0);
    let usage = || rows().filter(|row| row.kind == "usage");
    let inner = usage().filter(|row| Some(&row.cgroup) != autopsy.limit_cgroup.as_ref()).max_by_key(|row| row.bytes);
    let row = inner.or_else(|| usage().next())?;
    Some(format!("{} grew by {} in {}", row.cgroup, units::bytes(row.bytes.unsigned_abs()), window_text(row.window_s)))
}
