//! Intervals as what changed since the one before: on a quiet host next to nothing does, and a recording of it stays small.
//!
//! A whole interval comes first, and again every [`WHOLE_EVERY`]: a version that does not know changes reads those alone, and a reader that
//! begins there needs nothing from before.

use crate::report::{Interval, IntervalCgroup};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Intervals from one whole one to the next.
pub(super) const WHOLE_EVERY: u32 = 60;

/// An interval as a difference. What it does not name is as before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Changes {
    pub(super) at_s: f64,
    pub(super) clocks: [u64; 3],
    /// Cgroups of which any figure changed, whole, and new ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cgroups: BTreeMap<String, IntervalCgroup>,
    /// Ids of cgroups that are no longer read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    losses: BTreeMap<String, Option<u64>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tables: BTreeMap<String, u64>,
}

impl Changes {
    /// What changed; `None` where a difference cannot say it: losses or tables that there were are there no more.
    pub(super) fn between(before: &Interval, after: &Interval) -> Option<Changes> {
        if !holds_keys(&after.losses, &before.losses) || !holds_keys(&after.tables, &before.tables) {
            return None;
        }
        Some(Changes {
            at_s: after.at_s,
            clocks: after.clocks,
            cgroups: changed(&before.cgroups, &after.cgroups),
            gone: before.cgroups.keys().filter(|id| !after.cgroups.contains_key(*id)).cloned().collect(),
            losses: changed(&before.losses, &after.losses),
            tables: changed(&before.tables, &after.tables),
        })
    }

    /// The interval after this change.
    pub(super) fn apply(self, mut interval: Interval) -> Interval {
        let Changes { at_s, clocks, cgroups, gone, losses, tables } = self;
        (interval.at_s, interval.clocks) = (at_s, clocks);
        for id in &gone {
            interval.cgroups.remove(id);
        }
        interval.cgroups.extend(cgroups);
        interval.losses.extend(losses);
        interval.tables.extend(tables);
        interval
    }
}

fn holds_keys<T>(map: &BTreeMap<String, T>, keys: &BTreeMap<String, T>) -> bool {
    keys.keys().all(|key| map.contains_key(key))
}

fn changed<T: PartialEq + Clone>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    after.iter().filter(|(key, value)| before.get(*key) != Some(*value)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn interval(at_s: f64, cgroups: &[(&str, u64)], losses: &[(&str, Option<u64>)]) -> Interval {
        let cgroup = |usage| IntervalCgroup { usage_bytes: Some(usage), ..IntervalCgroup::default() };
        Interval {
            at_s,
            cgroups: cgroups.iter().map(|(id, usage)| ((*id).to_owned(), cgroup(*usage))).collect(),
            losses: losses.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect(),
            ..Interval::default()
        }
    }

    #[test]
    fn a_change_gives_the_interval_again_and_names_only_what_changed() {
        let before = interval(1.0, &[("1", 10), ("2", 20), ("3", 30)], &[("a", Some(0)), ("b", None)]);
        let after = interval(2.0, &[("1", 10), ("3", 31), ("4", 40)], &[("a", Some(1)), ("b", None)]);
        let changes = Changes::between(&before, &after).unwrap();
        assert_eq!(changes.cgroups.keys().collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(changes.gone, ["2"]);
        assert_eq!(changes.losses.len(), 1);
        assert_eq!(changes.apply(before.clone()), after);
        let nothing = Changes::between(&before, &before).unwrap();
        assert!(nothing.cgroups.is_empty() && nothing.losses.is_empty());
        assert_eq!(nothing.apply(before.clone()), before);
        assert_eq!(Changes::between(&before, &interval(2.0, &[], &[("a", Some(0))])), None);
    }
}
