//! The autopsy in one sentence: who was killed, at which limit, what filled it, who left it there, and what grew.

use super::{
    facts::{Warning, window_text},
    growth::{OWN, USAGE},
    loops,
};
use crate::report::autopsy::{Autopsy, Growth, LiveStack, Victim};
use crate::{
    analyse::verdicts,
    report::FileRow,
    text::{source, units},
};

/// A kind or a stack is named if it holds at least this share of the usage.
const SHARE: f64 = 0.25;

/// A cgroup's own growth stands for all if it is this share of it.
const MOST: f64 = 0.6;

/// The sentence. Names in it are escaped already.
#[must_use]
pub fn sentence(autopsy: &Autopsy, warning: Option<Warning>) -> String {
    let mut text = match warning {
        Some(warning) => near(autopsy, warning),
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
fn near(autopsy: &Autopsy, warning: Warning) -> String {
    let path = autopsy.limit_cgroup.as_deref().unwrap_or("a cgroup");
    let of = autopsy.usage_bytes.zip(autopsy.limit_bytes).map(|(usage, limit)| units::part_of(usage, limit));
    match (of, warning) {
        (Some(of), Warning::Share(share)) => format!("{path} holds {of}, over {:.0} % of its limit", share * 100.0),
        (Some(of), Warning::Within(seconds)) => {
            format!("{path} holds {of}, and reaches its limit in {} if it goes on so", window_text(seconds))
        }
        (of, Warning::Waiting) => {
            let of = of.map(|of| format!(" ({of})")).unwrap_or_default();
            format!("{path} is at its limit{of}, and killing is off there (memory.oom_control): its tasks wait for memory")
        }
        (None, _) => format!("{path} is close to its limit"),
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

/// The largest kind, with what is behind most of it; memory that the dead left comes first.
fn filled(autopsy: &Autopsy) -> Option<String> {
    let parts = || autopsy.before.iter().filter(|(kind, _)| !matches!(kind.as_str(), "swap" | "sock" | "remainder"));
    let known = || parts().filter_map(|(kind, bytes)| Some((kind, u64::try_from((*bytes)?).ok()?)));
    // A host has no counter of all of it.
    let whole = autopsy.usage_bytes.unwrap_or_else(|| known().map(|(_, bytes)| bytes).sum());
    if let Some(left) = left_by_the_dead(autopsy, whole) {
        return Some(left);
    }
    let (kind, bytes) = known().max_by_key(|(_, bytes)| *bytes)?;
    let is_much = |part: u64| part as f64 >= SHARE * bytes as f64;
    // Samples may say more than there is.
    let part = |part: u64| units::bytes(part.min(bytes));
    if matches!(kind.as_str(), "file" | "shmem") {
        let mut of_kind: Vec<&FileRow> = autopsy.files.iter().filter(|file| file.kind == *kind).collect();
        of_kind.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
        if let Some(file) = of_kind.first().filter(|file| is_much(file.bytes())) {
            return Some(format!("{} is {kind}, {} of it in {}", units::bytes(bytes), part(file.bytes()), touched(file, bytes)));
        }
    }
    let arenas = autopsy.regions.iter().flat_map(|of| of.arenas.iter().map(move |row| (of.before_s, row)));
    if let Some((before_s, row)) = arenas.max_by_key(|(_, row)| row.resident).filter(|(_, row)| kind == "anon" && is_much(row.live)) {
        let who = name(Some(&row.comm), Some(row.pid));
        let age = if before_s > 0.0 { format!(" (as of {} before)", window_text(before_s)) } else { String::new() };
        return Some(format!("{} is anon, {} of it in {} glibc heaps of {who}{age}", units::bytes(bytes), part(row.live), row.heaps));
    }
    let by = autopsy.stacks.iter().filter(|row| row.kind == *kind).max_by_key(|row| row.live);
    let by = by.filter(|row| is_much(row.live)).map(|row| behind(row, &part(row.live))).unwrap_or_default();
    Some(format!("{} is {kind}{by}", units::bytes(bytes)))
}

/// `8.4 GiB is shmem in /cache/data left by a container that died 14 min ago; java[12] used 7.9 GiB of its own`.
fn left_by_the_dead(autopsy: &Autopsy, whole: u64) -> Option<String> {
    let row = autopsy.stacks.iter().filter(|row| row.state == "dead").max_by_key(|row| row.live)?;
    let of_it = |file: &&FileRow| {
        file.owner.as_ref().is_some_and(|owner| owner.cgroup == row.cgroup && owner.state == "dead") && file.kind == row.kind
    };
    let mut left: Vec<&FileRow> = autopsy.files.iter().filter(of_it).collect();
    left.sort_by_key(|file| std::cmp::Reverse(file.bytes()));
    // Files add up over all stacks and what is older than the recording.
    let bytes = left.iter().map(|file| file.bytes()).sum::<u64>().max(row.live);
    if (bytes as f64) < SHARE * whole as f64 {
        return None;
    }
    let place = left.first().map(|file| format!(" in {}", verdicts::place(file))).unwrap_or_default();
    let more = if left.len() > 1 { format!(" and {} more files", left.len() - 1) } else { String::new() };
    let own = autopsy.victims.first().and_then(|victim| Some((victim, victim.anon?)));
    let own = own.map(|(victim, bytes)| format!("; {} used {} of its own", name(victim.comm.as_deref(), victim.pid), units::bytes(bytes)));
    Some(format!("{} is {}{place}{more} left by {}{}", units::bytes(bytes), row.kind, dead(autopsy, &row.cgroup), own.unwrap_or_default()))
}

/// A dead cgroup, and since when it is.
fn dead(autopsy: &Autopsy, path: &str) -> String {
    let known = autopsy.dead.iter().find(|dead| dead.cgroup == path);
    let since = known.and_then(|dead| dead.for_s).map(window_text);
    match (known.is_some_and(|dead| dead.container.is_some()), since) {
        (true, Some(time)) => format!("a container that died {time} ago ({path})"),
        (true, None) => format!("a container that is gone ({path})"),
        (false, Some(time)) => format!("{path}, which was removed {time} ago"),
        (false, None) => format!("the removed cgroup {path}"),
    }
}

/// A file, who wrote or read most of it, and what of it waits for the disk: `most` at most.
fn touched(file: &FileRow, most: u64) -> String {
    let by = |verb: &str, of: &[crate::report::FileToucher]| of.first().map(|by| format!(", {verb} by {}", name(Some(&by.comm), by.pid)));
    let touched = by("written", &file.writers).or_else(|| by("read", &file.readers)).unwrap_or_default();
    let waiting = file.dirty.unwrap_or(0).saturating_add(file.writeback.unwrap_or(0));
    let waiting = if waiting as f64 >= SHARE * file.bytes() as f64 {
        let dirtied = by("dirtied", &file.dirtiers).unwrap_or(touched);
        format!("{dirtied}, {} of it not on disk yet", units::bytes(waiting.min(most)))
    } else {
        touched
    };
    format!("{}{waiting}", verdicts::place(file))
}

fn behind(row: &LiveStack, bytes: &str) -> String {
    let who = name(Some(&row.comm), row.pid);
    let of_machine = || row.frames.iter().rev().find(|frame| !frame.ends_with("_[k]") && !frame.starts_with('['));
    let place = source::innermost(&row.frames).and_then(|at| row.frames.get(at)).or_else(of_machine);
    match place {
        Some(frame) => format!(", {bytes} of it by {who} through {frame}"),
        None => format!(", {bytes} of it by {who}"),
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

/// What grew most of what is right below the limit, else the limit's own. A host fills up slowly: what grew before counts too.
fn grown(autopsy: &Autopsy) -> Option<String> {
    let text = |row: &Growth| format!("{} grew by {} in {}", row.cgroup, units::bytes(row.bytes.unsigned_abs()), window_text(row.window_s));
    if autopsy.constraint.as_deref() == Some("none") {
        return loops::grower(autopsy).map(text);
    }
    let window = autopsy.growth.iter().find(|row| row.kind == USAGE)?.window_s;
    // A window of readings ends before the kill.
    let rows = || autopsy.growth.iter().filter(|row| (row.window_s - window).abs() <= 3.0 && row.bytes > 0);
    let usage = || rows().filter(|row| row.kind == USAGE);
    let inner = usage().filter(|row| Some(&row.cgroup) != autopsy.limit_cgroup.as_ref()).max_by_key(|row| row.bytes);
    let whole = inner.or_else(|| usage().next())?;
    // The innermost one that explains most of it. Its figures are of the last reading, so it may be less.
    let own = rows().filter(|row| row.kind == OWN).max_by_key(|row| row.bytes);
    Some(text(own.filter(|own| own.bytes as f64 >= MOST * whole.bytes as f64).unwrap_or(whole)))
}
