//! From tables, readings and names to a report. Reads nothing from the kernel; everything comes in.

use super::{
    filter::Filter,
    retired::{self, Retired},
    start::Running,
};
use crate::{
    bpf::{stats::Estimate, tables::Swept},
    cgroup::{
        CgroupId, Hierarchy, Registry, StatReading, Version, container,
        local::{self, LocalFigures, Node},
        registry::State,
        stat::{Figures, Limit},
    },
    kernel::facts::Facts,
    ledger::{self, Account, growth::Slope},
    model::{Cgroup, Cost, KindRow, PlanRow, Report, SCHEMA, Sampling, StackRow, Table},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, OwnerTotals, Sample},
    kind::Kind,
    process::ProcessRecord,
    stack::StackRecord,
};

/// A stack in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Outermost first.
    pub frames: Vec<String>,
    /// "complete", "cut: REASON" or "none".
    pub status: String,
}

/// Turns addresses into names. One for all stacks of a report; looks things up as they are asked for.
pub trait Symbols {
    /// A user stack of a process; `None` is a stack that does not exist.
    fn user(&mut self, process: &ProcessRecord, stack: Option<&StackRecord>) -> Resolved;
    /// A kernel stack, outermost first, without the `_[k]` that outputs know it by.
    fn kernel(&mut self, stack: &StackRecord) -> Vec<String>;
    /// The name of a process by now: that of its first charge may be older than its exec.
    fn comm(&mut self, process: &ProcessRecord) -> String;
    /// Whether that image of the process is known to be gone.
    fn is_gone(&mut self, process: &ProcessRecord) -> bool;
}

/// Everything that a report is made from.
pub struct Inputs<'a> {
    /// Host.
    pub facts: &'a Facts,
    /// Where memory cgroups are.
    pub hierarchy: &'a Hierarchy,
    /// Their names.
    pub registry: &'a Registry,
    /// Which are wanted.
    pub filter: &'a Filter,
    /// The kernel half's plan and settings.
    pub running: &'a Running,
    /// The kernel's figures, children before parents.
    pub readings: &'a [(CgroupId, StatReading)],
    /// Keys by identity.
    pub keys: &'a HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: &'a HashMap<u64, Sample>,
    /// What the sweep found, by slot.
    pub swept: &'a HashMap<u64, Swept>,
    /// Stacks by identity.
    pub stacks: &'a HashMap<u64, StackRecord>,
    /// Processes by identity.
    pub processes: &'a HashMap<u64, ProcessRecord>,
    /// Exact totals by owner; empty where the tier keeps none.
    pub totals: &'a HashMap<u64, OwnerTotals>,
    /// Losses by cause.
    pub losses: BTreeMap<String, Option<u64>>,
    /// Keys that left the kernel's tables.
    pub retired: &'a Retired,
    /// What the programs ran, if that was ever measured.
    pub programs: Option<Estimate>,
    /// Growth of each kind.
    pub slopes: &'a HashMap<(CgroupId, String), Slope>,
    /// Wall clock at the start.
    pub started: SystemTime,
    /// Monotonic clock at the start.
    pub started_ns: u64,
    /// Monotonic clock now.
    pub now_ns: u64,
}

