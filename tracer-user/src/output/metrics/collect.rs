//! From a report, and what was counted beside it, to series.

use super::{FamilyId, Label, Metric, Number, Series, families::Family, owners, owners::Owner};
use crate::analyse::figures;
use crate::report::{Cgroup, Report, distribution::Distribution};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// Most owners with distributions of their own: a native histogram is some hundred bytes.
const MOST_WITH_HISTOGRAMS: usize = 256;
/// Series that one owner has at most without distributions and verdicts: that many owners fit in the bound.
const SERIES_OF_AN_OWNER: usize = 16;
/// Series of the node and of memtrail itself, about.
const OWN_SERIES: usize = 256;

/// Distributions that are told, by name, and their families for containers and the node.
const DISTRIBUTIONS: [(&str, FamilyId, FamilyId); 4] = [
    ("memcg_reclaim_ns", FamilyId::Reclaim, FamilyId::NodeReclaim),
    ("charge_stall_ns", FamilyId::ChargeStall, FamilyId::NodeChargeStall),
    ("high_throttle_ns", FamilyId::HighThrottle, FamilyId::NodeHighThrottle),
    ("dirty_throttle_ns", FamilyId::DirtyThrottle, FamilyId::NodeDirtyThrottle),
];

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most series, about: with more, the smallest owners are folded.
    pub series: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { series: 8192 }
    }
}

/// Kills of one owner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kills {
    /// How many.
    pub count: u64,
    /// Unix time of the last, seconds.
    pub last_s: f64,
    /// By what its autopsy can be asked for.
    pub last_id: String,
}

/// What was counted beside the report.
#[derive(Clone, Debug, Default)]
pub struct Beside<'a> {
    /// Kills by whose processes were the victims.
    pub kills: BTreeMap<Owner, Kills>,
    /// All kills, by what was at its limit.
    pub kills_by_constraint: BTreeMap<String, u64>,
    /// Requests answered, by route and class of status.
    pub requests: BTreeMap<(&'static str, &'static str), u64>,
    /// The last report for which processes were looked into, which verdicts are from, and its age in seconds.
    pub looked: Option<(&'a Report, f64)>,
    /// CPU time of memtrail's own process, seconds.
    pub cpu_s: f64,
}

/// Sums of the cgroups of one owner.
#[derive(Default)]
struct Sum {
    kinds: BTreeMap<String, u64>,
    charged: BTreeMap<String, u64>,
    unattributed: Option<i64>,
    dirty: Option<u64>,
    droppable: Option<u64>,
    /// Room, limit, seconds until it is met: of the cgroup with the least room.
    limit: Option<(u64, u64, Option<f64>)>,
    histograms: BTreeMap<FamilyId, Distribution>,
    /// Of its largest cgroup.
    info: Option<(u64, Vec<Label>)>,
}

/// The series of this moment, by family in the order of the table.
#[must_use]
pub fn collect(report: &Report, beside: &Beside<'_>, options: Options) -> Vec<Metric> {
    let alive = || report.cgroups.iter().filter(|cgroup| cgroup.state != "dead");
    let mut sizes: BTreeMap<Owner, u64> = BTreeMap::new();
    for cgroup in alive() {
        *sizes.entry(Owner::of(cgroup)).or_default() += figures::own_bytes(cgroup).unwrap_or(0);
    }
    let most = options.series.saturating_sub(OWN_SERIES) / SERIES_OF_AN_OWNER;
    let folded = owners::fold(&sizes, most);
    let mut out = Out::default();
    containers(&mut out, report, beside, &folded);
    verdicts(&mut out, beside);
    dead(&mut out, report, &folded, most);
    node(&mut out, report, beside);
    let left_out = folded.iter().filter(|(owner, under)| owner != under).count();
    out.add(FamilyId::ContainersSeen, vec![], folded.len() as u64);
    out.add(FamilyId::ContainersLeftOut, vec![], left_out as u64);
    itself(&mut out, report, beside);
    out.metrics.into_iter().map(|(id, series)| Metric { family: Family::of(id), series }).collect()
}

