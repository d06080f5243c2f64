//! Figures that the summary and the views compute from a report. Pure; what cannot be computed is `None`.

use crate::report::Value;
use crate::report::{Cgroup, FileToucher, KindRow, Report, StackRow, Trend};
use crate::text::units;
use std::collections::BTreeMap;

/// Most processes of a file on its line.
const TOUCHERS: usize = 3;

/// Kinds whose charges have stacks and whose stat is reconciled.
pub const FOLLOWED: [&str; 3] = ["anon", "file", "shmem"];

/// Kinds that are shares of a cgroup's usage, so that they may be added up. Parts of `kernel`, among them `zswap`, and `swap` are not.
pub const SHARES_OF_USAGE: [&str; 6] = ["anon", "file", "shmem", "hugetlb", "kernel", "sock"];

/// `namespace/pod/container` where known, ids where names are not, else the path; of the dead, since when: `dead container shop/cart-7/web
/// (exited 12 s ago)`.
#[must_use]
pub fn name(cgroup: &Cgroup) -> String {
    if cgroup.state == "dead" {
        let since = |verb: &str| cgroup.dead_for_s.and_then(units::seconds).map(|time| format!(" ({verb} {time} ago)"));
        return match (&cgroup.container, &cgroup.container_name) {
            (Some(_), Some(_)) => format!("dead container {}{}", of_pod_and_container(cgroup), since("exited").unwrap_or_default()),
            (Some(container), None) => format!("dead container {}{}", short_id(container), since("exited").unwrap_or_default()),
            (None, _) => format!("{}{}", cgroup.path, since("removed").unwrap_or_else(|| " (dead)".to_owned())),
        };
    }
    of_pod_and_container(cgroup)
}

/// What people call it, as far as that is known.
#[must_use]
pub fn of_pod_and_container(cgroup: &Cgroup) -> String {
    let pod = match (&cgroup.namespace, &cgroup.pod_name) {
        (Some(namespace), Some(pod)) => Some(format!("{namespace}/{pod}")),
        (None, Some(pod)) => Some(pod.clone()),
        (_, None) => cgroup.pod.clone(),
    };
    match (pod, cgroup.container_name.as_ref().or(cgroup.container.as_ref())) {
        (Some(pod), Some(container)) => format!("{pod}/{container}"),
        (Some(name), None) => name,
        (None, Some(name)) => name.clone(),
        (None, None) => cgroup.path.clone(),
    }
}

/// The first twelve digits of a container's id, as runtimes show it; a name as it is.
fn short_id(container: &str) -> &str {
    if container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit()) { &container[..12] } else { container }
}

/// A sampled figure with its error: `1.2 GiB ± 40.0 MiB`, `< 3.0 MiB` under two standard errors, `1.2 GiB` where the error is zero.
#[must_use]
pub fn sampled(bytes: u64, stderr: Option<u64>) -> String {
    match stderr {
        Some(0) => units::bytes(bytes),
        Some(stderr) if bytes / 2 < stderr => format!("< {}", units::bytes(stderr.saturating_mul(2))),
        Some(stderr) => format!("{} ± {}", units::bytes(bytes), units::bytes(stderr)),
        None => format!("{} ± ?", units::bytes(bytes)),
    }
}

/// A figure that may be unknown.
#[must_use]
pub fn known(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), units::bytes)
}

/// `97.8 %`, or `unknown`.
#[must_use]
pub fn percent(share: Option<f64>, decimals: usize) -> String {
    share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.decimals$} %", share * 100.0))
}

/// Bytes of one kind: the kernel's figure, or for the dead what is known to be left.
#[must_use]
pub fn kind_bytes(row: &KindRow) -> Option<u64> {
    row.stat.or_else(|| match (row.baseline, row.live) {
        (None, None) => None,
        (baseline, live) => Some(baseline.unwrap_or(0).saturating_add(live.unwrap_or(0))),
    })
}

/// Bytes charged to the cgroup itself, without its children: what ranks cgroups.
#[must_use]
pub fn own_bytes(cgroup: &Cgroup) -> Option<u64> {
    sum_of_kinds(&cgroup.kinds)
}

/// Bytes of all kinds that are shares of usage; `None` if none is known.
#[must_use]
pub fn sum_of_kinds(kinds: &BTreeMap<String, KindRow>) -> Option<u64> {
    let known = SHARES_OF_USAGE.iter().filter_map(|kind| kind_bytes(kinds.get(*kind)?));
    known.fold(None, |sum, bytes| Some(sum.unwrap_or(0_u64).saturating_add(bytes)))
}

