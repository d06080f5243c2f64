//! A cgroup's row: its figures by kind, for itself and with what is below it.

use super::Accounts;
use crate::{
    analyse::accounts::{self, Account},
    cgroup::{
        CgroupId, StatReading, Version,
        history::{self, Point},
        local::{self, LocalFigures, Node},
        registry::State,
        stat::{Figures, Limit},
    },
    report::{Cgroup, KindRow, ProcessRow, StackRow, Trend},
    snapshot::{CgroupNames, Counts, Known, Snapshot, SurveyedProcess},
    text::escape,
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::{FRAME_BYTES, kind::Kind};

/// What owners have below them.
pub(super) struct Tree {
    local: HashMap<CgroupId, LocalFigures>,
    children: HashMap<CgroupId, Vec<CgroupId>>,
    /// Sums over dead descendants whose nearest living ancestor this is.
    dead_below: HashMap<(CgroupId, Kind), i64>,
}

impl Tree {
    pub(super) fn new(snapshot: &Snapshot, accounts: &Accounts) -> Tree {
        let nodes: Vec<Node<'_>> = snapshot
            .cgroups
            .readings
            .iter()
            .map(|(id, reading)| Node { id: *id, parent: snapshot.cgroups.get(*id).and_then(|c| c.parent), reading })
            .collect();
        let local = local::local_figures(&nodes);
        let mut children: HashMap<CgroupId, Vec<CgroupId>> = HashMap::new();
        for cgroup in snapshot.cgroups.known.values() {
            if let Some(parent) = cgroup.parent {
                children.entry(parent).or_default().push(cgroup.id);
            }
        }
        let mut dead_below = HashMap::new();
        for ((owner, kind), account) in accounts {
            let dead = |cgroup: &&Known| matches!(cgroup.state, State::Dead { .. });
            let mut line = snapshot.cgroups.ancestry(CgroupId(*owner)).peekable();
            if line.peek().is_some_and(dead)
                && let Some(heir) = line.find(|cgroup| !dead(cgroup))
            {
                let held =
                    account.baseline + account.live - if *kind == Kind::Anon { i64::try_from(account.unmapped).unwrap_or(0) } else { 0 };
                *dead_below.entry((heir.id, *kind)).or_default() += held;
            }
        }
        Tree { local, children, dead_below }
    }

    /// The cgroup and everything below it.
    fn subtree(&self, id: CgroupId) -> Vec<CgroupId> {
        let mut found = vec![id];
        let mut next = 0;
        while let Some(id) = found.get(next).copied() {
            found.extend(self.children.get(&id).into_iter().flatten());
            next += 1;
        }
        found
    }
}

/// The row of one cgroup.
pub(super) fn row(snapshot: &Snapshot, tree: &Tree, accounts: &Accounts, stacks: Vec<StackRow>, id: CgroupId) -> Cgroup {
    let reading = snapshot.cgroups.read(id);
    let known = snapshot.cgroups.get(id);
    let CgroupNames { pod_uid, container, runtime, pod, namespace, name, image, restart } =
        known.map(|cgroup| cgroup.names.clone()).unwrap_or_default();
    let alive = known.is_none_or(|cgroup| cgroup.state == State::Alive) && reading.is_some();
    let figures = reading.map(|r| if r.version == Version::V1 { &r.local } else { &r.subtree });
    let whole = reading.map(|r| &r.subtree);
    let growths = growths(snapshot, id);
    Cgroup {
        path: snapshot.cgroups.name(id),
        id: id.0.to_string(),
        state: if alive { "alive" } else { "dead" }.to_owned(),
        dead_for_s: known.and_then(|cgroup| dead_for_s(cgroup.state, snapshot.taken.now_ns)),
        pod: pod_uid,
        container,
        pod_name: text(pod),
        namespace: text(namespace),
        container_name: text(name),
        image: text(image),
        runtime,
        restart,
        limit_bytes: reading.and_then(|r| r.limit).and_then(Limit::bytes),
        limits: Vec::new(),
        binding_limit: None,
        usage_bytes: reading.and_then(|r| r.usage),
        working_set_bytes: reading.and_then(StatReading::working_set),
        trend: trend(snapshot, id, Point::usage).filter(|_| alive),
        mean_bytes: mean_bytes(accounts, id),
        kinds: kinds(snapshot, tree, accounts, reading, id, &growths),
        subtree: subtree(snapshot, tree, accounts, reading, id, &growths),
        uncovered_bytes: reading.and_then(StatReading::uncovered),
        dirty_bytes: figures.and_then(|f| f.dirty),
        writeback_bytes: figures.and_then(|f| f.writeback),
        dirtied_bytes: None,
        dirtied_stderr: None,
        dirtied_bytes_per_s: None,
        cleaned_bytes_per_s: None,
        dirty_held_ns: None,
        dirty_held: None,
        dirty_sustained_bytes: snapshot.cgroups.sustained.get(&id).copied(),
        droppable_bytes: whole.and_then(droppable),
        kubelet_reclaimable_bytes: whole.and_then(|f| f.inactive_file),
        active_file_bytes: whole.and_then(|f| f.active_file),
        peak_bytes: snapshot.charges.peaks.get(&id.0).map(|peak| u64::try_from(peak.top as i64).unwrap_or(0)),
        peak_at_s: snapshot.charges.peaks.get(&id.0).map(|peak| peak.at_ns.saturating_sub(snapshot.taken.started_ns) as f64 / 1e9),
        kernel_peak_bytes: snapshot.cgroups.kernel_peaks.get(&id).copied(),
        unevictable_bytes: whole.and_then(|f| f.unevictable),
        anon_huge_bytes: whole.and_then(|f| f.anonymous_huge),
        lazily_freed_bytes: whole.and_then(lazily_freed),
        refaulted_bytes: since_start(snapshot, id, |counts| counts.refaulted_pages).map(|pages| pages.saturating_mul(FRAME_BYTES)),
        high_bytes: reading.and_then(|r| r.high).and_then(Limit::bytes),
        high_events: since_start(snapshot, id, |counts| counts.high),
        processes: processes(snapshot, id),
        stacks,
        files: Vec::new(),
        regions: Vec::new(),
        mappings: None,
        arenas: Vec::new(),
        histograms: BTreeMap::new(),
        histogram_losses: 0,
        verdicts: Vec::new(),
    }
}

/// As outputs may show what somebody else has chosen.
fn text(name: Option<String>) -> Option<String> {
    name.map(|name| escape(&name))
}

/// What a sample of the cgroup's charges stands for on average.
fn mean_bytes(accounts: &Accounts, id: CgroupId) -> Option<u64> {
    let sum: Account = Kind::ALL.iter().filter_map(|kind| accounts.get(&(id.0, *kind))).copied().sum();
    sum.charged.checked_div(sum.samples)
}

/// Since the removal itself: a listing that noticed it later does not say when it was.
fn dead_for_s(state: State, now_ns: u64) -> Option<f64> {
    match state {
        State::Dead { at_ns, exact: true } => Some(now_ns.saturating_sub(at_ns) as f64 / 1e9),
        _ => None,
    }
}

/// Page cache that is on a list, less dirty and writeback. Locked pages are on none. What was freed lazily is on these lists too.
fn droppable(figures: &Figures) -> Option<u64> {
    let lists = figures.active_file?.saturating_add(figures.inactive_file?);
    let file = figures.kinds.get("file").map_or(u64::MAX, |figure| figure.bytes);
    Some(lists.min(file).saturating_sub(figures.dirty?).saturating_sub(figures.writeback?))
}

/// What the lists of page cache are longer than page cache is.
fn lazily_freed(figures: &Figures) -> Option<u64> {
    let lists = figures.active_file?.saturating_add(figures.inactive_file?);
    Some(lists.saturating_sub(figures.kinds.get("file")?.bytes))
}

/// How often something happened since the start.
fn since_start(snapshot: &Snapshot, id: CgroupId, count: impl Fn(&Counts) -> Option<u64>) -> Option<u64> {
    let now = Counts::of(snapshot.cgroups.read(id)?);
    Some(count(&now)?.saturating_sub(count(snapshot.cgroups.first_counts.get(&id)?)?))
}

/// The processes of a cgroup that hold something of what a row tells.
fn processes(snapshot: &Snapshot, id: CgroupId) -> Vec<ProcessRow> {
    let of_cgroup = snapshot.surveys.processes.iter().filter(|process| process.owner == Some(id));
    let row = |process: &SurveyedProcess| ProcessRow {
        pid: process.tgid,
        comm: process.comm.clone(),
        anon_huge_bytes: process.held.anonymous_huge,
        huge_pages_read: process.held.probed.map(|probed| probed.pages),
        huge_pages_zero: process.held.probed.map(|probed| probed.zero),
        lazily_freed_bytes: process.held.lazily_freed,
        locked_bytes: process.held.locked,
        pinned_bytes: process.held.pinned,
        hugetlb_bytes: process.held.hugetlb,
    };
    let sum = |row: &ProcessRow| -> u64 {
        let parts = [row.anon_huge_bytes, row.lazily_freed_bytes, row.locked_bytes, row.pinned_bytes, row.hugetlb_bytes];
        parts.into_iter().flatten().fold(0, u64::saturating_add)
    };
    let mut rows: Vec<ProcessRow> = of_cgroup.map(row).filter(|row| sum(row) > 0).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(sum(row)), row.pid));
    rows
}

