//! A running trace: the kernel half, the cgroups, the last readings, and the snapshot that a report is made from.

use super::{
    assemble::{self, Inputs},
    filter::Filter,
    names::{Names, is_gone},
    regions,
    retired::{Charged, Marks, Retired},
    start::{self, Host, Running, StartError, StartOptions},
};
use crate::{
    bpf::{
        BpfError, stats,
        tables::{self, SweepVerdict},
    },
    cgroup::{
        CgroupId, CgroupPath, Hierarchy, Registry, StatReading,
        hierarchy::HierarchyError,
        listing::{Bounds, Listing, list},
        local::{self, LocalFigures, Node},
        monotonic_ns,
        poll::{Poller, default_most_open},
        registry::State,
    },
    date,
    ledger::growth::Slope,
    model::{Interval, IntervalCgroup, Report},
    process::{Feed, FeedOptions},
    symbolize::Symbolizer,
};
use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData, MapError, RingBuf},
};
use std::{collections::HashMap, time::SystemTime};
use tracer_common::{
    event::CgroupEvent,
    loss::Loss,
    settings::{OWNER_REFUSED, OWNER_REFUSED_ALONE, OWNER_WANTED, OwnerFilter},
};

/// Most cgroups known at once, dead ones included.
const MOST_CGROUPS: usize = 65_536;
/// Most dead cgroups kept for the bytes they still own.
const MOST_DEAD: usize = 16_384;
/// Time between two retirements, nanoseconds.
const RETIREMENT_NS: u64 = 5_000_000_000;
/// Longest that one retirement keeps the collector from its readings, nanoseconds, but for the time that the tables take to read.
const RETIREMENT_BUDGET_NS: u64 = 400_000_000;
/// Time between two moments in which the programs' cost is counted, nanoseconds.
const MOMENT_NS: u64 = 5_000_000_000;
/// Longest wait for process records before a report.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Starting.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No memory hierarchy.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// The hierarchy cannot be listed.
    #[error("cannot list the cgroups: {0}")]
    List(std::io::Error),
    /// A pattern without a star that names nothing.
    #[error("no cgroup {0} below {1}: paths are those of the memory hierarchy (`memtrail doctor` shows where it is)")]
    NoSuchCgroup(String, String),
    /// Tables.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// A running trace.
pub struct Session {
    host: Host,
    hierarchy: Hierarchy,
    registry: Registry,
    poller: Poller,
    filter: Filter,
    running: Running,
    ring: RingBuf<MapData>,
    /// Processes and their mappings; `None` where perf events are refused.
    feed: Option<Feed>,
    symbolizer: Symbolizer,
    slopes: HashMap<(CgroupId, String), Slope>,
    usage_slopes: HashMap<CgroupId, Slope>,
    started_ns: u64,
    started: SystemTime,
    /// What each cgroup owned for itself right after counting began.
    first: HashMap<CgroupId, LocalFigures>,
    retired: Retired,
    marks: Marks,
    last_retirement_ns: u64,
    /// Samples whose end the sweep had to make, and those that never got an owner, at the last snapshot.
    pending: u64,
    poll_errors: u64,
    /// Events that did not fit in the ring, as of the last repair.
    refused_events: u64,
    /// What the programs cost, and when that was last looked at.
    moments: stats::Moments,
    last_moment_ns: u64,
    /// Entries of the tables when they were last read.
    occupancy: std::collections::BTreeMap<String, u64>,
}