/// Present growth of the whole cgroup with what is below it, as its limit counts them, bytes a second; `None` where it is within its error.
#[must_use]
pub fn growth(cgroup: &Cgroup) -> Option<f64> {
    cgroup.trend.as_ref().and_then(Trend::firm)
}

/// Seconds until usage meets the limit at the present growth.
#[must_use]
pub fn seconds_to_limit(cgroup: &Cgroup) -> Option<f64> {
    let (limit, usage, growth) = (cgroup.limit_bytes?, cgroup.usage_bytes?, growth(cgroup)?);
    (growth > 0.0).then(|| limit.saturating_sub(usage) as f64 / growth)
}

/// Which bytes outputs show where nobody said: of a command those at its peak, or where no peak is known what was charged, since what has ended
/// holds nothing.
#[must_use]
pub fn shown(report: &Report) -> Value {
    let mut stacks = report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks);
    match report.filter.command {
        false => Value::Live,
        true if stacks.any(|row| row.peak > 0) => Value::Peak,
        true => Value::Charged,
    }
}

/// How much of usage the ledger explains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attributed {
    /// Memory from before the start, and what was charged since and is live, as a share of usage. It may be above one by its error.
    pub share: f64,
    /// Its standard error.
    pub stderr: f64,
}

/// Share of the cgroups' usage whose owner is known. Kinds of which only the kernel's figure is known, such as kernel memory, are part of
/// usage and of no owner. `None` where no kind is followed.
#[must_use]
pub fn attributed(report: &Report) -> Option<Attributed> {
    let (mut total, mut covered, mut variance, mut any) = (0_i128, 0_i128, 0.0, false);
    for cgroup in &report.cgroups {
        total += i128::from(charged_bytes(cgroup).unwrap_or(0));
        for row in FOLLOWED.iter().filter_map(|kind| cgroup.kinds.get(*kind)).filter(|row| row.stat.is_some()) {
            any |= row.live.is_some() || row.baseline.is_some();
            // What removed cgroups left is in the figure, and has rows of its own.
            covered += i128::from(row.baseline.unwrap_or(0)) + i128::from(row.live.unwrap_or(0)) + i128::from(row.dead_below.unwrap_or(0));
            variance += (row.live_stderr.unwrap_or(0) as f64).powi(2) + (row.baseline_stderr.unwrap_or(0) as f64).powi(2);
        }
    }
    (any && total > 0).then(|| Attributed { share: covered as f64 / total as f64, stderr: variance.sqrt() / total as f64 })
}

/// What is charged to a cgroup itself: its kinds, what is charged and no process maps, and of a cgroup without others below it what is of no
/// known kind.
#[must_use]
pub fn charged_bytes(cgroup: &Cgroup) -> Option<u64> {
    let kinds = cgroup.kinds.iter().filter(|(kind, row)| is_share(kind, row) && row.stat.is_some());
    let kinds = kinds.fold(0_u64, |sum, (_, row)| sum.saturating_add(row.stat.unwrap_or(0)).saturating_add(row.unmapped.unwrap_or(0)));
    // What has nothing below it is as large as its subtree.
    let alone = sum_of_kinds(&cgroup.subtree).is_none_or(|whole| sum_of_kinds(&cgroup.kinds).is_some_and(|own| whole <= own));
    match (kinds, cgroup.usage_bytes.filter(|_| alone)) {
        (0, None) => None,
        (kinds, usage) => Some(kinds.max(usage.unwrap_or(0))),
    }
}

/// Whether a kind is part of usage. v1 counts socket buffers in a counter of their own, beside it.
#[must_use]
pub fn is_share(kind: &str, row: &KindRow) -> bool {
    SHARES_OF_USAGE.contains(&kind) && !(kind == "sock" && row.source == "counter")
}

/// Share of live (or charged) bytes whose stack is whole.
#[must_use]
pub fn whole_stacks(report: &Report, value: Value) -> Option<f64> {
    whole_stacks_among(report, value, |_| true)
}