fn kinds(
    snapshot: &Snapshot,
    tree: &Tree,
    accounts: &Accounts,
    reading: Option<&StatReading>,
    id: CgroupId,
    growths: &HashMap<&'static str, f64>,
) -> BTreeMap<String, KindRow> {
    let mut rows = BTreeMap::new();
    let local = tree.local.get(&id);
    for kind in Kind::ALL {
        let account = accounts.get(&(id.0, kind)).copied().unwrap_or_default();
        let figure = local.and_then(|figures| figures.kinds.get(kind.name()));
        if figure.is_none() && account == Account::default() {
            continue;
        }
        // On v1 a dead cgroup keeps its own figures; v2 shows them in its nearest living ancestor.
        let dead = match reading {
            Some(reading) if reading.version == Version::V2 => {
                tree.dead_below.get(&(id, kind)).map(|bytes| u64::try_from(*bytes).unwrap_or(0))
            }
            _ => None,
        };
        let stat = figure.map(|figure| figure.bytes);
        let mut row = accounts::row(&account, stat, figure.map_or("none", |figure| source_of(figure.origin)), dead, kind);
        row.missed = missed(snapshot, id, kind, stat, &account);
        leave_others_unknown(snapshot, &mut row);
        row.growth_bytes_per_s = growths.get(kind.name()).copied();
        rows.insert(kind.name().to_owned(), row);
    }
    let others = local.into_iter().flat_map(|figures| &figures.kinds);
    add_unfollowed(growths, &mut rows, others.map(|(kind, figure)| (*kind, u64::try_from(figure.bytes).ok(), source_of(figure.origin))));
    rows
}