impl Session {
    /// Starts tracing.
    pub fn start(filter: Filter, mut options: StartOptions) -> Result<Session, SessionError> {
        let host = Host::look()?;
        host.check()?;
        let hierarchy = Hierarchy::find()?;
        let mut registry = Registry::new(hierarchy.hierarchy_id, MOST_CGROUPS);
        registry.repair(&listing(&hierarchy)?);
        for pattern in filter.unmatched(registry.iter().map(|cgroup| &cgroup.path)) {
            if let Some(literal) = pattern.literal() {
                return Err(SessionError::NoSuchCgroup(literal.to_owned(), hierarchy.mount.display().to_string()));
            }
            log::warn!("no cgroup matches {} yet", pattern.as_str());
        }
        let mut poller = Poller::new(&hierarchy, default_most_open());
        options.filtered = !filter.is_open();
        if options.traced_bytes.is_none() && options.filtered {
            options.traced_bytes = limits_of(&filter, &registry, &mut poller);
        }
        // On before anything counts: a process may live shorter than it takes to attach.
        let feed = match Feed::start(FeedOptions::default()) {
            Ok(feed) => Some(feed),
            Err(error) => {
                log::warn!("no process records, so user frames stay unknown: {error}");
                None
            }
        };
        let mut running = start::start(&host, &options, |bpf| write_filter(bpf, &filter, registry.iter().map(|c| (c.id, &c.path))))?;
        let ring = running.bpf.take_map("EVENTS").ok_or(BpfError::Missing("map EVENTS"))?;
        let ring = RingBuf::try_from(ring).map_err(|source| BpfError::Map { name: "EVENTS", source })?;
        // Cgroups made between the first listing and the attachment have no event.
        registry.repair(&listing(&hierarchy)?);
        let mut session = Session {
            host,
            hierarchy,
            registry,
            poller,
            filter,
            running,
            ring,
            feed,
            symbolizer: Names::symbolizer(),
            slopes: HashMap::new(),
            usage_slopes: HashMap::new(),
            started_ns: monotonic_ns(),
            started: SystemTime::now(),
            first: HashMap::new(),
            retired: Retired::default(),
            marks: Marks::default(),
            last_retirement_ns: monotonic_ns(),
            pending: 0,
            poll_errors: 0,
            refused_events: 0,
            moments: stats::Moments::default(),
            last_moment_ns: 0,
            occupancy: std::collections::BTreeMap::new(),
        };
        let readings = session.poll();
        session.first = session.local_figures(&readings);
        session.interval()?;
        Ok(session)
    }

    /// Where memory cgroups are.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// What a recording begins with.
    #[must_use]
    pub fn header(&self) -> crate::recording::Header {
        crate::recording::Header {
            tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
            schema: crate::model::SCHEMA,
            host: assemble::host(&self.host.facts, &self.hierarchy),
            started: date::rfc3339(self.started),
        }
    }

    /// The running kernel half.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The running kernel half, for what changes it: pictures.
    pub fn running_mut(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Patterns that still match nothing.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        self.filter.unmatched(self.registry.iter().map(|c| &c.path)).iter().map(|p| p.as_str().to_owned()).collect()
    }

    /// Takes events in. To be called often enough that the ring does not fill; what did not fit is counted and repaired from a listing.
    pub fn drain_events(&mut self) -> Result<(), SessionError> {
        // What did not fit in the ring has no event: the listing tells.
        let refused = tables::losses(&self.running.bpf)?.into_iter().find(|(cause, _)| *cause == Loss::RingFull);
        let refused = refused.map_or(0, |(_, count)| count.events);
        let mut repair = refused != self.refused_events;
        self.refused_events = refused;
        let mut decided = Vec::new();
        while let Some(item) = self.ring.next() {
            // The ring holds only this one type; anything shorter is not ours.
            let Some(event) = read_event(&item) else { continue };
            repair |= self.registry.apply(&event);
            if event.hierarchy == self.hierarchy.hierarchy_id
                && let Some(cgroup) = self.registry.get(CgroupId(event.id))
            {
                decided.push((cgroup.id, cgroup.path.clone()));
            }
        }
        if repair {
            self.registry.repair(&listing(&self.hierarchy)?);
            decided = self.registry.iter().map(|cgroup| (cgroup.id, cgroup.path.clone())).collect();
        }
        if !self.filter.is_open() {
            write_filter(&mut self.running.bpf, &self.filter, decided.iter().map(|(id, path)| (*id, path)))?;
        }
        Ok(())
    }

