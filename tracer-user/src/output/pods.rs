//! `report --view pods`: pods and containers by the names that people know, with all that is charged to them and below them, the dead among
//! them, and the limit that each meets first.
//!
//! Pure. A pod is its cgroup with all below it; a container likewise. What is charged to a pod and to none of its containers, or to ones that
//! are gone, is in the pod's line.

use super::selection::Selection;
use crate::analyse::figures;
use crate::report::{Cgroup, LimitRow, Report};
use crate::text::units;
use crate::text::{escape, pad_left, pad_right};
use std::collections::BTreeMap;

/// Width of the name's column.
const NAME_COLUMNS: usize = 44;
/// Width of what it holds, which may have an error.
const HELD_COLUMNS: usize = 23;
/// Kinds with a column.
const KINDS: [&str; 4] = ["anon", "file", "shmem", "kernel"];

/// The table: a line for each pod, below it one for each of its containers; then the containers of no pod.
#[must_use]
pub fn table(report: &Report, selection: &Selection) -> String {
    let mut pods: BTreeMap<&str, Vec<&Cgroup>> = BTreeMap::new();
    for cgroup in tops(report).into_iter().filter(|cgroup| selection.takes_cgroup(cgroup)) {
        pods.entry(cgroup.pod.as_deref().unwrap_or_default()).or_default().push(cgroup);
    }
    let mut blocks: Vec<Vec<&Cgroup>> = Vec::new();
    for (pod, mut cgroups) in pods {
        // The pod's own first.
        cgroups.sort_by_key(|cgroup| (cgroup.container.is_some(), std::cmp::Reverse(held(cgroup))));
        if pod.is_empty() {
            blocks.extend(cgroups.into_iter().map(|cgroup| vec![cgroup]));
        } else {
            blocks.push(cgroups);
        }
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.iter().map(|cgroup| held(cgroup)).max()));
    let all = blocks.len();
    blocks.truncate(selection.top.unwrap_or(usize::MAX));

    let mut columns = vec![pad_left("HOLDS", HELD_COLUMNS)];
    columns.extend(KINDS.map(|kind| pad_left(&kind.to_uppercase(), 12)));
    let mut text = format!("{}{}  LIMIT MET FIRST\n", pad_right("POD OR CONTAINER", NAME_COLUMNS), columns.concat());
    for block in &blocks {
        for (n, cgroup) in block.iter().enumerate() {
            text.push_str(&line(cgroup, n > 0, report));
        }
    }
    if blocks.len() < all {
        text.push_str(&format!("\n{} more pods and containers not shown\n", all - blocks.len()));
    } else if all == 0 {
        text.push_str("no pods or containers match\n");
    }
    text
}

/// Of the cgroups of one pod or container the outermost: what is below it is in its sums.
fn tops(report: &Report) -> Vec<&Cgroup> {
    let mut tops: BTreeMap<(Option<&str>, Option<&str>), &Cgroup> = BTreeMap::new();
    for cgroup in report.cgroups.iter().filter(|cgroup| cgroup.pod.is_some() || cgroup.container.is_some()) {
        let key = (cgroup.pod.as_deref(), cgroup.container.as_deref());
        let top = tops.entry(key).or_insert(cgroup);
        if cgroup.path.len() < top.path.len() {
            *top = cgroup;
        }
    }
    tops.into_values().collect()
}

/// Bytes of a cgroup with all below it; of a dead one what is still charged to it.
fn held(cgroup: &Cgroup) -> u64 {
    cgroup.usage_bytes.or_else(|| figures::own_bytes(cgroup)).unwrap_or(0)
}

/// Bytes of a kind with all below.
fn kind_bytes(cgroup: &Cgroup, kind: &str) -> Option<u64> {
    figures::kind_bytes(cgroup.subtree.get(kind).or_else(|| cgroup.kinds.get(kind))?)
}

/// The same in words: sampled where the kernel has no figure.
fn held_text(cgroup: &Cgroup) -> String {
    let variance: f64 =
        cgroup.kinds.values().map(|row| (row.live_stderr.unwrap_or(0) as f64).hypot(row.baseline_stderr.unwrap_or(0) as f64).powi(2)).sum();
    match cgroup.usage_bytes {
        Some(usage) => units::bytes(usage),
        None => figures::sampled(held(cgroup), Some(variance.sqrt().round() as u64)),
    }
}

fn line(cgroup: &Cgroup, below: bool, report: &Report) -> String {
    let dead = match (cgroup.state.as_str(), cgroup.dead_for_s.and_then(units::seconds)) {
        ("dead", Some(time)) => format!(" (exited {time} ago)"),
        ("dead", None) => " (dead)".to_owned(),
        _ => String::new(),
    };
    let restarts = cgroup.restart.filter(|restarts| *restarts > 0).map(|restarts| format!(", restart {restarts}")).unwrap_or_default();
    let name = format!("{}{}{dead}{restarts}", if below { "  " } else { "" }, if below { in_pod(cgroup) } else { label(cgroup) });
    let mut columns = vec![pad_left(&held_text(cgroup), HELD_COLUMNS)];
    columns.extend(KINDS.map(|kind| pad_left(&figures::known(kind_bytes(cgroup, kind)), 12)));
    let limit = cgroup.binding_limit.as_ref().map_or_else(|| "none".to_owned(), |limit| limit_text(cgroup, limit, report));
    format!("{}{}  {}\n", pad_right(&escape(&name), NAME_COLUMNS), columns.concat(), escape(&limit))
}