/// The same of some of the rows.
#[must_use]
pub fn whole_stacks_among(report: &Report, value: Value, wanted: impl Fn(&StackRow) -> bool) -> Option<f64> {
    let rows = || report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks).filter(|row| wanted(row));
    let sum = |rows: &mut dyn Iterator<Item = &StackRow>| rows.fold(0_u128, |sum, row| sum + u128::from(value.of(row)));
    let total = sum(&mut rows());
    (total > 0).then(|| sum(&mut rows().filter(|row| row.status == "complete")) as f64 / total as f64)
}

/// Status of stacks in which methods of Java are missing.
pub const NO_JAVA_FRAMES: &str = "cut: Java without frame pointers";

/// Why most of the bytes without a whole stack have none, in the words of their status, and the program that has most of those.
#[must_use]
pub fn largest_cut(report: &Report, value: Value) -> Option<(&str, &str)> {
    let mut by_reason: BTreeMap<&str, BTreeMap<&str, u128>> = BTreeMap::new();
    for row in report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks) {
        if let Some(reason) = row.status.strip_prefix("cut: ") {
            *by_reason.entry(reason).or_default().entry(&row.comm).or_default() += u128::from(value.of(row));
        }
    }
    let (reason, programs) = by_reason.into_iter().max_by_key(|(_, programs)| programs.values().sum::<u128>())?;
    let (program, bytes) = programs.into_iter().max_by_key(|(_, bytes)| *bytes)?;
    (bytes > 0).then_some((reason, program))
}

/// Causes of loss that cost no bytes of memory, but names or address space.
pub const NO_BYTES: [&str; 28] = [
    "peak_table_full",
    "recursion_misses",
    "file_table_full",
    "mapping_table_full",
    "mapping_event_lost",
    "container_names_refused",
    "container_names_late",
    "unwind_file_table_full",
    "unwind_miss_lost",
    "unwind_tables_full",
    "unwind_files_gone",
    "unwind_files_unread",
    "symbols_late",
    "symbol_files_unread",
    "symbol_files_not_open",
    "perf_maps_foreign",
    "perf_maps_cut",
    "function_lost",
    "functions_forgotten",
    "functions_not_told",
    "managed_unreadable",
    "mapping_ranges_dropped",
    "regions_cut_short",
    "symbol_file_evicted",
    "symbol_file_gone",
    "symbol_file_not_tried",
    "symbol_file_refused",
    "entries_removed_in_two_calls",
];

/// Losses of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses<'a> {
    /// Sum of those that cost bytes or figures; `None` if nothing is counted.
    pub counted: Option<u64>,
    /// Causes above zero that cost bytes or figures, largest first.
    pub causes: Vec<(&'a str, u64)>,
    /// The same of causes that cost names or address space.
    pub of_names: Vec<(&'a str, u64)>,
    /// Causes that this kernel does not count.
    pub not_counted: Vec<&'a str>,
}

/// What was lost, by cause.
#[must_use]
pub fn losses(report: &Report) -> Losses<'_> {
    let mut losses = Losses::default();
    for (cause, count) in &report.losses {
        match count {
            Some(count) => {
                let is_of_names = NO_BYTES.contains(&cause.as_str());
                let cost = if is_of_names { 0 } else { *count };
                losses.counted = Some(losses.counted.unwrap_or(0).saturating_add(cost));
                if *count > 0 {
                    if is_of_names { &mut losses.of_names } else { &mut losses.causes }.push((cause, *count));
                }
            }
            None => losses.not_counted.push(cause),
        }
    }
    for causes in [&mut losses.causes, &mut losses.of_names] {
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    }
    losses
}

