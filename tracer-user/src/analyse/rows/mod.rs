//! From tables, readings and names to a report. Reads nothing from the kernel; everything comes in.

mod cgroups;
mod cost;
mod dirtied;
mod files;
mod limits;
mod mappings;
mod regions;
mod stacks;
mod threads;

pub use cost::CpuTimes;
pub use mappings::Mapped;
pub use stacks::describe;

use crate::{
    analyse::{
        accounts::{self, Account, growth::Slope},
        verdicts,
    },
    cgroup::{CgroupId, Hierarchy, Registry, StatReading, local::LocalFigures, registry::REMOVED},
    containers::Book,
    files::Resolver,
    host::kernel::facts::Facts,
    kernel_half::{
        probes::ProbeId,
        stack::Stack,
        stats::Estimate,
        tables::{Swept, TableId},
    },
    output::json,
    report::{
        self, BinaryRow, Cgroup, Cost, KindRow, Migration, PlanRow, Report, SCHEMA, Sampling, Table,
        distribution::{Distribution, LIVE_AGE},
    },
    text::date,
};
use crate::{
    kernel_half::start::Running,
    trace::{
        dirtied::Dirtied,
        filter::Filter,
        follow::Following,
        histograms::{self, Histograms},
        regions::Surveys,
        retired::Retired,
    },
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};
use tracer_common::{
    FRAME_BYTES,
    attribution::{KEY_BASELINE, KeyRecord, OwnerTotals, Sample},
    dirty::{DirtyKey, DirtyRecord},
    file::FileRecord,
    kind::Kind,
    process::ProcessRecord,
};

/// A stack in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// Outermost first.
    pub frames: Vec<String>,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
}

/// Turns addresses into names. One for all stacks of a report; looks things up as they are asked for.
pub trait Symbols {
    /// A user stack of a process; `None` is a stack that does not exist.
    fn user(&mut self, process: &ProcessRecord, stack: Option<&Stack>) -> Resolved;
    /// A kernel stack, outermost first, without the `_[k]` that outputs know it by.
    fn kernel(&mut self, stack: &Stack) -> Vec<String>;
    /// The name of a process by now: that of its first charge may be older than its exec.
    fn comm(&mut self, process: &ProcessRecord) -> String;
    /// The name of one of its threads, if it still runs and ran at that moment (monotonic nanoseconds) already.
    fn thread(&mut self, process: &ProcessRecord, tid: u32, at_ns: u64) -> Option<String>;
    /// Whether that image of the process is known to be gone.
    fn is_gone(&mut self, process: &ProcessRecord) -> bool;
    /// The files in which frames were found so far, and the kernel.
    fn binaries(&self) -> Vec<BinaryRow>;
}

/// What recording costs so far, `duration_ns` after counting began: CPU time over one CPU's time in percent, largest resident set in
/// bytes.
#[must_use]
pub fn cost_so_far(cpu: CpuTimes, duration_ns: u64) -> (Option<f64>, Option<u64>) {
    (CpuTimes { reporting: crate::host::clock::process_cpu_ns(), ..cpu }.percent(duration_ns), cost::peak_resident_bytes())
}