/// `256.0 MiB of shop/cart-7, 3.0 MiB left, in 2 min`.
fn limit_text(cgroup: &Cgroup, limit: &LimitRow, report: &Report) -> String {
    let other = || report.cgroups.iter().find(|other| other.path == limit.path).map_or_else(|| limit.path.clone(), label);
    let whose = if limit.path == cgroup.path { String::new() } else { format!(" of {}", other()) };
    let left = limit.left_bytes.map(|left| format!(", {} left", units::bytes(left))).unwrap_or_default();
    let time = limit.reached_in_s.and_then(units::seconds).map(|time| format!(", in {time}")).unwrap_or_default();
    format!("{}{whose}{left}{time}", units::bytes(limit.limit_bytes))
}

/// The name within its pod.
fn in_pod(cgroup: &Cgroup) -> String {
    let named = cgroup.container_name.clone().or_else(|| cgroup.container.clone());
    named.unwrap_or_else(|| cgroup.path.clone())
}

/// What a pod or container is called, without a word on whether it lives.
#[must_use]
pub(super) fn label(cgroup: &Cgroup) -> String {
    figures::of_pod_and_container(cgroup)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::containers::NamePattern;
    use crate::report::KindRow;

    const MIB: u64 = 1 << 20;

    fn cgroup(path: &str, pod: Option<&str>, container: Option<&str>, shmem: u64) -> Cgroup {
        let row = KindRow { stat: Some(shmem), ..KindRow::default() };
        Cgroup {
            path: path.into(),
            state: "alive".into(),
            pod: pod.map(Into::into),
            container: container.map(|name| format!("id-of-{name}")),
            container_name: container.map(Into::into),
            pod_name: pod.map(|_| "cart-7".into()),
            namespace: pod.map(|_| "shop".into()),
            usage_bytes: Some(shmem),
            subtree: [("shmem".to_owned(), row)].into(),
            ..Cgroup::default()
        }
    }

    fn report() -> Report {
        let limit = LimitRow {
            path: "/kubepods/poda".into(),
            limit_bytes: 256 * MIB,
            usage_bytes: Some(250 * MIB),
            left_bytes: Some(6 * MIB),
            reached_in_s: Some(120.0),
        };
        let dead = Cgroup {
            state: "dead".into(),
            dead_for_s: Some(840.0),
            usage_bytes: None,
            kinds: [("shmem".to_owned(), KindRow { live: Some(200 * MIB), ..KindRow::default() })].into(),
            subtree: Default::default(),
            restart: Some(2),
            ..cgroup("/kubepods/poda/x1", Some("a"), Some("init"), 0)
        };
        let pod = Cgroup { binding_limit: Some(limit.clone()), ..cgroup("/kubepods/poda", Some("a"), None, 250 * MIB) };
        let web = Cgroup { binding_limit: Some(limit), ..cgroup("/kubepods/poda/x2", Some("a"), Some("web"), 50 * MIB) };
        let inside = cgroup("/kubepods/poda/x2/below", Some("a"), Some("web"), 7 * MIB);
        let db = cgroup("/docker/x3", None, Some("db"), 9 * MIB);
        Report {
            cgroups: vec![dead, inside, web, pod, db, Cgroup { path: "/system.slice".into(), ..Cgroup::default() }],
            ..Report::default()
        }
    }

    #[test]
    fn a_pod_stands_above_its_containers_and_the_dead_are_among_them() {
        let text = table(&report(), &Selection::default());
        let names: Vec<String> = text.lines().skip(1).map(|line| line.split("   ").next().unwrap().trim_end().to_owned()).collect();
        assert_eq!(names, ["shop/cart-7", "  init (exited 14 min ago), restart 2", "  web", "db"], "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("256.0 MiB, 6.0 MiB left, in 2 min"), "{text}");
        assert!(text.lines().nth(3).unwrap().contains("256.0 MiB of shop/cart-7,"), "{text}");
        assert!(text.lines().nth(2).unwrap().contains("200.0 MiB"), "{text}");
        assert!(!text.contains("system.slice") && !text.contains("7.0 MiB"), "{text}");
    }

    #[test]
    fn selections_by_name() {
        let only = |pods: &[&str], containers: &[&str]| {
            let pods = pods.iter().map(|name| NamePattern::pod(name).unwrap()).collect();
            let containers = containers.iter().map(|name| NamePattern::container(name).unwrap()).collect();
            table(&report(), &Selection { pods, containers, ..Selection::default() })
        };
        assert!(!only(&["shop/cart-*"], &[]).contains("db"));
        let web = only(&["cart-7"], &["web"]);
        assert!(web.contains("web") && !web.contains("init"), "{web}");
        assert!(only(&["cart-8"], &[]).contains("no pods or containers match"));
        assert!(table(&report(), &Selection { top: Some(1), ..Selection::default() }).contains("1 more"));
    }
}