    /// One point of the series: reads every wanted cgroup.
    pub fn interval(&mut self) -> Result<Interval, SessionError> {
        self.drain_events()?;
        let readings = self.poll();
        let at_ns = monotonic_ns();
        let at_s = seconds(at_ns.saturating_sub(self.started_ns));
        let mut interval = Interval { at_s, clocks: clocks(), ..Interval::default() };
        for (id, reading) in &readings {
            let kinds: std::collections::BTreeMap<String, u64> =
                reading.subtree.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect();
            for (kind, bytes) in &kinds {
                self.slopes.entry((*id, kind.clone())).or_default().add(at_s, *bytes as f64);
            }
            if let Some(usage) = reading.usage {
                self.usage_slopes.entry(*id).or_default().add(at_s, usage as f64);
            }
            interval.cgroups.insert(id.0.to_string(), IntervalCgroup { usage_bytes: reading.usage, kinds, ..IntervalCgroup::default() });
        }
        if at_ns.saturating_sub(self.last_retirement_ns) > RETIREMENT_NS {
            self.last_retirement_ns = at_ns;
            self.retire()?;
        }
        // The first moment comes with the first interval after the start, so that short recordings have one.
        if at_ns.saturating_sub(self.last_moment_ns) > MOMENT_NS && at_ns > self.started_ns + 500_000_000 {
            self.last_moment_ns = at_ns;
            self.moments.observe(&self.running.bpf);
        }
        interval.tables = self.occupancy.clone();
        interval.losses = self.losses()?;
        Ok(interval)
    }

    /// Takes what nobody needs any more out of the kernel's tables, and pins the processes that own live bytes.
    fn retire(&mut self) -> Result<(), SessionError> {
        let began_ns = monotonic_ns();
        // What has nothing live now may have had when an open picture was taken.
        if tables::control(&self.running.bpf)?.open_pictures != 0 {
            return Ok(());
        }
        let keys = tables::keys(&self.running.bpf)?;
        let stacks = tables::stacks(&self.running.bpf)?;
        let processes = tables::processes(&self.running.bpf)?;
        let read_ns = monotonic_ns();
        self.occupancy = [("KEYS", keys.len()), ("STACKS", stacks.len()), ("PROCESSES", processes.len())]
            .map(|(name, entries)| (name.to_owned(), entries as u64))
            .into();
        let feed = self.feed.as_ref();
        if let Some(feed) = feed {
            let mut registry = feed.registry();
            registry.clear_pins();
            for record in keys.values() {
                if let Some(process) = processes.get(&record.key.process) {
                    registry.pin(process.tgid, process.first_seen_ns);
                }
            }
        }
        let leaving = self.marks.pass(&keys, &stacks, &processes, |process| is_gone(feed, process), monotonic_ns());
        let mut names = Names::new(feed, &mut self.symbolizer);
        let mut left = 0;
        for identity in &leaving.keys {
            // Naming stacks may take long; those that are over now leave at the next interval, with their marks as old as they are.
            if monotonic_ns().saturating_sub(began_ns) > RETIREMENT_BUDGET_NS {
                self.last_retirement_ns = 0;
                break;
            }
            left += 1;
            // Read again at the removal: a charge may have come since the pass.
            let Some(record) = tables::take_key(&mut self.running.bpf, *identity)? else { continue };
            let row = assemble::describe(&mut names, &record, processes.get(&record.key.process), &stacks);
            let charged = Charged { bytes: crate::ledger::charged(&record), variance: record.charged_variance, samples: record.samples };
            self.retired.add(row, charged);
        }
        tables::remove(&mut self.running.bpf, "STACKS", &leaving.stacks)?;
        tables::remove(&mut self.running.bpf, "PROCESSES", &leaving.processes)?;
        log::debug!(
            "retirement: {} keys, {} stacks, {} processes read in {} us; {}, {} and {} left in {} us more",
            keys.len(),
            stacks.len(),
            processes.len(),
            read_ns.saturating_sub(began_ns) / 1000,
            left,
            leaving.stacks.len(),
            leaving.processes.len(),
            monotonic_ns().saturating_sub(read_ns) / 1000
        );
        Ok(())
    }

