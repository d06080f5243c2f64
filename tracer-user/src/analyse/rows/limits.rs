//! Which limits hold for a cgroup, and which of them is met first.

use crate::{
    analyse::figures,
    cgroup::{CgroupId, StatReading, registry::State, stat::Limit},
    report::{Cgroup, LimitRow},
    snapshot::Snapshot,
};
use std::collections::HashMap;

/// Limits of the cgroup and of the living ones above it, innermost first.
pub(super) fn of(snapshot: &Snapshot, id: CgroupId) -> Vec<LimitRow> {
    let reading = |id: CgroupId| snapshot.cgroups.read(id).or_else(|| snapshot.cgroups.above.get(&id));
    let living = snapshot.cgroups.ancestry(id).filter(|cgroup| cgroup.state == State::Alive);
    living.filter_map(|cgroup| limit(cgroup.path.to_string(), reading(cgroup.id)?)).collect()
}

fn limit(path: String, reading: &StatReading) -> Option<LimitRow> {
    let limit_bytes = reading.limit.and_then(Limit::bytes)?;
    let left_bytes = reading.usage.map(|usage| limit_bytes.saturating_sub(usage));
    Some(LimitRow { path, limit_bytes, usage_bytes: reading.usage, left_bytes, reached_in_s: None })
}

/// Once all rows are there: when each limit is met, and which one is first. What is charged to a cgroup counts at every level alike, so
/// the one with the least room is met first; of equal ones the innermost.
pub(super) fn settle(cgroups: &mut [Cgroup]) {
    let growth: HashMap<String, f64> = cgroups
        .iter()
        .filter(|cgroup| cgroup.state == "alive")
        .filter_map(|cgroup| Some((cgroup.path.clone(), figures::growth(cgroup)?)))
        .collect();
    for cgroup in cgroups {
        for row in &mut cgroup.limits {
            let slope = growth.get(&row.path).copied().filter(|slope| *slope > 0.0);
            row.reached_in_s = slope.zip(row.left_bytes).map(|(slope, left)| left as f64 / slope);
        }
        cgroup.binding_limit = cgroup.limits.iter().filter(|row| row.left_bytes.is_some()).min_by_key(|row| row.left_bytes).cloned();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::Trend;

    fn row(path: &str, limit_bytes: u64, usage: u64) -> LimitRow {
        let left_bytes = Some(limit_bytes.saturating_sub(usage));
        LimitRow { path: path.into(), limit_bytes, usage_bytes: Some(usage), left_bytes, reached_in_s: None }
    }

    fn cgroup(path: &str, limits: Vec<LimitRow>, growth: f64) -> Cgroup {
        let trend = Trend { bytes_per_s: Some(growth), stderr_per_s: Some(0.1), ..Trend::default() };
        Cgroup { path: path.into(), state: "alive".into(), limits, trend: Some(trend), ..Cgroup::default() }
    }

    #[test]
    fn the_least_room_binds_whichever_level_has_it() {
        let mut cgroups = [
            cgroup("/pod", vec![row("/pod", 1000, 950)], 10.0),
            cgroup("/pod/web", vec![row("/pod/web", 900, 300), row("/pod", 1000, 950)], 0.0),
            cgroup("/pod/db", vec![row("/pod/db", 700, 690), row("/pod", 1000, 950)], 1.0),
            cgroup("/pod/equal", vec![row("/pod/equal", 60, 10), row("/pod", 1000, 950)], 1.0),
            cgroup("/free", vec![], 5.0),
        ];
        settle(&mut cgroups);
        let binding: Vec<Option<&str>> = cgroups.iter().map(|cgroup| cgroup.binding_limit.as_ref().map(|row| row.path.as_str())).collect();
        assert_eq!(binding, [Some("/pod"), Some("/pod"), Some("/pod/db"), Some("/pod/equal"), None]);
        let web = &cgroups[1];
        assert_eq!(
            (web.limits[0].reached_in_s, web.binding_limit.as_ref().unwrap().reached_in_s),
            (None, Some(5.0)),
            "its pod grows, not it"
        );
    }

    #[test]
    fn a_limit_without_usage_binds_nothing() {
        let unknown = LimitRow { usage_bytes: None, left_bytes: None, ..row("/a", 10, 0) };
        let mut cgroups = [cgroup("/a", vec![unknown], 1.0)];
        settle(&mut cgroups);
        assert_eq!(cgroups[0].binding_limit, None);
    }
}