/// Everything that a report is made from.
pub struct Inputs<'a> {
    /// Host.
    pub facts: &'a Facts,
    /// Where memory cgroups are.
    pub hierarchy: &'a Hierarchy,
    /// Their names.
    pub registry: &'a Registry,
    /// What they are called by those who run them.
    pub names: &'a Book,
    /// Figures of cgroups that are not wanted, but above one that is.
    pub above: &'a HashMap<CgroupId, StatReading>,
    /// Which are wanted.
    pub filter: &'a Filter,
    /// Whose charges are recorded; everyone's if there is none.
    pub following: &'a Following,
    /// The kernel half's plan and settings.
    pub running: &'a Running,
    /// The kernel's figures, children before parents.
    pub readings: &'a [(CgroupId, StatReading)],
    /// What each cgroup owned for itself right after counting began.
    pub first: &'a HashMap<CgroupId, LocalFigures>,
    /// Keys by identity.
    pub keys: &'a HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: &'a HashMap<u64, Sample>,
    /// What the sweep found, by slot.
    pub swept: &'a HashMap<u64, Swept>,
    /// Stacks by identity.
    pub stacks: &'a HashMap<u64, Stack>,
    /// Processes by identity.
    pub processes: &'a HashMap<u64, ProcessRecord>,
    /// Files by identity.
    pub files: &'a HashMap<u64, FileRecord>,
    /// Exact totals by owner; empty where the tier keeps none.
    pub totals: &'a HashMap<u64, OwnerTotals>,
    /// Losses by cause.
    pub losses: BTreeMap<String, Option<u64>>,
    /// Who made page cache dirty.
    pub dirtied: &'a HashMap<DirtyKey, DirtyRecord>,
    /// The same of those that left the kernel's tables.
    pub dirtied_before: &'a Dirtied,
    /// Dirty and writeback bytes of each cgroup at its first reading.
    pub unwritten_first: &'a HashMap<CgroupId, u64>,
    /// Keys that left the kernel's tables.
    pub retired: &'a Retired,
    /// Processes' regions, and where samples are in them.
    pub surveys: &'a Surveys,
    /// Distributions, and what found no room in them, by cgroup.
    pub histograms: &'a Histograms,
    /// Likewise.
    pub histogram_losses: &'a HashMap<u64, u64>,
    /// Who mapped what; `None` where that is not followed.
    pub mapped: Option<&'a Mapped>,
    /// What the programs ran, if that was ever measured.
    pub programs: Option<Estimate>,
    /// Least dirty and writeback bytes of the last readings.
    pub sustained: &'a HashMap<CgroupId, u64>,
    /// Growth of each kind.
    pub slopes: &'a HashMap<(CgroupId, String), Slope>,
    /// Frames that the kernel has moved since then; `None` where it does not count them.
    pub moved_frames: Option<u64>,
    /// Wall clock at the start.
    pub started: SystemTime,
    /// Monotonic clock at the start.
    pub started_ns: u64,
    /// Monotonic clock when the report began.
    pub reporting_ns: u64,
    /// Monotonic clock now.
    pub now_ns: u64,
    /// CPU time of this process at the start and when the report began.
    pub cpu: CpuTimes,
}

impl Inputs<'_> {
    /// The kernel's figures of a wanted cgroup that is alive.
    fn read(&self, id: CgroupId) -> Option<&StatReading> {
        self.readings.iter().find(|(other, _)| *other == id).map(|(_, reading)| reading)
    }
}

/// What the samples say, by owner and kind.
type Accounts = HashMap<(u64, Kind), Account>;