    /// The report as of now.
    pub fn report(&mut self) -> Result<Report, SessionError> {
        self.drain_events()?;
        if let Some(feed) = &self.feed {
            // Names of processes that began a moment ago; without them their frames would be unknown.
            if !feed.settle(SETTLE) {
                log::warn!("process records are behind: some names may be missing");
            }
        }
        // A folio may wait in a CPU's batch: the sweep settles those, and finds what is charged but not mapped.
        let slots: Vec<u64> = tables::samples(&self.running.bpf)?.keys().copied().collect();
        let swept = tables::sweep(&mut self.running.bpf, slots.into_iter())?;
        self.pending = swept.values().filter(|s| s.verdict == SweepVerdict::Pending).count() as u64;
        let readings = self.poll();
        let keys = tables::keys(&self.running.bpf)?;
        let samples = tables::samples(&self.running.bpf)?;
        let stacks = tables::stacks(&self.running.bpf)?;
        let processes = tables::processes(&self.running.bpf)?;
        let members = self.members(&readings);
        let surveys = regions::read(
            &regions::Tables { keys: &keys, samples: &samples, processes: &processes },
            &members,
            self.feed.as_ref().map(Feed::opened_files),
        );
        let totals = tables::owner_totals(&self.running.bpf)?;
        let owning: std::collections::HashSet<u64> =
            keys.values().filter(|record| crate::ledger::live(record) > 0).map(|record| record.key.owner).collect();
        self.registry.retain_dead(|id| owning.contains(&id.0), MOST_DEAD);
        let inputs = Inputs {
            facts: &self.host.facts,
            hierarchy: &self.hierarchy,
            registry: &self.registry,
            filter: &self.filter,
            running: &self.running,
            readings: &readings,
            first: &self.first,
            keys: &keys,
            samples: &samples,
            swept: &swept,
            stacks: &stacks,
            processes: &processes,
            totals: &totals,
            retired: &self.retired,
            losses: self.losses()?,
            surveys: &surveys,
            programs: self.moments.estimate(monotonic_ns().saturating_sub(self.started_ns)),
            slopes: &self.slopes,
            started: self.started,
            started_ns: self.started_ns,
            now_ns: monotonic_ns(),
        };
        Ok(assemble::report(&inputs, &mut Names::new(self.feed.as_ref(), &mut self.symbolizer)))
    }

    /// Processes of the wanted cgroups. One that moves meanwhile may be seen twice: the later one stands.
    fn members(&self, readings: &[(CgroupId, StatReading)]) -> HashMap<u32, CgroupId> {
        let mut members = HashMap::new();
        for (id, _) in readings {
            let Some(cgroup) = self.registry.get(*id) else { continue };
            // A cgroup that went meanwhile has none; a threaded one on v2 tells none.
            let procs = std::fs::read_to_string(self.hierarchy.directory(&cgroup.path).join("cgroup.procs")).unwrap_or_default();
            members.extend(procs.lines().filter_map(|line| Some((line.parse().ok()?, *id))));
        }
        members
    }

