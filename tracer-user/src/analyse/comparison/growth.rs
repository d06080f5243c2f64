//! What grew between two moments of a recording, as a report: for every output that shows stacks.
//!
//! Live bytes count from the start of the recording, so without an earlier moment the growth of a stack is what it has live. A stack that
//! shrank has no width in a flame graph and no folded line: it is counted, and [`super::diff`] shows it. Distributions are of what came
//! between the two.

use super::{Options, compare};
use crate::report::Value;
use crate::report::distribution::LIVE_AGE;
use crate::report::{Cgroup, HistogramRow, Report, StackRow};
use std::collections::{BTreeMap, HashMap};

/// A report of growth.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The later report with the stacks that grew; their bytes are those of the growth. Figures of whole cgroups are left out, but for
    /// names, usage and limit.
    pub report: Report,
    /// Stacks that shrank.
    pub shrunk: usize,
    /// By how many bytes.
    pub shrunk_bytes: u64,
}

/// Growth of live bytes, or for [`Value::Charged`] what was charged, from one moment of a recording (from its start, without one) to another.
#[must_use]
pub fn between(before: Option<&Report>, after: &Report, value: Value) -> Growth {
    // What is freed keeps its charges and has no region any more: by region charges of old would seem to be new ones.
    let erased = (value == Value::Charged).then(|| {
        let regions = only_regions([before, Some(after)].into_iter().flatten());
        (before.map(|before| with_regions(before, &regions)), with_regions(after, &regions))
    });
    let (before, after) = erased.as_ref().map_or((before, after), |(before, after)| (before.as_ref(), after));
    let nothing = Report::default();
    let comparison = compare(before.unwrap_or(&nothing), after, Options { value, normalize: false, same_recording: true });
    let mut cgroups: Vec<Cgroup> = after.cgroups.iter().map(without_figures).collect();
    // The removed and the new cgroup of one path are one here; either can hold the sum.
    let places: HashMap<&str, usize> = after.cgroups.iter().enumerate().map(|(place, cgroup)| (cgroup.path.as_str(), place)).collect();
    let (mut shrunk, mut shrunk_bytes) = (0, 0_u64);
    for stack in comparison.stacks {
        let bytes = stack.change.bytes();
        if bytes < 0 {
            shrunk += 1;
            shrunk_bytes = shrunk_bytes.saturating_add(bytes.unsigned_abs());
        } else if bytes > 0
            && let Some(cgroup) = places.get(stack.cgroup.as_ref()).and_then(|place| cgroups.get_mut(*place))
        {
            let (live, charged) = if value == Value::Charged { (0, bytes.unsigned_abs()) } else { (bytes.unsigned_abs(), 0) };
            cgroup.stacks.push(StackRow {
                live,
                live_stderr: stack.change.stderr(),
                charged,
                samples: 0,
                oldest_s: None,
                threads: None,
                files: Vec::new(),
                ..stack.row.clone()
            });
        }
    }
    let mut report = Report { cgroups, ..after.clone() };
    if let Some(before) = before {
        let earlier: HashMap<&str, &Cgroup> = before.cgroups.iter().map(|cgroup| (cgroup.id.as_str(), cgroup)).collect();
        for (cgroup, after) in report.cgroups.iter_mut().zip(&after.cgroups) {
            let earlier = earlier.get(after.id.as_str()).copied();
            cgroup.histograms = distributions(earlier, after);
            let lost_before = earlier.map_or(0, |earlier| earlier.histogram_losses);
            cgroup.histogram_losses = after.histogram_losses.saturating_sub(lost_before);
        }
        report.started.clone_from(&before.ended);
        report.duration_s = (after.duration_s - before.duration_s).max(0.0);
    }
    Growth { report, shrunk, shrunk_bytes }
}

/// A stack without its region: cgroup, kind, process, frames.
type Stack<'a> = (&'a str, &'a str, &'a str, &'a [String]);