#[derive(Default)]
struct Out {
    metrics: BTreeMap<FamilyId, Vec<Series>>,
}

impl Out {
    fn add(&mut self, id: FamilyId, labels: Vec<Label>, number: impl Into<Number>) {
        self.metrics.entry(id).or_default().push(Series { labels, number: number.into(), exemplar: Vec::new() });
    }

    /// A figure that may be unknown: then there is no series.
    fn add_known(&mut self, id: FamilyId, labels: Vec<Label>, number: Option<impl Into<Number>>) {
        if let Some(number) = number {
            self.add(id, labels, number);
        }
    }
}

/// A label whose value is not known before.
fn label(name: &'static str, value: &str) -> Label {
    (name, Cow::Owned(value.to_owned()))
}

fn containers(out: &mut Out, report: &Report, beside: &Beside<'_>, folded: &BTreeMap<Owner, Owner>) {
    let mut sums: BTreeMap<&Owner, Sum> = BTreeMap::new();
    let owners: BTreeMap<&str, Owner> =
        report.cgroups.iter().filter(|cgroup| cgroup.state != "dead").map(|cgroup| (cgroup.path.as_str(), Owner::of(cgroup))).collect();
    // What a cgroup has with all below it is not added to that of those below it.
    let is_nested = |cgroup: &Cgroup, owner: &Owner| {
        let above = std::iter::successors(cgroup.path.rsplit_once('/'), |(above, _)| above.rsplit_once('/'));
        above.into_iter().any(|(above, _)| owners.get(above) == Some(owner))
    };
    for cgroup in report.cgroups.iter().filter(|cgroup| cgroup.state != "dead") {
        let owner = Owner::of(cgroup);
        let Some(under) = folded.get(&owner) else { continue };
        let sum = sums.entry(under).or_default();
        sum.add(cgroup);
        if owner == *under {
            sum.add_own(cgroup, is_whole_pod(&owner) || is_nested(cgroup, &owner));
        }
    }
    let mut with_histograms = 0;
    for (owner, sum) in sums {
        let labels = owner.labels();
        let with = |more: Label| [labels.clone(), vec![more]].concat();
        for (kind, bytes) in &sum.kinds {
            out.add(FamilyId::Memory, with(label("kind", kind)), *bytes);
        }
        out.add_known(FamilyId::Unattributed, labels.clone(), sum.unattributed.map(Number::Whole));
        let is_others = !folded.contains_key(owner);
        if is_others {
            // What grows must not shrink when another set of containers is folded.
            continue;
        }
        for (kind, bytes) in &sum.charged {
            out.add(FamilyId::Charged, with(label("kind", kind)), *bytes);
        }
        out.add_known(FamilyId::Dirty, labels.clone(), sum.dirty);
        out.add_known(FamilyId::Droppable, labels.clone(), sum.droppable);
        if let Some((left, limit, reached)) = sum.limit {
            out.add(FamilyId::LimitLeft, labels.clone(), left);
            out.add(FamilyId::Limit, labels.clone(), limit);
            out.add_known(FamilyId::LimitReached, labels.clone(), reached.map(Number::Real));
        }
        if !beside.kills.contains_key(owner) {
            out.add(FamilyId::OomKills, labels.clone(), 0);
        }
        if let Some((_, info)) = sum.info {
            out.add(FamilyId::ContainerInfo, [labels.clone(), info].concat(), 1);
        }
        if !sum.histograms.is_empty() && with_histograms < MOST_WITH_HISTOGRAMS {
            with_histograms += 1;
            for (id, distribution) in sum.histograms {
                out.add(id, labels.clone(), Number::Distribution(Box::new(distribution)));
            }
        }
    }
    for (owner, kills) in &beside.kills {
        let exemplar = vec![label("oom_id", &kills.last_id)];
        let series = Series { labels: owner.labels(), number: kills.count.into(), exemplar };
        out.metrics.entry(FamilyId::OomKills).or_default().push(series);
        out.add(FamilyId::OomLast, owner.labels(), Number::Real(kills.last_s));
    }
}