/// `java[4711] 398.0 MiB, sh[12] 4.0 KiB and 3 more`. A process that both read and mapped is one.
#[must_use]
pub fn touchers(touchers: &[FileToucher]) -> String {
    let mut merged: Vec<(Option<u32>, &str, u64)> = Vec::new();
    for toucher in touchers {
        match merged.iter_mut().find(|(pid, comm, _)| *pid == toucher.pid && *comm == toucher.comm) {
            Some((.., bytes)) => *bytes = bytes.saturating_add(toucher.bytes),
            None => merged.push((toucher.pid, &toucher.comm, toucher.bytes)),
        }
    }
    merged.sort_by_key(|(.., bytes)| std::cmp::Reverse(*bytes));
    let shown = merged.iter().take(TOUCHERS).map(|(pid, comm, bytes)| {
        let pid = pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
        format!("{comm}{pid} {}", units::bytes(*bytes))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    if merged.len() > TOUCHERS { format!("{shown} and {} more", merged.len() - TOUCHERS) } else { shown }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn report(rows: Vec<(&str, KindRow)>) -> Report {
        let kinds = rows.into_iter().map(|(kind, row)| (kind.to_owned(), row)).collect();
        Report { cgroups: vec![Cgroup { kinds, ..Cgroup::default() }], ..Report::default() }
    }

    #[test]
    fn the_largest_reason_of_cut_stacks_is_that_of_the_most_bytes() {
        let row =
            |comm: &str, status: &str, live| StackRow { comm: comm.to_owned(), status: status.to_owned(), live, ..StackRow::default() };
        let stacks =
            vec![row("x", "cut: a", 6), row("y", "complete", 90), row("y", "cut: b", 4), row("z", "cut: b", 5), row("x", "cut: c", 0)];
        let report = Report { cgroups: vec![Cgroup { stacks, ..Cgroup::default() }], ..Report::default() };
        assert_eq!(largest_cut(&report, Value::Live), Some(("b", "z")));
        assert_eq!(largest_cut(&report, Value::Charged), None);
    }

    #[test]
    fn attributed_is_the_share_of_usage_that_the_ledger_explains() {
        let share = |rows| attributed(&report(rows)).map(|attributed| attributed.share);
        let anon = KindRow { stat: Some(90), baseline: Some(40), live: Some(60), unmapped: Some(10), ..KindRow::default() };
        let file = KindRow { stat: Some(100), ..KindRow::default() };
        let kernel = KindRow { stat: Some(300), ..KindRow::default() };
        assert_eq!(share(vec![("anon", anon.clone())]), Some(1.0));
        assert_eq!(share(vec![("anon", anon.clone()), ("file", file.clone())]), Some(0.5));
        assert_eq!(share(vec![("anon", anon.clone()), ("file", file.clone()), ("kernel", kernel)]), Some(0.2), "kernel memory is usage");
        assert_eq!(share(vec![("anon", anon.clone()), ("swap", file.clone())]), Some(1.0), "swap is not");
        assert_eq!(share(vec![("file", file)]), None);
        assert_eq!(share(vec![("anon", KindRow { live: Some(5), ..KindRow::default() })]), None);
        assert_eq!(attributed(&Report::default()), None);
        let mut leaf = report(vec![("anon", KindRow { live_stderr: Some(30), baseline_stderr: Some(40), ..anon })]);
        leaf.cgroups[0].usage_bytes = Some(400);
        assert_eq!(attributed(&leaf), Some(Attributed { share: 0.25, stderr: 0.125 }), "usage of no known kind");
        leaf.cgroups[0].subtree = [("anon".to_owned(), KindRow { stat: Some(300), ..KindRow::default() })].into();
        assert_eq!(attributed(&leaf).unwrap().share, 1.0, "what is below is not its own");
        leaf.cgroups[0].kinds.get_mut("anon").unwrap().dead_below = Some(100);
        assert_eq!(attributed(&leaf).unwrap().share, 2.0, "what removed ones left has rows of its own");
        let sock = KindRow { stat: Some(100), source: "counter".into(), ..KindRow::default() };
        let anon = KindRow { stat: Some(100), live: Some(100), ..KindRow::default() };
        assert_eq!(share(vec![("anon", anon), ("sock", sock)]), Some(1.0), "v1 counts sockets beside usage");
    }

    #[test]
    fn figures_below_two_errors_are_bounds() {
        assert_eq!(sampled(10 << 20, Some(4 << 20)), "10.0 MiB ± 4.0 MiB");
        assert_eq!(sampled(7 << 20, Some(4 << 20)), "< 8.0 MiB");
        assert_eq!(sampled(7, Some(0)), "7 B");
        assert_eq!(sampled(0, Some(0)), "0 B");
        assert_eq!(sampled(u64::MAX, Some(u64::MAX)), "< 16.0 EiB");
    }

    #[test]
    fn unknown_is_not_zero() {
        assert_eq!(own_bytes(&Cgroup::default()), None);
        assert_eq!(growth(&Cgroup::default()), None);
        assert_eq!(losses(&Report::default()).counted, None);
        assert_eq!(whole_stacks(&Report::default(), Value::Live), None);
        assert_eq!(percent(None, 1), "unknown");
    }
}