/// Makes the report.
pub fn report(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> Report {
    let unmapped = unmapped_by_key(inputs);
    let mut accounts = ledger::accounts(inputs.keys, &unmapped);
    for (row, charged) in inputs.retired.rows() {
        if let Some(kind) = u8::try_from(row.kind).ok().and_then(Kind::from_number) {
            let account = accounts.entry((row.owner, kind)).or_default();
            account.charged += charged.bytes;
            account.charged_variance += charged.variance;
            account.samples += charged.samples;
        }
    }
    let tree = Tree::new(inputs, &accounts);
    let mut stacks = stacks_by_owner(inputs, symbols);
    let mut ids: HashSet<CgroupId> = inputs.readings.iter().map(|(id, _)| *id).collect();
    ids.extend(accounts.keys().map(|(owner, _)| CgroupId(*owner)).filter(|id| wanted(inputs, *id)));
    let mut cgroups: Vec<Cgroup> =
        ids.into_iter().map(|id| cgroup(inputs, &tree, &accounts, stacks.remove(&id.0).unwrap_or_default(), id)).collect();
    cgroups.sort_by(|a, b| size_of_row(b).cmp(&size_of_row(a)).then_with(|| a.path.cmp(&b.path)));
    let duration = inputs.now_ns.saturating_sub(inputs.started_ns);
    let (cpu_percent, rss) = own_cost(duration);
    Report {
        schema: SCHEMA,
        tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
        host: host(inputs.facts, inputs.hierarchy),
        started: rfc3339(inputs.started),
        ended: rfc3339(SystemTime::now()),
        duration_s: duration as f64 / 1e9,
        plan: plan_rows(inputs.running),
        sampling: Sampling {
            mode: if inputs.running.sizes.log2_mean == tracer_common::sampling::MIN_LOG2_MEAN { "exact" } else { "sampled" }.to_owned(),
            mean_bytes: inputs.running.sizes.mean_bytes(),
            samples: inputs.keys.values().filter(|r| r.key.flags & KEY_BASELINE == 0).map(|r| r.samples).sum(),
        },
        cost: Cost {
            bpf_ns: inputs.programs.map(|estimate| estimate.run_ns),
            events: inputs.programs.map(|estimate| estimate.runs),
            cpu_percent,
            collector_rss_bytes: rss,
            map_bytes: inputs.running.sizes.bytes,
            tables: tables(inputs),
        },
        losses: inputs.losses.clone(),
        cgroups,
        oom: Vec::new(),
    }
}

fn tables(inputs: &Inputs<'_>) -> BTreeMap<String, Table> {
    let entries = |name: &str| match name {
        "SAMPLES" => Some(inputs.samples.len()),
        "KEYS" => Some(inputs.keys.len()),
        "STACKS" => Some(inputs.stacks.len()),
        "PROCESSES" => Some(inputs.processes.len()),
        "OWNER_TOTALS" => Some(inputs.totals.len()),
        _ => None,
    };
    let table = |(name, max_entries): (&str, u32)| {
        let entries = entries(name).map(|count| count as u64);
        (name.to_owned(), Table { entries, max_entries: u64::from(max_entries), forced: inputs.running.forced.has(name) })
    };
    inputs.running.sizes.entries().into_iter().filter(|(name, _)| !name.ends_with("FRAMES")).map(table).collect()
}

/// The host as outputs show it.
#[must_use]
pub fn host(facts: &Facts, hierarchy: &Hierarchy) -> crate::model::Host {
    crate::model::Host {
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
            probe: probe.name.to_owned(),
            provider: probe.tier.map_or_else(|| "none".to_owned(), |tier| tier.to_string()),
            note: probe.reasons.join("; "),
        })
        .collect()
}