/// Where processes are followed, the kernel's figure holds others' memory too, which nobody has looked at. What was there before, what
/// of it is not mapped, and so what is left of the identity, are not known then.
fn leave_others_unknown(snapshot: &Snapshot, row: &mut KindRow) {
    if snapshot.tracing.followed.is_empty() {
        return;
    }
    row.baseline = None;
    row.baseline_stderr = None;
    row.dead_below = None;
    row.missed = None;
    row.unattributed = None;
}

fn source_of(origin: local::Origin) -> &'static str {
    match origin {
        local::Origin::Direct(source) | local::Origin::Difference(source) => source.name(),
    }
}

/// Growth by kind, of the cgroup with what is below it: that is what is read.
fn growths(snapshot: &Snapshot, id: CgroupId) -> HashMap<&'static str, f64> {
    history::KINDS.into_iter().filter_map(|kind| Some((kind, trend(snapshot, id, |point| point.kind(kind))?.bytes_per_s?))).collect()
}

/// How a figure of a cgroup's readings changes at present.
fn trend(snapshot: &Snapshot, id: CgroupId, figure: impl Fn(&Point) -> Option<u64>) -> Option<Trend> {
    let readings = snapshot.cgroups.recent.get(&id)?.iter().filter_map(|point| Some((point.at_s, figure(point)?)));
    accounts::trend::of(&readings.collect::<Vec<_>>())
}

/// Kinds of which only the kernel's own figure is known.
fn add_unfollowed<'a>(
    growths: &HashMap<&'static str, f64>,
    rows: &mut BTreeMap<String, KindRow>,
    figures: impl Iterator<Item = (&'a str, Option<u64>, &'a str)>,
) {
    for (kind, stat, source) in figures {
        rows.entry(kind.to_owned()).or_insert_with(|| KindRow {
            stat,
            source: source.to_owned(),
            growth_bytes_per_s: growths.get(kind).copied(),
            ..KindRow::default()
        });
    }
}

/// Change of the kernel's figure since counting began, less that of the exact counters, which count the end of older memory too;
/// `None` where the tier keeps no such counters, or the kernel no figure. Where the figure holds what removed cgroups below have left, so do the
/// counters: theirs were handed over.
fn missed(snapshot: &Snapshot, id: CgroupId, kind: Kind, stat: Option<i64>, account: &Account) -> Option<i64> {
    if !snapshot.tracing.totals {
        return None;
    }
    // A cgroup made since then began empty.
    let first = match snapshot.cgroups.first.get(&id) {
        Some(figures) => *figures.get(kind.name())?,
        None => 0,
    };
    let counted = snapshot.charges.totals.get(&id.0).map_or(0, |totals| totals.net(kind));
    // The figure counts what is mapped, the counters what is charged.
    let unmapped = if kind == Kind::Anon { i64::try_from(account.unmapped).unwrap_or(0) } else { 0 };
    Some(stat? + unmapped - first - counted)
}

fn subtree(
    snapshot: &Snapshot,
    tree: &Tree,
    accounts: &Accounts,
    reading: Option<&StatReading>,
    id: CgroupId,
    growths: &HashMap<&'static str, f64>,
) -> BTreeMap<String, KindRow> {
    let mut rows = BTreeMap::new();
    let members = tree.subtree(id);
    let alone = members.len() == 1;
    for kind in Kind::ALL {
        let sum: Account = members.iter().filter_map(|member| accounts.get(&(member.0, kind))).copied().sum();
        let figure = reading.and_then(|r| r.subtree.kinds.get(kind.name()));
        if figure.is_none() && (alone || sum == Account::default()) {
            continue;
        }
        let stat = figure.and_then(|figure| i64::try_from(figure.bytes).ok());
        let mut row = accounts::row(&sum, stat, figure.map_or("none", |figure| figure.source.name()), None, kind);
        leave_others_unknown(snapshot, &mut row);
        row.growth_bytes_per_s = growths.get(kind.name()).copied();
        rows.insert(kind.name().to_owned(), row);
    }
    let others = reading.into_iter().flat_map(|r| &r.subtree.kinds);
    add_unfollowed(growths, &mut rows, others.map(|(kind, figure)| (*kind, Some(figure.bytes), figure.source.name())));
    rows
}
