//! From a snapshot to the rows of the report. Pure.

pub mod binaries;
mod cgroups;
mod dirtied;
mod files;
mod limits;
mod mappings;
mod regions;
mod stacks;
mod threads;

use crate::{
    analyse::{
        accounts::{self, Account},
        verdicts,
    },
    cgroup::CgroupId,
    report::{
        self, Cgroup, KindRow, Report, SCHEMA, Sampling,
        distribution::{Distribution, LIVE_AGE},
    },
    snapshot::Snapshot,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tracer_common::{
    FRAME_BYTES,
    attribution::{KEY_BASELINE, Sample},
    kind::Kind,
};

/// What the samples say, by owner and kind.
type Accounts = HashMap<(u64, Kind), Account>;

/// The report of a moment, with verdicts. Kills are not in it.
#[must_use]
pub fn report(snapshot: &Snapshot) -> Report {
    let accounts = accounts_of(snapshot);
    let tree = cgroups::Tree::new(snapshot, &accounts);
    let dirtied = dirtied::Parts::new(snapshot);
    let mut files_by_owner = files::by_owner(snapshot, &dirtied);
    let mut stacks_by_owner = stacks::by_owner(snapshot, &files::paths(snapshot, &files_by_owner));
    let mut regions_by_owner = regions::by_owner(snapshot);
    let mut mappings_by_owner = mappings::by_owner(snapshot);
    let ages = live_ages(snapshot);
    let mut ids: HashSet<CgroupId> = snapshot.cgroups.readings.keys().copied().collect();
    ids.extend(accounts.keys().map(|(owner, _)| CgroupId(*owner)).filter(|id| snapshot.cgroups.wanted(*id)));
    ids.extend(regions_by_owner.keys().map(|owner| CgroupId(*owner)));
    let mut cgroups: Vec<Cgroup> = ids
        .into_iter()
        .map(|id| {
            let mut row = cgroups::row(snapshot, &tree, &accounts, stacks_by_owner.remove(&id.0).unwrap_or_default(), id);
            row.limits = limits::of(snapshot, id);
            row.files = files_by_owner.remove(&id.0).unwrap_or_default();
            files::set_owner(&mut row);
            dirtied.describe_cgroup(snapshot, id, &mut row);
            let shown = regions_by_owner.remove(&id.0).unwrap_or_default();
            (row.regions, row.arenas) = (shown.regions, shown.arenas);
            row.histograms = snapshot.cgroups.histograms.get(&id).cloned().unwrap_or_default();
            row.histograms.extend(ages.get(&id.0).and_then(Distribution::row).map(|ages| (LIVE_AGE.to_owned(), ages)));
            row.histogram_losses = snapshot.cgroups.histogram_losses.get(&id).copied().unwrap_or(0);
            row.mappings = mappings_by_owner.as_mut().map(|rows| rows.remove(&id.0).unwrap_or_default());
            row
        })
        .collect();
    cgroups.sort_by(|a, b| size_of_row(b).cmp(&size_of_row(a)).then_with(|| a.path.cmp(&b.path)));
    limits::settle(&mut cgroups);
    let (taken, tracing) = (&snapshot.taken, &snapshot.tracing);
    let mut report = Report {
        schema: SCHEMA,
        tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
        host: snapshot.host.clone(),
        started: taken.started.clone(),
        ended: taken.now.clone(),
        duration_s: taken.seconds_since(taken.started_ns),
        filter: report::Filter { pids: tracing.followed.clone(), command: tracing.command },
        plan: tracing.plan.clone(),
        sampling: Sampling {
            mode: if tracing.exact { "exact" } else { "sampled" }.to_owned(),
            mean_bytes: tracing.mean_bytes,
            samples: snapshot.charges.keys.values().filter(|r| r.key.flags & KEY_BASELINE == 0).map(|r| r.samples).sum(),
        },
        cost: tracing.cost.clone(),
        migration: tracing.migration.clone(),
        losses: tracing.losses.clone(),
        binaries: binaries::of_stacks(&snapshot.names.binaries, &cgroups),
        cgroups,
        oom: Vec::new(),
        oom_loops: None,
        mapping: snapshot.spaces.as_ref().map(|spaces| spaces.summary.clone()),
        surveyed: regions::surveyed(snapshot),
    };
    verdicts::conclude(&mut report);
    report
}

/// What keys and what was retired say, by owner and kind.
fn accounts_of(snapshot: &Snapshot) -> Accounts {
    let unmapped = stacks::unmapped_by_key(snapshot);
    let mut accounts = accounts::accounts(&snapshot.charges.keys, &unmapped);
    for record in snapshot.charges.keys.values() {
        if let Some((bytes, variance)) = snapshot.charges.at_peak(record)
            && let Some(kind) = u8::try_from(record.key.kind).ok().and_then(Kind::from_number)
        {
            let account = accounts.entry((record.key.owner, kind)).or_default();
            account.peak = Some(account.peak.unwrap_or(0) + bytes);
            account.peak_variance += variance;
        }
    }
    for row in &snapshot.charges.retired {
        if let Some(kind) = u8::try_from(row.kind).ok().and_then(Kind::from_number) {
            let account = accounts.entry((row.owner, kind)).or_default();
            account.charged += row.bytes;
            account.charged_variance += row.variance;
            account.samples += row.samples;
            let peak = i64::try_from(snapshot.charges.retired_at_peak(row)).unwrap_or(i64::MAX);
            account.peak = account.peak.map(|bytes| bytes + peak).or((peak > 0).then_some(peak));
        }
    }
    accounts
}

/// Rows of the owners of the keys, with their files and regions and without stacks: evidence of one moment, such as an OOM kill.
#[must_use]
pub fn evidence(snapshot: &Snapshot) -> Vec<(CgroupId, Cgroup)> {
    let accounts = accounts::accounts(&snapshot.charges.keys, &HashMap::new());
    let tree = cgroups::Tree::new(snapshot, &accounts);
    let dirtied = dirtied::Parts::new(snapshot);
    let mut files_by_owner = files::by_owner(snapshot, &dirtied);
    let mut regions_by_owner = regions::by_owner(snapshot);
    let owners: HashSet<u64> = accounts.keys().map(|(owner, _)| *owner).chain(regions_by_owner.keys().copied()).collect();
    let row = |owner: u64| {
        let mut row = cgroups::row(snapshot, &tree, &accounts, Vec::new(), CgroupId(owner));
        row.files = files_by_owner.remove(&owner).unwrap_or_default();
        let shown = regions_by_owner.remove(&owner).unwrap_or_default();
        (row.regions, row.arenas) = (shown.regions, shown.arenas);
        (CgroupId(owner), row)
    };
    owners.into_iter().map(row).collect()
}

/// Ages of what was charged since the start and is live, by owner.
fn live_ages(snapshot: &Snapshot) -> HashMap<u64, Distribution> {
    let of = |sample: &Sample| {
        let key = snapshot.charges.keys.get(&sample.key).filter(|record| record.key.flags & KEY_BASELINE == 0)?;
        let pages = u64::try_from(sample.frames_left).ok()? * (sample.weight_per_frame / FRAME_BYTES);
        Some((key.key.owner, sample.charged_ns, pages))
    };
    let mut ages: HashMap<u64, Distribution> = HashMap::new();
    for (owner, charged_ns, pages) in snapshot.charges.samples.values().filter_map(of) {
        ages.entry(owner).or_default().add_ns(snapshot.taken.now_ns.saturating_sub(charged_ns), pages);
    }
    ages
}

fn size_of_row(cgroup: &Cgroup) -> u64 {
    let sum = |rows: &BTreeMap<String, KindRow>| {
        rows.values().map(|row| row.stat.or(row.live.map(|l| l + row.baseline.unwrap_or(0))).unwrap_or(0)).sum()
    };
    cgroup.usage_bytes.unwrap_or_else(|| sum(&cgroup.kinds))
}