/// A pod's own cgroup: what is told of a cgroup with all below it is told of its containers.
fn is_whole_pod(owner: &Owner) -> bool {
    matches!(owner, Owner::Pod { container, .. } if container.is_empty())
}

impl Sum {
    /// What may be added up.
    fn add(&mut self, cgroup: &Cgroup) {
        for kind in figures::SHARES_OF_USAGE {
            let Some(row) = cgroup.kinds.get(kind) else { continue };
            if let Some(bytes) = figures::kind_bytes(row).filter(|bytes| *bytes > 0 || row.charged.unwrap_or(0) > 0) {
                *self.kinds.entry(kind.to_owned()).or_default() += bytes;
            }
            if let Some(bytes) = row.unattributed {
                self.unattributed = Some(self.unattributed.unwrap_or(0).saturating_add(bytes));
            }
            if let Some(bytes) = row.charged {
                *self.charged.entry(kind.to_owned()).or_default() += bytes;
            }
        }
    }

    /// What is of one owner alone.
    fn add_own(&mut self, cgroup: &Cgroup, is_told_elsewhere: bool) {
        let sum = |sum: Option<u64>, bytes: Option<u64>| bytes.map_or(sum, |bytes| Some(sum.unwrap_or(0).saturating_add(bytes)));
        if !is_told_elsewhere {
            self.dirty = sum(self.dirty, cgroup.dirty_bytes);
            self.droppable = sum(self.droppable, cgroup.droppable_bytes);
        }
        if let Some(limit) = &cgroup.binding_limit
            && let Some(left) = limit.left_bytes
            && self.limit.is_none_or(|(least, ..)| left < least)
        {
            self.limit = Some((left, limit.limit_bytes, limit.reached_in_s));
        }
        for (name, id, _) in DISTRIBUTIONS {
            if let Some(distribution) = distribution(cgroup, name) {
                self.histograms.entry(id).or_default().merge(&distribution);
            }
        }
        let bytes = figures::own_bytes(cgroup).unwrap_or(0);
        if self.info.as_ref().is_none_or(|(most, _)| bytes > *most) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let labels = [
                ("id", cgroup.path.clone()),
                ("uid", text(&cgroup.pod)),
                ("container_id", text(&cgroup.container)),
                ("image", text(&cgroup.image)),
            ];
            self.info = Some((bytes, labels.map(|(name, value)| (name, Cow::Owned(value))).to_vec()));
        }
    }
}

fn distribution(cgroup: &Cgroup, name: &str) -> Option<Distribution> {
    cgroup.histograms.get(name).and_then(|row| Distribution::decode(row.hdr.as_deref()?)).filter(|distribution| !distribution.is_empty())
}

fn verdicts(out: &mut Out, beside: &Beside<'_>) {
    let Some((report, age_s)) = beside.looked else { return };
    out.add(FamilyId::LookAge, vec![], Number::Real(age_s));
    let mut told = BTreeSet::new();
    for cgroup in &report.cgroups {
        let owner = Owner::of(cgroup);
        // Of the dead, and of those without series of their own, too: there are few verdicts, and each may be why somebody looks.
        told.extend(cgroup.verdicts.iter().map(|verdict| (owner.clone(), verdict.id.as_str(), verdict.severity.as_str())));
    }
    for (owner, id, severity) in told {
        out.add(FamilyId::Verdicts, [owner.labels(), vec![label("verdict", id), label("severity", severity)]].concat(), 1);
    }
}

