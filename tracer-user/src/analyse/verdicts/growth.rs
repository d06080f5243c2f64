//! `growth`: usage grows, and the limit that is met first is near at that pace.
//!
//! Page cache that grows is worth knowing and no more: the kernel drops it at the limit.
//!
//! Fires when growth is more than two of its standard errors over ten seconds or more, and the limit is reached within an hour. Silent without
//! a limit, for what grew and has stopped, and for a step.

use super::Severity;
use crate::analyse::figures;
use crate::report::{Cgroup, KindRow, Report, StackRow, Verdict};
use crate::text::units;
use serde_json::json;

/// Identifier in docs and outputs.
pub const ID: &str = "growth";

/// A limit that is reached later is not worth a verdict, seconds.
const WITHIN_S: f64 = 3600.0;
/// From here on it is critical.
const CRITICAL_S: f64 = 300.0;

/// The verdict on a cgroup. Of a pod that grows because a container in it does, the container is told.
#[must_use]
pub fn verdict(cgroup: &Cgroup, report: &Report) -> Option<Verdict> {
    let slope = figures::growth(cgroup).filter(|slope| *slope > 0.0 && cgroup.state != "dead")?;
    let limit = cgroup.binding_limit.as_ref()?;
    // Of a limit above, that cgroup's own growth says when it is met, where it is known.
    let is_known = limit.path != cgroup.path && report.cgroups.iter().any(|other| other.path == limit.path);
    let reached_in_s = if is_known { limit.reached_in_s? } else { limit.left_bytes? as f64 / slope };
    if reached_in_s > WITHIN_S || super::below(cgroup, report).filter_map(figures::growth).any(|of_other| of_other >= slope / 2.0) {
        return None;
    }
    let rate = units::rate_per_minute(slope)?;
    let time = units::seconds(reached_in_s)?;
    let whose = if limit.path == cgroup.path { "its limit".to_owned() } else { format!("the limit of {}", limit.path) };
    let kind = grown(cgroup);
    let stack = largest(cgroup, kind.map(|(kind, _)| kind));
    let of_kind = kind.map(|(kind, _)| format!(", mostly of {kind}")).unwrap_or_default();
    let through = stack.map(through).unwrap_or_default();
    let dropped = if matches!(kind, Some(("file", _))) { " What is page cache and written to disk is dropped there." } else { "" };
    Some(super::verdict(
        ID,
        match kind {
            Some(("file", _)) => Severity::Info,
            _ if reached_in_s <= CRITICAL_S => Severity::Critical,
            _ => Severity::Warning,
        },
        format!(
            "Grows by {rate}{of_kind}: {whose} of {} is reached in {time} at that pace.{dropped}{through}",
            units::bytes(limit.limit_bytes)
        ),
        [
            ("bytes_per_s", json!(slope)),
            ("stderr_per_s", json!(cgroup.trend.as_ref().and_then(|trend| trend.stderr_per_s))),
            ("reached_in_s", json!(reached_in_s)),
            ("limit_bytes", json!(limit.limit_bytes)),
            ("limit_cgroup", json!(limit.path)),
            ("kind", json!(kind.map(|(kind, _)| kind))),
            ("pid", json!(stack.and_then(|row| row.pid))),
        ],
    ))
}

/// The kind that grows most.
fn grown(cgroup: &Cgroup) -> Option<(&str, f64)> {
    let growth = |(kind, row): (&'static &'static str, &KindRow)| Some((*kind, row.growth_bytes_per_s.filter(|slope| *slope > 0.0)?));
    let shares = figures::SHARES_OF_USAGE.iter().filter_map(|kind| growth((kind, super::whole(cgroup, kind)?)));
    shares.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The stack of that kind with most of what came since the start and is there.
fn largest<'a>(cgroup: &'a Cgroup, kind: Option<&str>) -> Option<&'a StackRow> {
    let of_kind = cgroup.stacks.iter().filter(|row| kind.is_none_or(|kind| row.kind == kind) && row.live / 2 > row.live_stderr);
    of_kind.max_by_key(|row| row.live)
}