/// Makes the report.
pub fn report(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> Report {
    let unmapped = stacks::unmapped_by_key(inputs);
    let mut accounts = accounts::accounts(inputs.keys, &unmapped);
    for (row, charged) in inputs.retired.rows() {
        if let Some(kind) = u8::try_from(row.kind).ok().and_then(Kind::from_number) {
            let account = accounts.entry((row.owner, kind)).or_default();
            account.charged += charged.bytes;
            account.charged_variance += charged.variance;
            account.samples += charged.samples;
        }
    }
    let tree = cgroups::Tree::new(inputs, &accounts);
    let dirtied = dirtied::Parts::new(inputs);
    let mut files_by_owner = files::by_owner(inputs, symbols, &mut Resolver::new(), &dirtied);
    let mut stacks_by_owner = stacks::by_owner(inputs, symbols, &files::paths(inputs, &files_by_owner));
    let mut regions_by_owner = regions::by_owner(inputs, symbols);
    let mut mappings_by_owner = mappings::by_owner(inputs, symbols);
    let ages = live_ages(inputs);
    let mut ids: HashSet<CgroupId> = inputs.readings.iter().map(|(id, _)| *id).collect();
    ids.extend(accounts.keys().map(|(owner, _)| CgroupId(*owner)).filter(|id| wanted(inputs, *id)));
    ids.extend(regions_by_owner.keys().map(|owner| CgroupId(*owner)));
    let mut cgroups: Vec<Cgroup> = ids
        .into_iter()
        .map(|id| {
            let mut row = cgroups::row(inputs, &tree, &accounts, stacks_by_owner.remove(&id.0).unwrap_or_default(), id);
            row.limits = limits::of(inputs, id);
            row.files = files_by_owner.remove(&id.0).unwrap_or_default();
            files::set_owner(&mut row);
            dirtied.describe_cgroup(inputs, symbols, id, &mut row);
            let shown = regions_by_owner.remove(&id.0).unwrap_or_default();
            (row.regions, row.arenas) = (shown.regions, shown.arenas);
            row.histograms = inputs.histograms.of(id.0);
            row.histograms.extend(ages.get(&id.0).and_then(Distribution::row).map(|ages| (LIVE_AGE.to_owned(), ages)));
            row.histogram_losses = inputs.histogram_losses.get(&id.0).copied().unwrap_or(0);
            row.mappings = mappings_by_owner.as_mut().map(|rows| rows.remove(&id.0).unwrap_or_default());
            row
        })
        .collect();
    cgroups.sort_by(|a, b| size_of_row(b).cmp(&size_of_row(a)).then_with(|| a.path.cmp(&b.path)));
    limits::settle(&mut cgroups);
    let duration = inputs.now_ns.saturating_sub(inputs.started_ns);
    let mut report = Report {
        schema: SCHEMA,
        tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
        host: host(inputs.facts, inputs.hierarchy),
        started: date::rfc3339(inputs.started),
        ended: date::rfc3339(SystemTime::now()),
        duration_s: duration as f64 / 1e9,
        filter: report::Filter { pids: inputs.following.tgids().collect() },
        plan: plan_rows(inputs.running),
        sampling: Sampling {
            mode: if inputs.running.sizes.log2_mean == tracer_common::sampling::MIN_LOG2_MEAN { "exact" } else { "sampled" }.to_owned(),
            mean_bytes: inputs.running.sizes.mean_bytes(),
            samples: inputs.keys.values().filter(|r| r.key.flags & KEY_BASELINE == 0).map(|r| r.samples).sum(),
        },
        cost: Cost {
            bpf_ns: inputs.programs.map(|estimate| estimate.run_ns),
            events: inputs.programs.map(|estimate| estimate.runs),
            cpu_percent: inputs.cpu.percent(inputs.reporting_ns.saturating_sub(inputs.started_ns)),
            start_cpu_ms: Some(inputs.cpu.start_ms()),
            report_cpu_ms: Some(inputs.cpu.report_ms()),
            collector_rss_bytes: cost::peak_resident_bytes(),
            map_bytes: inputs.running.sizes.bytes,
            tables: tables(inputs),
        },
        migration: migration(inputs),
        losses: inputs.losses.clone(),
        binaries: json::binaries_of(&symbols.binaries(), &cgroups),
        cgroups,
        oom: Vec::new(),
        oom_loops: None,
        mapping: inputs.mapped.map(|mapped| mapped.summary.clone()),
        surveyed: regions::surveyed(inputs),
    };
    verdicts::conclude(&mut report);
    report
}

/// Rows of the owners of the keys, with their files and regions and without stacks: evidence of one moment, such as an OOM kill.
pub fn evidence(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> Vec<(CgroupId, Cgroup)> {
    let accounts = accounts::accounts(inputs.keys, &HashMap::new());
    let tree = cgroups::Tree::new(inputs, &accounts);
    let dirtied = dirtied::Parts::new(inputs);
    let mut files_by_owner = files::by_owner(inputs, symbols, &mut Resolver::new(), &dirtied);
    let mut regions_by_owner = regions::by_owner(inputs, symbols);
    let owners: HashSet<u64> = accounts.keys().map(|(owner, _)| *owner).chain(regions_by_owner.keys().copied()).collect();
    let row = |owner: u64| {
        let mut row = cgroups::row(inputs, &tree, &accounts, Vec::new(), CgroupId(owner));
        row.files = files_by_owner.remove(&owner).unwrap_or_default();
        let shown = regions_by_owner.remove(&owner).unwrap_or_default();
        (row.regions, row.arenas) = (shown.regions, shown.arenas);
        (CgroupId(owner), row)
    };
    owners.into_iter().map(row).collect()
}

/// Ages of what was charged since the start and is live, by owner.
fn live_ages(inputs: &Inputs<'_>) -> HashMap<u64, Distribution> {
    let of = |sample: &Sample| {
        let key = inputs.keys.get(&sample.key).filter(|record| record.key.flags & KEY_BASELINE == 0)?;
        let pages = u64::try_from(sample.frames_left).ok()? * (sample.weight_per_frame / FRAME_BYTES);
        Some((key.key.owner, sample.charged_ns, pages))
    };
    histograms::live_ages(inputs.samples.values().filter_map(of), inputs.now_ns)
}

fn migration(inputs: &Inputs<'_>) -> Migration {
    let tier = inputs.running.attached.tier(ProbeId::Migrate);
    let followed = match tier {
        Some(tier) if tier.is_typed() => "all",
        Some(_) => "mapped",
        None => "none",
    };
    Migration { moved_bytes: inputs.moved_frames.map(|frames| frames * FRAME_BYTES), followed: followed.to_owned() }
}

fn tables(inputs: &Inputs<'_>) -> BTreeMap<String, Table> {
    let entries = |table: TableId| match table {
        TableId::Samples => Some(inputs.samples.len()),
        TableId::Keys => Some(inputs.keys.len()),
        TableId::Stacks => Some(inputs.stacks.len()),
        TableId::Processes => Some(inputs.processes.len()),
        TableId::Files => Some(inputs.files.len()),
        TableId::OwnerTotals => Some(inputs.totals.len()),
        TableId::Dirtied => Some(inputs.dirtied.len()),
        TableId::Histograms => Some(inputs.histograms.counters()),
        TableId::Mappings => inputs.mapped.map(|mapped| mapped.records.len()),
        _ => None,
    };
    let table = |(table, max_entries): (TableId, u32)| {
        let entries = entries(table).map(|count| count as u64);
        (table.name().to_owned(), Table { entries, max_entries: u64::from(max_entries), forced: inputs.running.forced.has(table) })
    };
    let planned = inputs.running.sizes.entries().filter(|(table, _)| !table.is_of_frames()).map(table);
    let waits = inputs.histograms.waits().map(|(name, threads, room)| {
        (name.to_owned(), Table { entries: Some(threads as u64), max_entries: u64::from(room), forced: false })
    });
    planned.chain(waits).collect()
}

/// The host as outputs show it.
#[must_use]
pub fn host(facts: &Facts, hierarchy: &Hierarchy) -> crate::report::Host {
    crate::report::Host {
        kernel: facts.release.clone(),
        cpus: facts.cpus_online,
        cgroup: hierarchy.kind_label.to_owned(),
        page_size: facts.page_size,
    }
}

/// The plan as outputs show it.
#[must_use]
pub fn plan_rows(running: &Running) -> Vec<PlanRow> {
    running
        .attached
        .iter()
        .map(|probe| PlanRow {
            probe: probe.id.name().to_owned(),
            provider: probe.tier.map_or_else(|| "none".to_owned(), |tier| tier.to_string()),
            note: probe.reasons.join("; "),
        })
        .collect()
}

/// Whether a cgroup is in the report.
pub fn wanted(inputs: &Inputs<'_>, id: CgroupId) -> bool {
    match inputs.registry.get(id) {
        // Only wanted ones are in it.
        None if id == REMOVED => true,
        Some(cgroup) => inputs.filter.wants(&cgroup.path),
        // A cgroup without a name cannot be matched; without a filter it is shown by its number.
        None => inputs.filter.is_open(),
    }
}

fn size_of_row(cgroup: &Cgroup) -> u64 {
    let sum = |rows: &BTreeMap<String, KindRow>| {
        rows.values().map(|row| row.stat.or(row.live.map(|l| l + row.baseline.unwrap_or(0))).unwrap_or(0)).sum()
    };
    cgroup.usage_bytes.unwrap_or_else(|| sum(&cgroup.kinds))
}