fn wanted(inputs: &Inputs<'_>, id: CgroupId) -> bool {
    match inputs.registry.get(id) {
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

/// Bytes that each key has charged but not mapped.
fn unmapped_by_key(inputs: &Inputs<'_>) -> HashMap<u64, u64> {
    let mut unmapped = HashMap::new();
    for (slot, swept) in inputs.swept {
        let Some(sample) = inputs.samples.get(slot) else { continue };
        let frames = swept.frames_left.saturating_sub(swept.mapped_frames);
        if sample.key != 0 && frames > 0 {
            *unmapped.entry(sample.key).or_default() += frames.saturating_mul(sample.weight_per_frame);
        }
    }
    unmapped
}

/// What owners have below them.
struct Tree {
    local: HashMap<CgroupId, LocalFigures>,
    children: HashMap<CgroupId, Vec<CgroupId>>,
    /// Sums over dead descendants whose nearest living ancestor this is.
    dead_below: HashMap<(CgroupId, Kind), i64>,
}

impl Tree {
    fn new(inputs: &Inputs<'_>, accounts: &HashMap<(u64, Kind), Account>) -> Tree {
        let nodes: Vec<Node<'_>> = inputs
            .readings
            .iter()
            .map(|(id, reading)| Node { id: *id, parent: inputs.registry.get(*id).and_then(|c| c.parent), reading })
            .collect();
        let local = local::local_figures(&nodes, None);
        let mut children: HashMap<CgroupId, Vec<CgroupId>> = HashMap::new();
        for cgroup in inputs.registry.iter() {
            if let Some(parent) = cgroup.parent {
                children.entry(parent).or_default().push(cgroup.id);
            }
        }
        let mut dead_below = HashMap::new();
        for ((owner, kind), account) in accounts {
            let dead = |cgroup: &&crate::cgroup::registry::Cgroup| matches!(cgroup.state, State::Dead { .. });
            let mut line = inputs.registry.ancestry(CgroupId(*owner)).peekable();
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

fn cgroup(inputs: &Inputs<'_>, tree: &Tree, accounts: &HashMap<(u64, Kind), Account>, stacks: Vec<StackRow>, id: CgroupId) -> Cgroup {
    let reading = inputs.readings.iter().find(|(other, _)| *other == id).map(|(_, reading)| reading);
    let known = inputs.registry.get(id);
    let identity = known.and_then(|cgroup| container::identify(&cgroup.path));
    let alive = known.is_none_or(|cgroup| cgroup.state == State::Alive) && reading.is_some();
    let figures = reading.map(|r| if r.version == Version::V1 { &r.local } else { &r.subtree });
    let whole = reading.map(|r| &r.subtree);
    Cgroup {
        path: inputs.registry.name(id),
        id: id.0.to_string(),
        state: if alive { "alive" } else { "dead" }.to_owned(),
        pod: identity.as_ref().and_then(|i| i.pod.clone()),
        container: identity.as_ref().and_then(|i| i.container.clone()),
        restart: None,
        limit_bytes: reading.and_then(|r| r.limit).and_then(Limit::bytes),
        usage_bytes: reading.and_then(|r| r.usage),
        working_set_bytes: reading.and_then(StatReading::working_set),
        kinds: kinds(inputs, tree, accounts, reading, id),
        subtree: subtree(inputs, tree, accounts, reading, id),
        uncovered_bytes: reading.and_then(StatReading::uncovered),
        dirty_bytes: figures.and_then(|f| f.dirty),
        writeback_bytes: figures.and_then(|f| f.writeback),
        droppable_bytes: whole.and_then(droppable),
        kubelet_reclaimable_bytes: whole.and_then(|f| f.inactive_file),
        stacks,
        files: Vec::new(),
        regions: Vec::new(),
        histograms: BTreeMap::new(),
        verdicts: Vec::new(),
    }
}

/// Active and inactive file less dirty and writeback. Locked pages are on neither list.
fn droppable(figures: &Figures) -> Option<u64> {
    let lists = figures.active_file?.saturating_add(figures.inactive_file?);
    Some(lists.saturating_sub(figures.dirty?).saturating_sub(figures.writeback?))
}

fn kinds(
    inputs: &Inputs<'_>,
    tree: &Tree,
    accounts: &HashMap<(u64, Kind), Account>,
    reading: Option<&StatReading>,
    id: CgroupId,
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
        let source = figure.map_or("none", |figure| match figure.origin {
            local::Origin::Direct(source) | local::Origin::Difference(source) => source.name(),
        });
        let mut row = ledger::row(&account, figure.map(|f| f.bytes), source, dead, kind);
        row.missed = missed(inputs, id, kind, &account);
        row.growth_bytes_per_s = inputs.slopes.get(&(id, kind.name().to_owned())).and_then(Slope::per_second);
        rows.insert(kind.name().to_owned(), row);
    }
    for (kind, figure) in local.into_iter().flat_map(|figures| &figures.kinds) {
        let source = match figure.origin {
            local::Origin::Direct(source) | local::Origin::Difference(source) => source.name(),
        };
        rows.entry((*kind).to_owned()).or_insert_with(|| KindRow {
            stat: u64::try_from(figure.bytes).ok(),
            source: source.to_owned(),
            growth_bytes_per_s: inputs.slopes.get(&(id, (*kind).to_owned())).and_then(Slope::per_second),
            ..KindRow::default()
        });
    }
    rows
}

/// Exact counters less the samples, where the tier keeps exact counters.
fn missed(inputs: &Inputs<'_>, id: CgroupId, kind: Kind, account: &Account) -> Option<i64> {
    let totals = inputs.totals.get(&id.0)?;
    let exact = totals.charged[kind as usize].wrapping_sub(totals.uncharged[kind as usize]) as i64;
    // Uncharges of older memory are in the counters; the baseline's own are in its account.
    Some(exact - account.live)
}

fn subtree(
    inputs: &Inputs<'_>,
    tree: &Tree,
    accounts: &HashMap<(u64, Kind), Account>,
    reading: Option<&StatReading>,
    id: CgroupId,
) -> BTreeMap<String, KindRow> {
    let mut rows = BTreeMap::new();
    let members = tree.subtree(id);
    let alone = members.len() == 1;
    for kind in Kind::ALL {
        let mut sum = Account::default();
        for member in &members {
            if let Some(account) = accounts.get(&(member.0, kind)) {
                sum.charged += account.charged;
                sum.charged_variance += account.charged_variance;
                sum.live += account.live;
                sum.live_variance += account.live_variance;
                sum.baseline += account.baseline;
                sum.baseline_variance += account.baseline_variance;
                sum.unmapped += account.unmapped;
                sum.samples += account.samples;
            }
        }
        let figure = reading.and_then(|r| r.subtree.kinds.get(kind.name()));
        if figure.is_none() && (alone || sum == Account::default()) {
            continue;
        }
        let stat = figure.and_then(|figure| i64::try_from(figure.bytes).ok());
        let mut row = ledger::row(&sum, stat, figure.map_or("none", |figure| figure.source.name()), None, kind);
        row.growth_bytes_per_s = inputs.slopes.get(&(id, kind.name().to_owned())).and_then(Slope::per_second);
        rows.insert(kind.name().to_owned(), row);
    }
    for (kind, figure) in reading.into_iter().flat_map(|r| &r.subtree.kinds) {
        rows.entry((*kind).to_owned()).or_insert_with(|| KindRow {
            stat: Some(figure.bytes),
            source: figure.source.name().to_owned(),
            growth_bytes_per_s: inputs.slopes.get(&(id, (*kind).to_owned())).and_then(Slope::per_second),
            ..KindRow::default()
        });
    }
    rows
}

/// What tells rows apart: equal code of one process adds up, whatever addresses it ran at, and so does that of processes that are
/// gone and left nothing.
type RowKey = (retired::Row, Option<u32>);

#[derive(Default)]
struct RowSum {
    live: i64,
    live_variance: u64,
    charged: u64,
    samples: u64,
    oldest_ns: Option<u64>,
}

fn stacks_by_owner(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> HashMap<u64, Vec<StackRow>> {
    let mut oldest: HashMap<u64, u64> = HashMap::new();
    for sample in inputs.samples.values().filter(|sample| sample.key != 0) {
        let at = oldest.entry(sample.key).or_insert(sample.charged_ns);
        *at = (*at).min(sample.charged_ns);
    }
    let mut sums: HashMap<RowKey, RowSum> = HashMap::new();
    for (identity, record) in inputs.keys {
        let key = &record.key;
        if key.flags & KEY_BASELINE != 0 || !wanted(inputs, CgroupId(key.owner)) {
            continue;
        }
        let live = ledger::live(record);
        let process = inputs.processes.get(&key.process);
        let pid = process.filter(|process| live != 0 || !symbols.is_gone(process)).map(|process| process.tgid);
        let row = describe(symbols, record, process, inputs.stacks);
        let sum = sums.entry((row, pid)).or_default();
        sum.live += live;
        sum.live_variance += ledger::live_variance(record);
        sum.charged += ledger::charged(record);
        sum.samples += record.samples;
        sum.oldest_ns = [sum.oldest_ns, oldest.get(identity).copied()].into_iter().flatten().min();
    }
    for (row, charged) in inputs.retired.rows().filter(|(row, _)| wanted(inputs, CgroupId(row.owner))) {
        let sum = sums.entry((row.clone(), None)).or_default();
        sum.charged += charged.bytes;
        sum.samples += charged.samples;
    }
    let mut rows: HashMap<u64, Vec<StackRow>> = HashMap::new();
    for ((key, pid), sum) in sums {
        let kind = u8::try_from(key.kind).ok().and_then(Kind::from_number).map_or("unknown", Kind::name);
        rows.entry(key.owner).or_default().push(StackRow {
            kind: kind.to_owned(),
            region: "other".to_owned(),
            pid,
            ns_pid: None,
            comm: key.comm,
            status: key.status,
            frames: key.frames,
            live: u64::try_from(sum.live).unwrap_or(0),
            live_stderr: ledger::standard_error(sum.live_variance),
            charged: sum.charged,
            samples: sum.samples,
            oldest_s: sum.oldest_ns.map(|at| inputs.now_ns.saturating_sub(at) as f64 / 1e9),
        });
    }
    for list in rows.values_mut() {
        list.sort_by(|a, b| {
            (b.live, b.charged).cmp(&(a.live, a.charged)).then_with(|| a.frames.cmp(&b.frames)).then_with(|| a.pid.cmp(&b.pid))
        });
    }
    rows
}

/// A key in words.
pub fn describe(
    symbols: &mut dyn Symbols,
    record: &KeyRecord,
    process: Option<&ProcessRecord>,
    stacks: &HashMap<u64, StackRecord>,
) -> retired::Row {
    let key = &record.key;
    let comm = process.map_or_else(|| "[unknown process]".to_owned(), |process| symbols.comm(process));
    let row = |status: String, frames| retired::Row { owner: key.owner, kind: key.kind, flags: key.flags, comm, status, frames };
    if key.flags & KEY_OWN != 0 {
        return row("none".to_owned(), vec!["[memtrail's own]".to_owned()]);
    }
    let mut resolved = match process {
        Some(process) => symbols.user(process, stacks.get(&key.user_stack)),
        None => Resolved { frames: Vec::new(), status: "none".to_owned() },
    };
    if key.user_stack != 0 && !stacks.contains_key(&key.user_stack) {
        // Counted where it was lost; here it must not pass for a process without a stack.
        resolved.status = "cut: stack lost".to_owned();
    }
    if let Some(stack) = stacks.get(&key.kernel_stack) {
        resolved.frames.extend(symbols.kernel(stack).into_iter().map(|name| format!("{name}_[k]")));
    }
    if resolved.status.starts_with("cut") {
        // Its own root, so that it never merges with a whole stack.
        resolved.frames.insert(0, format!("[{}]", resolved.status));
    }
    row(resolved.status, resolved.frames)
}

/// CPU time of this process over one CPU's time in percent, and its largest resident set in bytes.
fn own_cost(duration_ns: u64) -> (Option<f64>, u64) {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid rusage to write to.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0;
    if failed {
        return (None, peak_resident_bytes());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    let percent = (duration_ns > 0).then(|| 100.0 * cpu / (duration_ns as f64 / 1e9));
    (percent, peak_resident_bytes())
}

/// VmHWM of this process. getrusage's ru_maxrss would keep the peak of the program that exec'd this one.
fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_ascii_whitespace().next());
    line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// RFC 3339 in UTC, to the second. Days to a date: Howard Hinnant's civil_from_days.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = ((seconds / 86400) as i64, seconds % 86400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_218_065), "2026-11-20T23:41:05Z");
    }
}