fn dead(out: &mut Out, report: &Report, folded: &BTreeMap<Owner, Owner>, most: usize) {
    let mut sums: BTreeMap<Owner, BTreeMap<&str, u64>> = BTreeMap::new();
    for cgroup in report.cgroups.iter().filter(|cgroup| cgroup.state == "dead") {
        let owner = Owner::of(cgroup);
        let owner = if folded.len() + sums.len() < most || sums.contains_key(&owner) { owner } else { owner.folded() };
        for kind in figures::SHARES_OF_USAGE {
            if let Some(bytes) = cgroup.kinds.get(kind).and_then(figures::kind_bytes).filter(|bytes| *bytes > 0) {
                *sums.entry(owner.clone()).or_default().entry(kind).or_default() += bytes;
            }
        }
    }
    for (owner, kinds) in sums {
        for (kind, bytes) in kinds {
            out.add(FamilyId::Dead, [owner.labels(), vec![label("kind", kind)]].concat(), bytes);
        }
    }
}

fn node(out: &mut Out, report: &Report, beside: &Beside<'_>) {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut unattributed: Option<i64> = None;
    for cgroup in &report.cgroups {
        for kind in figures::SHARES_OF_USAGE {
            let Some(row) = cgroup.kinds.get(kind) else { continue };
            *kinds.entry(kind).or_default() += figures::kind_bytes(row).unwrap_or(0);
            unattributed = row.unattributed.map_or(unattributed, |bytes| Some(unattributed.unwrap_or(0).saturating_add(bytes)));
        }
    }
    for (kind, bytes) in kinds {
        out.add(FamilyId::NodeMemory, vec![label("kind", kind)], bytes);
    }
    out.add_known(FamilyId::NodeUnattributed, vec![], unattributed.map(Number::Whole));
    for constraint in ["memcg", "none"] {
        if !beside.kills_by_constraint.contains_key(constraint) {
            out.add(FamilyId::NodeOomKills, vec![label("constraint", constraint)], 0);
        }
    }
    for (constraint, count) in &beside.kills_by_constraint {
        out.add(FamilyId::NodeOomKills, vec![label("constraint", constraint)], *count);
    }
    for (name, _, id) in DISTRIBUTIONS {
        let mut sum = Distribution::default();
        report.cgroups.iter().filter_map(|cgroup| distribution(cgroup, name)).for_each(|distribution| sum.merge(&distribution));
        out.add(id, vec![], Number::Distribution(Box::new(sum)));
    }
}

/// What memtrail says of itself.
fn itself(out: &mut Out, report: &Report, beside: &Beside<'_>) {
    for (cause, count) in &report.losses {
        out.add_known(FamilyId::Losses, vec![label("cause", cause)], *count);
    }
    let cost = &report.cost;
    for (name, table) in &cost.tables {
        out.add_known(FamilyId::TableEntries, vec![label("table", name)], table.entries);
        out.add(FamilyId::TableLimit, vec![label("table", name)], table.max_entries);
    }
    out.add(FamilyId::KernelMaps, vec![], cost.map_bytes);
    out.add_known(FamilyId::Resident, vec![], cost.collector_rss_bytes);
    out.add_known(FamilyId::Cpu, vec![label("part", "kernel")], cost.bpf_ns.map(|ns| Number::Real(ns as f64 / 1e9)));
    out.add(FamilyId::Cpu, vec![label("part", "process")], Number::Real(beside.cpu_s));
    out.add(FamilyId::SampleInterval, vec![], report.sampling.mean_bytes);
    for ((route, class), count) in &beside.requests {
        out.add(FamilyId::HttpRequests, vec![label("route", route), label("code", class)], *count);
    }
    for row in &report.plan {
        out.add(FamilyId::ProbeInfo, vec![label("probe", &row.probe), label("provider", &row.provider)], 1);
    }
    let version = report.tool.strip_prefix("memtrail ").unwrap_or(&report.tool);
    out.add(FamilyId::BuildInfo, vec![label("version", version), label("kernel", &report.host.kernel)], 1);
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
