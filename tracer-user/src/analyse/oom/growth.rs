//! What grew before a kill, over 1, 5 and 15 minutes: by kind, by cgroup, and by stack. Pure.
//!
//! Windows that the history does not fill are there once, as long as it is.

use super::{
    facts::{KillFacts, Place, WINDOWS_S, is_below, levels},
    figures,
};
use crate::cgroup::history::History;
use crate::report::autopsy::{Autopsy, Growth};
use std::collections::HashMap;
use tracer_common::oom::OomLevel;

/// Less than this did not grow.
const LEAST_GROWTH: u64 = 1 << 20;
/// Rows of a window: cgroups right below the limit, cgroups by their own growth, stacks.
const MOST_ROWS: usize = 8;
/// Readings of one interval are at most so many seconds apart.
const SAME_S: f64 = 2.0;

/// The kind of a row that is a cgroup's usage.
pub const USAGE: &str = "usage";
/// The kind of a row that is a cgroup's usage less that of the cgroups below it.
pub const OWN: &str = "own";

/// The rows of an autopsy: the limit's cgroup by kind as of the kill, the cgroups right below it as last read, those below it by what they
/// grew for themselves, and stacks by what they charged and is still there.
pub(super) fn rows(facts: &KillFacts, whole: &OomLevel, autopsy: &Autopsy) -> Vec<Growth> {
    let mut rows = Vec::new();
    for window in WINDOWS_S {
        let (of_limit, filled, window_s) = of_limit(facts, whole, autopsy, window);
        rows.extend(of_limit);
        rows.extend(largest(right_below(facts, whole, window)));
        rows.extend(largest(stacks(autopsy, window, window_s)));
        if !filled {
            break;
        }
    }
    let below = facts.growers.iter().filter(|(id, _)| is_below(facts, *id, whole.cgroup));
    rows.extend(below.map(|(_, row)| row.clone()));
    rows.sort_by(|a, b| a.window_s.total_cmp(&b.window_s).then_with(|| b.bytes.cmp(&a.bytes)).then_with(|| a.cgroup.cmp(&b.cgroup)));
    rows
}

fn row(cgroup: &str, kind: &str, window_s: f64, then: Option<u64>, now: Option<i64>) -> Option<Growth> {
    let (then, now) = (i64::try_from(then?).ok()?, now?);
    let grown = Growth { cgroup: cgroup.to_owned(), kind: kind.to_owned(), window_s, bytes: now - then, ..Growth::default() };
    (now.abs_diff(then) >= LEAST_GROWTH).then_some(grown)
}

/// The limit's cgroup; whether the window is filled, and how long it is.
fn of_limit(facts: &KillFacts, whole: &OomLevel, autopsy: &Autopsy, window: f64) -> (Vec<Growth>, bool, f64) {
    let place = facts.places.get(&whole.cgroup);
    let Some((place, then)) = place.and_then(|place| Some((place, place.history.before(facts.at_s, window)?))) else {
        return (Vec::new(), false, facts.at_s.min(window));
    };
    let window_s = facts.at_s - then.at_s;
    let usage = figures::usage(whole, facts.page_bytes).and_then(|usage| i64::try_from(usage).ok());
    let kinds = autopsy.before.iter().filter_map(|(kind, bytes)| row(&place.path, kind, window_s, then.kind(kind), *bytes));
    (row(&place.path, USAGE, window_s, then.usage(), usage).into_iter().chain(kinds).collect(), window_s >= window, window_s)
}

fn right_below(facts: &KillFacts, whole: &OomLevel, window: f64) -> Vec<Growth> {
    let grown = |(id, place): (&u64, &Place)| {
        let at_kill =
            levels(&facts.kill).iter().find(|level| level.cgroup == *id).and_then(|level| figures::usage(level, facts.page_bytes));
        let now = at_kill.or_else(|| place.read.as_ref().and_then(|reading| reading.usage));
        let then = place.history.before(facts.at_s, window)?;
        row(&place.path, USAGE, facts.at_s - then.at_s, then.usage(), now.and_then(|now| i64::try_from(now).ok()))
    };
    facts.places.iter().filter(|(_, place)| place.parent == Some(whole.cgroup)).filter_map(grown).collect()
}

/// Stacks of the picture by what they charged in the window and is still there: what they freed of older memory is not taken off.
fn stacks(autopsy: &Autopsy, window: f64, window_s: f64) -> Vec<Growth> {
    let at = WINDOWS_S.iter().position(|known| *known == window).unwrap_or(0);
    let grown = |bytes: u64| i64::try_from(bytes).ok().filter(|_| bytes >= LEAST_GROWTH);
    let firm = autopsy.stacks.iter().filter(|stack| stack.young[at] / 2 >= stack.live_stderr);
    firm.filter_map(|stack| {
        Some(Growth {
            cgroup: stack.cgroup.clone(),
            kind: stack.kind.clone(),
            window_s: window.min(window_s.max(1.0)),
            bytes: grown(stack.young[at])?,
            comm: Some(stack.comm.clone()),
            pid: stack.pid,
            frames: Some(stack.frames.clone()),
        })
    })
    .collect()
}

fn largest(mut rows: Vec<Growth>) -> Vec<Growth> {
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.cgroup.cmp(&b.cgroup)));
    rows.truncate(MOST_ROWS);
    rows
}