/// ` Most of what came since the start is of java[12] through Buffer::grow.`
fn through(row: &StackRow) -> String {
    let pid = row.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
    let names: Vec<&String> = row.frames.iter().filter(|name| !name.ends_with("_[k]")).collect();
    let (range, _) = crate::text::source::window(&names, 1);
    let through = names.get(range.start).map(|name| format!(" through {name}")).unwrap_or_default();
    format!(" Most of what came since the start is of {}{pid}{through}.", row.comm)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::{LimitRow, Trend};

    const MIB: u64 = 1 << 20;

    fn cgroup(path: &str, mib_per_minute: f64, left: u64) -> Cgroup {
        let trend = Trend {
            window_s: 30.0,
            bytes_per_s: Some(mib_per_minute * MIB as f64 / 60.0),
            stderr_per_s: Some(MIB as f64 / 60.0),
            ..Trend::default()
        };
        let limit = LimitRow { path: path.into(), limit_bytes: 1000 * MIB, left_bytes: Some(left * MIB), ..LimitRow::default() };
        let anon = KindRow { growth_bytes_per_s: Some(5.0), ..KindRow::default() };
        let stack = StackRow {
            kind: "anon".into(),
            comm: "java".into(),
            pid: Some(12),
            frames: vec!["main".into(), "Buffer::grow".into()],
            live: 90 * MIB,
            ..StackRow::default()
        };
        Cgroup {
            path: path.into(),
            state: "alive".into(),
            trend: Some(trend),
            binding_limit: Some(limit),
            kinds: [("anon".to_owned(), anon)].into(),
            stacks: vec![stack],
            ..Cgroup::default()
        }
    }

    fn told(cgroup: Cgroup) -> Option<(String, String)> {
        let report = Report { cgroups: vec![cgroup], ..Report::default() };
        verdict(&report.cgroups[0], &report).map(|verdict| (verdict.severity, verdict.text))
    }

    #[test]
    fn a_limit_that_is_near_is_told_with_what_grows() {
        let (severity, text) = told(cgroup("/pod", 60.0, 600)).unwrap();
        assert_eq!(severity, "warning");
        assert_eq!(
            text,
            "Grows by +60 MiB/min, mostly of anon: its limit of 1.0 GiB is reached in 10 min at that pace. Most of what came since the \
             start is of java[12] through Buffer::grow."
        );
        assert_eq!(told(cgroup("/pod", 60.0, 60)).unwrap().0, "critical");
    }

    #[test]
    fn silent_for_what_is_far_within_its_error_or_of_a_cgroup_below() {
        assert_eq!(told(cgroup("/pod", 9.0, 600)), None, "in more than an hour");
        assert_eq!(told(cgroup("/pod", 1.9, 5)), None, "within two errors");
        assert_eq!(told(cgroup("/pod", -60.0, 5)), None);
        assert_eq!(told(Cgroup { binding_limit: None, ..cgroup("/pod", 60.0, 5) }), None, "no limit");
        let mut page_cache = cgroup("/pod", 60.0, 60);
        let row = page_cache.kinds.remove("anon").unwrap();
        page_cache.kinds.insert("file".into(), row);
        assert_eq!(told(page_cache).unwrap().0, "info");
        let report = Report { cgroups: vec![cgroup("/pod", 60.0, 60), cgroup("/pod/web", 50.0, 60)], ..Report::default() };
        assert!(verdict(&report.cgroups[0], &report).is_none() && verdict(&report.cgroups[1], &report).is_some());
        // The pod's limit is met when the pod meets it, and not at the pace of one in it.
        let of_pod = |reached_in_s| LimitRow { path: "/pod".into(), reached_in_s, left_bytes: Some(60 * MIB), ..LimitRow::default() };
        let web = |reached_in_s| Cgroup { binding_limit: Some(of_pod(reached_in_s)), ..cgroup("/pod/web", 60.0, 60) };
        let both = |reached_in_s| Report { cgroups: vec![cgroup("/pod", 0.0, 60), web(reached_in_s)], ..Report::default() };
        assert!(verdict(&both(None).cgroups[1], &both(None)).is_none(), "what one takes the other gives back");
        assert!(verdict(&both(Some(2400.0)).cgroups[1], &both(Some(2400.0))).unwrap().text.contains("in 40 min"));
    }
}