    fn local_figures(&self, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, LocalFigures> {
        let parent = |id| self.registry.get(id).and_then(|cgroup| cgroup.parent);
        let nodes: Vec<Node<'_>> = readings.iter().map(|(id, reading)| Node { id: *id, parent: parent(*id), reading }).collect();
        local::local_figures(&nodes, None)
    }

    fn poll(&mut self) -> Vec<(CgroupId, StatReading)> {
        let wanted: Vec<(CgroupId, CgroupPath)> = self
            .registry
            .iter()
            .filter(|cgroup| cgroup.state == State::Alive && self.filter.wants(&cgroup.path))
            .map(|cgroup| (cgroup.id, cgroup.path.clone()))
            .collect();
        let poll = self.poller.poll(wanted.iter().map(|(id, path)| (*id, path)));
        self.poll_errors += poll.errors.len() as u64;
        for (id, error) in &poll.errors {
            log::warn!("cgroup {}: {error}", self.registry.name(*id));
        }
        poll.readings
    }

    fn losses(&self) -> Result<std::collections::BTreeMap<String, Option<u64>>, BpfError> {
        let mut losses: std::collections::BTreeMap<String, Option<u64>> =
            tables::losses(&self.running.bpf)?.into_iter().map(|(cause, count)| (cause.name().to_owned(), Some(count.events))).collect();
        let counters = self.registry.counters();
        losses.insert("cgroups_refused".to_owned(), Some(counters.refused));
        losses.insert("dead_cgroups_forgotten".to_owned(), Some(counters.forgotten));
        losses.insert("cgroup_read_errors".to_owned(), Some(self.poll_errors));
        losses.insert("retired_rows_folded".to_owned(), Some(self.retired.folded));
        losses.insert("samples_without_owner".to_owned(), Some(self.pending));
        if let Some(feed) = &self.feed {
            let counters = feed.registry().counters();
            losses.insert("process_records".to_owned(), Some(counters.lost_records));
        }
        losses.insert("recursion_misses".to_owned(), stats::recursion_misses(&self.running.bpf));
        Ok(losses)
    }
}

fn listing(hierarchy: &Hierarchy) -> Result<Listing, SessionError> {
    list(&hierarchy.mount, Bounds::default()).map_err(SessionError::List)
}

/// Tells the kernel half what is decided: wanted subtrees, those in which nothing can ever match, and cgroups that do not match though
/// one below them may. What finds no room stays undecided: recorded, and left out of the report.
fn write_filter<'a>(bpf: &mut Ebpf, filter: &Filter, cgroups: impl Iterator<Item = (CgroupId, &'a CgroupPath)>) -> Result<(), BpfError> {
    if filter.is_open() {
        return Ok(());
    }
    let failed = |source| BpfError::Map { name: "OWNERS", source };
    let map = bpf.map_mut("OWNERS").ok_or(BpfError::Missing("map OWNERS"))?;
    let mut map = BpfHashMap::<_, u64, OwnerFilter>::try_from(map).map_err(failed)?;
    // Wanted ones first: only those without room may be undecided that do not matter.
    let (wanted, others): (Vec<_>, Vec<_>) = cgroups.partition(|(_, path)| filter.wants(path));
    for (id, path) in wanted.into_iter().chain(others) {
        let verdict = if filter.wants(path) {
            OWNER_WANTED
        } else if filter.refuses_below(path) {
            OWNER_REFUSED
        } else {
            OWNER_REFUSED_ALONE
        };
        match map.insert(id.0, OwnerFilter { verdict, log2_thinning: 0 }, 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                log::debug!("the filter's table is full: cgroup {} stays undecided", id.0);
            }
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

/// Most that the wanted cgroups can hold: the sum of the limits of those that match themselves; `None` if one has no limit.
fn limits_of(filter: &Filter, registry: &Registry, poller: &mut Poller) -> Option<u64> {
    let mut sum = 0_u64;
    let mut any = false;
    for cgroup in registry.iter().filter(|cgroup| filter.wants(&cgroup.path)) {
        let parent_wanted = cgroup.path.parent().is_some_and(|parent| filter.wants(&parent));
        if parent_wanted {
            continue;
        }
        any = true;
        let limit = poller.read_one(cgroup.id, &cgroup.path).ok().flatten()?.limit?.bytes()?;
        sum = sum.saturating_add(limit);
    }
    any.then_some(sum)
}

fn read_event(bytes: &[u8]) -> Option<CgroupEvent> {
    if bytes.len() < size_of::<CgroupEvent>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a value of this plain type; the read does not need alignment.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Monotonic, boot-clock and real nanoseconds of one moment.
fn clocks() -> [u64; 3] {
    [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, libc::CLOCK_REALTIME].map(crate::collector::clock_ns)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