/// A cgroup with its readings over time.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// kernfs id.
    pub id: u64,
    /// kernfs id of the cgroup above.
    pub parent: Option<u64>,
    /// Path.
    pub path: String,
    /// Readings.
    pub history: &'a History,
}

/// Cgroups at any depth by what they grew for themselves before `at_s`, from their readings alone: each reading's usage less that of the
/// cgroups below. One that was made since counts whole.
#[must_use]
pub fn of_their_own(nodes: &[Node<'_>], at_s: f64) -> Vec<(u64, Growth)> {
    let ends = nodes.iter().filter_map(|node| node.history.points().filter(|point| point.at_s < at_s).map(|point| point.at_s).last());
    let end_s = ends.fold(f64::NEG_INFINITY, f64::max);
    let starts = nodes.iter().filter_map(|node| node.history.points().next().map(|point| point.at_s));
    let start_s = starts.fold(f64::INFINITY, f64::min);
    let mut rows = Vec::new();
    for window in WINDOWS_S {
        let from_s = (end_s - window).max(start_s);
        if end_s <= from_s || !end_s.is_finite() || !from_s.is_finite() {
            break;
        }
        let grown: HashMap<u64, i64> = nodes.iter().filter_map(|node| Some((node.id, grown(node.history, from_s, end_s)?))).collect();
        let mut own = grown.clone();
        for node in nodes {
            if let (Some(parent), Some(bytes)) = (node.parent, grown.get(&node.id))
                && let Some(of_parent) = own.get_mut(&parent)
            {
                *of_parent -= bytes;
            }
        }
        let paths: HashMap<u64, &str> = nodes.iter().map(|node| (node.id, node.path.as_str())).collect();
        let mut largest: Vec<(i64, &str, u64)> = own
            .iter()
            .filter(|(_, bytes)| **bytes >= LEAST_GROWTH as i64)
            .filter_map(|(id, bytes)| Some((*bytes, *paths.get(id)?, *id)))
            .collect();
        largest.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let growth = |bytes, path: &str| Growth {
            cgroup: path.to_owned(),
            kind: OWN.to_owned(),
            window_s: end_s - from_s,
            bytes,
            ..Growth::default()
        };
        rows.extend(largest.into_iter().take(MOST_ROWS).map(|(bytes, path, id)| (id, growth(bytes, path))));
        if from_s <= start_s {
            break;
        }
    }
    rows
}

/// How much a cgroup's usage grew between the two moments; `None` without a reading at the end.
fn grown(history: &History, from_s: f64, end_s: f64) -> Option<i64> {
    let now = history.points().filter(|point| point.at_s <= end_s && point.at_s > end_s - SAME_S).last()?.usage()?;
    let then = match history.points().filter(|point| point.at_s <= from_s).last() {
        Some(point) => point.usage()?,
        // Its first reading came late: either with the first of all, or it was made since.
        None => history.points().next().filter(|first| first.at_s - from_s < SAME_S).map_or(Some(0), |first| first.usage())?,
    };
    Some(i64::try_from(now).ok()?.saturating_sub(i64::try_from(then).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cgroup::history::Point;

    const MIB: u64 = 1 << 20;

    /// Usage in MiB at each second from `first` on.
    fn history(first: u32, usage: impl Fn(u64) -> u64, last: u32) -> History {
        let mut history = History::default();
        for second in first..=last {
            history.push(Point::new(f64::from(second), Some(usage(u64::from(second)) * MIB), |_| None));
        }
        history
    }

    fn found(rows: &[(u64, Growth)]) -> Vec<(&str, f64, i64)> {
        rows.iter().map(|(_, row)| (row.cgroup.as_str(), row.window_s, row.bytes / MIB as i64)).collect()
    }

    #[test]
    fn growth_is_that_of_the_innermost_cgroup() {
        let (node, slice, grower, flat) =
            (history(0, |s| 10 + 5 * s, 30), history(0, |s| 5 + 4 * s, 30), history(0, |s| 4 * s, 30), history(0, |_| 100, 30));
        let of = |id, parent, path: &str, history| Node { id, parent, path: path.to_owned(), history };
        let nodes = [of(1, None, "/", &node), of(2, Some(1), "/a", &slice), of(3, Some(2), "/a/b", &grower), of(4, Some(2), "/a/c", &flat)];
        assert_eq!(found(&of_their_own(&nodes, 30.5)), [("/a/b", 30.0, 120), ("/", 30.0, 30)]);
        assert!(of_their_own(&nodes, 0.5).is_empty(), "one reading");
        assert!(of_their_own(&[], 30.0).is_empty());
    }

    #[test]
    fn what_was_made_since_counts_whole_and_what_is_gone_not_at_all() {
        let (young, gone, old) = (history(90, |_| 50, 100), history(0, |s| s, 80), history(0, |s| s, 100));
        let of = |id, path: &str, history| Node { id, parent: None, path: path.to_owned(), history };
        let rows = of_their_own(&[of(1, "/young", &young), of(2, "/gone", &gone), of(3, "/old", &old)], 101.0);
        assert_eq!(found(&rows), [("/old", 60.0, 60), ("/young", 60.0, 50), ("/old", 100.0, 100), ("/young", 100.0, 50)]);
    }
}