/// The region of each stack that has one alone in all of these reports; `None` for those that have several.
fn only_regions<'a>(reports: impl Iterator<Item = &'a Report>) -> HashMap<Stack<'a>, Option<&'a str>> {
    let mut regions = HashMap::new();
    for (cgroup, row) in reports.flat_map(|report| &report.cgroups).flat_map(|cgroup| cgroup.stacks.iter().map(move |row| (cgroup, row))) {
        if row.region != OTHER_REGION {
            let region = regions.entry((cgroup.path.as_str(), row.kind.as_str(), row.comm.as_str(), row.frames.as_slice()));
            let known = region.or_insert(Some(row.region.as_str()));
            *known = known.filter(|known| *known == row.region);
        }
    }
    regions
}

/// What is in no region, and what is free again.
const OTHER_REGION: &str = "other";

/// The report with each stack in its only region, and those that have several in none.
fn with_regions(report: &Report, regions: &HashMap<Stack<'_>, Option<&str>>) -> Report {
    let mut report = report.clone();
    for cgroup in &mut report.cgroups {
        for row in &mut cgroup.stacks {
            let region = regions.get(&(cgroup.path.as_str(), row.kind.as_str(), row.comm.as_str(), row.frames.as_slice()));
            let region = region.copied().flatten().unwrap_or(OTHER_REGION);
            region.clone_into(&mut row.region);
        }
    }
    report
}

/// What came to the distributions since an earlier moment; the age of what is live is of a moment, and not among them.
fn distributions(before: Option<&Cgroup>, after: &Cgroup) -> BTreeMap<String, HistogramRow> {
    let mut rows = BTreeMap::new();
    for (name, row) in after.histograms.iter().filter(|(name, _)| *name != LIVE_AGE) {
        let earlier = before.and_then(|before| before.histograms.get(name)?.distribution()).unwrap_or_default();
        if let Some(row) = row.distribution().and_then(|later| later.since(&earlier).row()) {
            rows.insert(name.clone(), row);
        }
    }
    rows
}

fn without_figures(cgroup: &Cgroup) -> Cgroup {
    Cgroup {
        path: cgroup.path.clone(),
        id: cgroup.id.clone(),
        state: cgroup.state.clone(),
        pod: cgroup.pod.clone(),
        container: cgroup.container.clone(),
        pod_name: cgroup.pod_name.clone(),
        namespace: cgroup.namespace.clone(),
        container_name: cgroup.container_name.clone(),
        restart: cgroup.restart,
        limit_bytes: cgroup.limit_bytes,
        usage_bytes: cgroup.usage_bytes,
        histograms: cgroup.histograms.clone(),
        histogram_losses: cgroup.histogram_losses,
        ..Cgroup::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: &[(&str, u64, u64)]) -> Report {
        let row = |(region, live, charged): &(&str, u64, u64)| StackRow {
            kind: "anon".to_owned(),
            region: (*region).to_owned(),
            comm: "java".to_owned(),
            frames: vec!["main".to_owned()],
            live: *live,
            charged: *charged,
            ..StackRow::default()
        };
        let cgroup = Cgroup { path: "/a".to_owned(), id: "1".to_owned(), stacks: rows.iter().map(row).collect(), ..Cgroup::default() };
        Report { cgroups: vec![cgroup], ..Report::default() }
    }

    fn charged(before: &Report, after: &Report) -> Vec<(String, u64)> {
        let report = between(Some(before), after, Value::Charged).report;
        report.cgroups.iter().flat_map(|cgroup| &cgroup.stacks).map(|row| (row.region.clone(), row.charged)).collect()
    }

    #[test]
    fn what_is_freed_is_not_charged_again() {
        // What is live has its region; the charges of what is free again have none.
        let before = report(&[("heap", 1000, 1000)]);
        assert_eq!(charged(&before, &report(&[("heap", 100, 100), ("other", 0, 900)])), []);
        assert_eq!(charged(&before, &report(&[("heap", 300, 300), ("other", 0, 900)])), [("heap".to_owned(), 200)]);
        assert_eq!(charged(&before, &report(&[("jit", 500, 500), ("heap", 100, 100), ("other", 0, 900)])), [("other".to_owned(), 500)]);
    }
}
