//! A running trace: the kernel half, the cgroups, the last readings, and the snapshot that a report is made from.

use super::{
    assemble::{self, CpuTimes, Inputs},
    filter::Filter,
    follow::{FollowError, Following},
    names::{Names, is_gone},
    oom::{Kills, OomLog},
    phases::Phases,
    rates::Rates,
    regions,
    retired::{Charged, Marks, Retired},
    start::{self, Follow, Host, Running, StartError, StartOptions},
};
use crate::{
    bpf::{
        BpfError, Loader,
        diagnosis::{self, Listener},
        stats,
        tables::{self, SweepVerdict},
    },
    cgroup::{
        CgroupId, CgroupPath, Hierarchy, Registry, StatReading, Version,
        hierarchy::HierarchyError,
        listing::{Bounds, Listing, list},
        local::{self, LocalFigures, Node},
        monotonic_ns,
        poll::{Poll, Poller, default_most_open},
        registry::State,
    },
    date,
    ledger::growth::Slope,
    model::{Interval, IntervalCgroup, Report},
    oom::Autopsy,
    process::{Feed, FeedOptions},
    symbolize::Symbolizer,
};
use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, MapData, MapError, RingBuf},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    os::fd::{AsFd as _, OwnedFd},
    time::SystemTime,
};
use tracer_common::{
    attribution::{KeyRecord, Sample},
    event::{CgroupChange, CgroupEvent},
    file::FileRecord,
    kind::Kind,
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
/// Keys whose stacks are named together in a retirement: many, since a file is read for each batch; but the budget is looked at
/// between two.
const RETIREMENT_BATCH: usize = 512;
/// Time between two moments in which the programs' cost is counted, nanoseconds.
const MOMENT_NS: u64 = 5_000_000_000;
/// Readings over which dirty page cache must last to be more than a burst, and with how few nothing can be said.
const SUSTAINED_READINGS: usize = 5;
const LEAST_SUSTAINED: usize = 3;
/// Most files that are given a place in their table for a report.
const MOST_RENAMED: usize = 1000;
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
    /// A process that cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Tables.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

/// A running trace.
pub struct Session {
    pub(super) host: Host,
    pub(super) hierarchy: Hierarchy,
    pub(super) registry: Registry,
    poller: Poller,
    pub(super) filter: Filter,
    /// Processes that are followed; none if everything is recorded.
    following: Following,
    pub(super) running: Running,
    ring: RingBuf<MapData>,
    /// Hears the kernel half's own messages, if it tells any.
    listener: Option<Listener>,
    /// Looks into processes for their regions.
    surveying: regions::Surveying,
    /// OOM kills so far.
    pub(super) oom: OomLog,
    /// Processes and their mappings; `None` where perf events are refused.
    pub(super) feed: Option<Feed>,
    pub(super) symbolizer: Symbolizer,
    slopes: HashMap<(CgroupId, String), Slope>,
    usage_slopes: HashMap<CgroupId, Slope>,
    /// Dirty and writeback bytes of the last readings, newest last.
    unwritten: HashMap<CgroupId, VecDeque<u64>>,
    pub(super) started_ns: u64,
    started: SystemTime,
    /// `pgmigrate_success` of /proc/vmstat when counting began.
    moved_at_start: Option<u64>,
    /// CPU time used by the start, and when the last report began.
    cpu: CpuTimes,
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
    pub fn start(filter: Filter, options: StartOptions) -> Result<Session, SessionError> {
        Session::start_following(filter, &[], options)
    }

    /// Starts tracing. Where there are `pids`, only what these processes and their later children cause is recorded.
    pub fn start_following(filter: Filter, pids: &[u32], mut options: StartOptions) -> Result<Session, SessionError> {
        let mut phases = Phases::begin();
        let loader = Loader::prepare()?;
        let host = Host::look()?;
        host.check()?;
        phases.end("host looked at");
        let following = Following::find(pids, host.facts.initial_pid_namespace)?;
        if !following.is_empty() {
            options.follow = Follow::Yes;
            following.fits(host.sizes(&options).map_err(StartError::Sizes)?.followed)?;
        }
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
        let readings = poll_wanted(&mut poller, &registry, &filter).readings;
        // On a whole host finer sampling would find more stacks than their table holds. A pattern may match only later.
        options.owners = if filter.is_open() { 0 } else { u32::try_from(readings.len()).unwrap_or(u32::MAX).max(1) };
        let rates = host.rates(&options, &host.sizes(&options).map_err(StartError::Sizes)?);
        let bytes = bytes_of(&local_figures(&registry, &readings));
        if options.traced_bytes.is_none() && options.filtered {
            options.traced_bytes = limits_of(&filter, &registry, &mut poller);
        }
        phases.end("cgroups listed");
        // On before anything counts: a process may live shorter than it takes to attach.
        let feed = match Feed::start(FeedOptions::default()) {
            Ok(feed) => Some(feed),
            Err(error) => {
                log::warn!("no process records, so user frames stay unknown: {error}");
                None
            }
        };
        phases.end("process records on");
        let mut running = start::start(&host, loader, &options, |bpf| {
            following.write(bpf)?;
            write_owners(bpf, &filter, &rates, &bytes, registry.iter().map(|c| (c.id, &c.path)))?;
            let wanted = || registry.iter().filter(|cgroup| filter.wants(&cgroup.path)).map(|cgroup| cgroup.id.0).collect();
            Ok((!filter.is_open()).then(wanted))
        })?;
        following.settle(&mut running.bpf)?;
        phases.end("started");
        let ring = running.bpf.take_map("EVENTS").ok_or(BpfError::Missing("map EVENTS"))?;
        let ring = RingBuf::try_from(ring).map_err(|source| BpfError::Map { name: "EVENTS", source })?;
        let listener = if diagnosis::wanted() { Some(Listener::new(&mut running.bpf)?) } else { None };
        // Cgroups made between the first listing and the attachment have no event.
        registry.repair(&listing(&hierarchy)?);
        let read = |id: CgroupId| poller.read_one(id, &registry.get(id)?.path).ok().flatten();
        let oom = OomLog::start(&mut running.bpf, read, u64::from(host.facts.page_size))?;
        let mut session = Session {
            host,
            hierarchy,
            registry,
            poller,
            filter,
            following,
            running,
            ring,
            listener,
            surveying: regions::Surveying::start().map_err(SessionError::Thread)?,
            oom,
            feed,
            symbolizer: Names::symbolizer(),
            slopes: HashMap::new(),
            usage_slopes: HashMap::new(),
            unwritten: HashMap::new(),
            started_ns: monotonic_ns(),
            started: SystemTime::now(),
            moved_at_start: moved_frames(),
            cpu: CpuTimes { started: assemble::cpu_ns(), reporting: 0 },
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
        session.first = local_figures(&session.registry, &readings);
        session.interval()?;
        phases.end("first figures read");
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

    /// Path of a cgroup, or what stands for it.
    #[must_use]
    pub fn cgroup_name(&self, id: CgroupId) -> String {
        self.registry.name(id)
    }

    /// Seconds since the start.
    #[must_use]
    pub fn elapsed_s(&self) -> f64 {
        seconds(monotonic_ns().saturating_sub(self.started_ns))
    }

    /// What the recording costs so far.
    #[must_use]
    pub fn cost(&self) -> crate::output::stream::Cost {
        let (cpu_percent, collector_rss_bytes) = assemble::cost_so_far(self.cpu, monotonic_ns().saturating_sub(self.started_ns));
        crate::output::stream::Cost { cpu_percent, collector_rss_bytes, map_bytes: self.running.sizes.bytes }
    }

    /// Monotonic, boot-clock and real nanoseconds of this moment.
    #[must_use]
    pub fn clocks(&self) -> [u64; 3] {
        clocks()
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

    /// Tells when an OOM kill has happened; then [`Session::drain_oom`] is to be called.
    pub fn kills(&self) -> std::io::Result<Kills> {
        self.oom.kills()
    }

    /// Patterns that still match nothing.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        self.filter.unmatched(self.registry.iter().map(|c| &c.path)).iter().map(|p| p.as_str().to_owned()).collect()
    }

    /// Readable while events wait: then call [`Session::take_events`].
    pub fn events_fd(&self) -> std::io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// Takes in the events that wait. To be called when there are some: the ring is short.
    pub fn take_events(&mut self) -> Result<(), SessionError> {
        self.drain(false)
    }

    /// The same, and repairs from a listing what did not fit in the ring, which is counted. At each interval.
    pub(super) fn drain_events(&mut self) -> Result<(), SessionError> {
        if let Some(listener) = &mut self.listener {
            listener.listen();
        }
        let refused = tables::losses(&self.running.bpf)?.into_iter().find(|(cause, _)| *cause == Loss::RingFull);
        let refused = refused.map_or(0, |(_, count)| count.events);
        let repair = refused != self.refused_events;
        self.refused_events = refused;
        self.drain(repair)
    }

    fn drain(&mut self, mut repair: bool) -> Result<(), SessionError> {
        let (mut decided, mut removed) = (Vec::new(), Vec::new());
        while let Some(item) = self.ring.next() {
            // The ring holds only this one type; anything shorter is not ours.
            let Some(event) = read_event(&item) else { continue };
            repair |= self.registry.apply(&event);
            if event.change == CgroupChange::Removed as u32 {
                removed.push(event.id);
                continue;
            }
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
        // The new ones have next to nothing yet; with a repair all are told, and have their M at the next reading.
        let decided = decided.iter().map(|(id, path)| (*id, path));
        write_owners(&mut self.running.bpf, &self.filter, &self.running.rates, &HashMap::new(), decided)?;
        // Afterwards: one that was made and removed since the last time is among both.
        forget_owners(&mut self.running.bpf, &removed)?;
        Ok(())
    }

    /// One point of the series: reads every wanted cgroup.
    pub fn interval(&mut self) -> Result<Interval, SessionError> {
        self.drain_events()?;
        // Before the reading: what a kill is compared with is older than it.
        self.drain_oom()?;
        let readings = self.poll();
        self.look_at_owners(&readings)?;
        let at_ns = monotonic_ns();
        let at_s = seconds(at_ns.saturating_sub(self.started_ns));
        self.oom.readings(&readings, at_s);
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
            let figures = if reading.version == Version::V1 { &reading.local } else { &reading.subtree };
            if let (Some(dirty), Some(writeback)) = (figures.dirty, figures.writeback) {
                let last = self.unwritten.entry(*id).or_default();
                last.push_back(dirty.saturating_add(writeback));
                last.drain(..last.len().saturating_sub(SUSTAINED_READINGS));
            }
            interval.cgroups.insert(id.0.to_string(), IntervalCgroup { usage_bytes: reading.usage, kinds, ..IntervalCgroup::default() });
        }
        let read: HashSet<CgroupId> = readings.iter().map(|(id, _)| *id).collect();
        self.unwritten.retain(|id, _| read.contains(id));
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
        for (n, identity) in leaving.keys.iter().enumerate() {
            // Naming stacks may take long; those that are over now leave at the next interval, with their marks as old as they are.
            if monotonic_ns().saturating_sub(began_ns) > RETIREMENT_BUDGET_NS {
                self.last_retirement_ns = 0;
                break;
            }
            if n % RETIREMENT_BATCH == 0 {
                let batch = leaving.keys[n..].iter().take(RETIREMENT_BATCH);
                names.learn(batch.filter_map(|identity| keys.get(identity)), &processes, &stacks);
            }
            left += 1;
            // Read again at the removal: a charge may have come since the pass.
            let Some(record) = tables::take_key(&mut self.running.bpf, *identity)? else { continue };
            let row = assemble::describe(&mut names, &record, processes.get(&record.key.process), &stacks);
            let charged = Charged { bytes: crate::ledger::charged(&record), variance: record.charged_variance, samples: record.samples };
            self.retired.add(row, charged);
        }
        self.retire_files()?;
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

    /// Files of which nothing is live leave their table, once it is half full: finding them takes a look at every sample.
    fn retire_files(&mut self) -> Result<(), SessionError> {
        let files = tables::files(&self.running.bpf)?;
        self.occupancy.insert("FILES".to_owned(), files.len() as u64);
        if files.len() < self.running.sizes.files as usize / 2 {
            return Ok(());
        }
        let named = tables::samples(&self.running.bpf)?.values().map(|sample| sample.file).collect();
        let leaving = self.marks.files(files.into_keys(), &named, monotonic_ns());
        tables::remove(&mut self.running.bpf, "FILES", &leaving)?;
        log::debug!("retirement: {} files left", leaving.len());
        Ok(())
    }

    /// The report as of now.
    pub fn report(&mut self) -> Result<Report, SessionError> {
        let (mut phases, reporting_ns) = (Phases::begin(), monotonic_ns());
        self.cpu.reporting = assemble::cpu_ns();
        self.drain_events()?;
        self.drain_oom()?;
        if let Some(feed) = &self.feed {
            // Names of processes that began a moment ago; without them their frames would be unknown.
            if !feed.settle(SETTLE) {
                log::warn!("process records are behind: some names may be missing");
            }
        }
        phases.end("process records in");
        // A folio may wait in a CPU's batch: the sweep settles those, and finds what is charged but not mapped.
        let slots: Vec<u64> = tables::samples(&self.running.bpf)?.keys().copied().collect();
        let swept = tables::sweep(&mut self.running.bpf, slots.into_iter())?;
        self.pending = swept.values().filter(|s| s.verdict == SweepVerdict::Pending && s.owner != 0).count() as u64;
        phases.end("samples swept");
        let readings = self.poll();
        let keys = tables::keys(&self.running.bpf)?;
        let samples = tables::samples(&self.running.bpf)?;
        let stacks = tables::stacks(&self.running.bpf)?;
        let processes = tables::processes(&self.running.bpf)?;
        let files = self.files_of(&samples)?;
        let members = self.members(&readings);
        let surveys = regions::read(
            &self.surveying,
            &regions::Tables { keys: &keys, samples: &samples, processes: &processes },
            &members,
            self.feed.as_ref().map(Feed::opened_files),
        );
        let totals = tables::owner_totals(&self.running.bpf)?;
        // What a cgroup was charged for is told by its name, also when nothing of it is left.
        let owning: std::collections::HashSet<u64> =
            keys.values().map(|record| record.key.owner).chain(self.retired.rows().map(|(row, _)| row.owner)).collect();
        self.name_the_dead(&keys, &samples)?;
        self.registry.retain_dead(|id| owning.contains(&id.0), MOST_DEAD);
        let sustained = self.unwritten.iter().filter(|(_, last)| last.len() >= LEAST_SUSTAINED);
        let sustained = sustained.filter_map(|(id, last)| Some((*id, *last.iter().min()?))).collect();
        let inputs = Inputs {
            facts: &self.host.facts,
            hierarchy: &self.hierarchy,
            registry: &self.registry,
            filter: &self.filter,
            following: &self.following,
            running: &self.running,
            readings: &readings,
            first: &self.first,
            keys: &keys,
            samples: &samples,
            swept: &swept,
            stacks: &stacks,
            processes: &processes,
            files: &files,
            totals: &totals,
            retired: &self.retired,
            losses: self.losses()?,
            surveys: &surveys,
            programs: self.moments.estimate(monotonic_ns().saturating_sub(self.started_ns)),
            sustained: &sustained,
            slopes: &self.slopes,
            moved_frames: moved_frames().zip(self.moved_at_start).map(|(now, then)| now.saturating_sub(then)),
            started: self.started,
            started_ns: self.started_ns,
            reporting_ns,
            now_ns: monotonic_ns(),
            cpu: self.cpu,
        };
        phases.end("tables read");
        let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
        names.learn(keys.values().filter(|record| assemble::wanted(&inputs, CgroupId(record.key.owner))), &processes, &stacks);
        phases.end("names looked up");
        let mut report = assemble::report(&inputs, &mut names);
        phases.end("report made");
        report.oom = self.autopsies().iter().map(Autopsy::to_value).collect();
        Ok(report)
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

    /// The files of the live samples. Where their table was too small for all, the largest that it does not have take the places of the
    /// smallest: many small files must not hide the one that matters.
    fn files_of(&mut self, samples: &HashMap<u64, Sample>) -> Result<HashMap<u64, FileRecord>, BpfError> {
        let mut files = tables::files(&self.running.bpf)?;
        let mut bytes: HashMap<u64, (u64, u64)> = HashMap::new();
        for (slot, sample) in samples.iter().filter(|(_, sample)| sample.key != 0 && sample.file != 0) {
            let left = sample.weight_per_frame.saturating_mul(u64::try_from(sample.frames_left).unwrap_or(0));
            bytes.entry(sample.file).or_insert((0, *slot)).0 += left;
        }
        let mut unnamed: Vec<(u64, u64)> = bytes.iter().filter(|(file, _)| !files.contains_key(file)).map(|(_, sum)| *sum).collect();
        if unnamed.is_empty() {
            return Ok(files);
        }
        unnamed.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        unnamed.truncate(MOST_RENAMED);
        let mut named: Vec<(u64, u64)> = files.keys().map(|file| (bytes.get(file).map_or(0, |(bytes, _)| *bytes), *file)).collect();
        named.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, slot) in unnamed {
            let Some((_, file)) = named.pop_if(|(smaller, _)| *smaller < bytes) else { break };
            tables::remove(&mut self.running.bpf, "FILES", &[file])?;
            tables::sweep(&mut self.running.bpf, std::iter::once(slot))?;
        }
        // The records that had to leave were read before.
        files.extend(tables::files(&self.running.bpf)?);
        Ok(files)
    }

    /// Owners that no event and no listing named were removed before the start: the kernel knows their names through what is charged
    /// to them.
    fn name_the_dead(&mut self, keys: &HashMap<u64, KeyRecord>, samples: &HashMap<u64, Sample>) -> Result<(), SessionError> {
        let owner_of = |sample: &Sample| keys.get(&sample.key).map(|record| CgroupId(record.key.owner));
        let unknown: HashMap<CgroupId, u64> = samples
            .iter()
            .filter_map(|(slot, sample)| Some((owner_of(sample)?, *slot)))
            .filter(|(owner, _)| self.registry.get(*owner).is_none())
            .collect();
        for slot in unknown.into_values().take(MOST_DEAD) {
            let name = tables::owner_name(&mut self.running.bpf, slot)?;
            self.registry.learn_dead(&name, monotonic_ns());
        }
        Ok(())
    }

    /// Tells the kernel half how large the cgroups are now, which decides how finely they are sampled.
    fn look_at_owners(&mut self, readings: &[(CgroupId, StatReading)]) -> Result<(), SessionError> {
        if self.running.rates.differ() {
            let bytes = bytes_of(&local_figures(&self.registry, readings));
            let cgroups = readings.iter().filter_map(|(id, _)| Some((*id, &self.registry.get(*id)?.path)));
            write_owners(&mut self.running.bpf, &self.filter, &self.running.rates, &bytes, cgroups)?;
        }
        Ok(())
    }

    fn poll(&mut self) -> Vec<(CgroupId, StatReading)> {
        let poll = poll_wanted(&mut self.poller, &self.registry, &self.filter);
        self.poll_errors += poll.errors.len() as u64;
        for (id, error) in &poll.errors {
            log::warn!("cgroup {}: {error}", self.registry.name(*id));
        }
        poll.readings
    }

    /// Losses so far, by cause.
    pub fn losses(&self) -> Result<std::collections::BTreeMap<String, Option<u64>>, BpfError> {
        let mut losses: std::collections::BTreeMap<String, Option<u64>> =
            tables::losses(&self.running.bpf)?.into_iter().map(|(cause, count)| (cause.name().to_owned(), Some(count.events))).collect();
        let counters = self.registry.counters();
        losses.insert("cgroups_refused".to_owned(), Some(counters.refused));
        losses.insert("dead_cgroups_forgotten".to_owned(), Some(counters.forgotten));
        losses.insert("cgroup_read_errors".to_owned(), Some(self.poll_errors));
        losses.insert("retired_rows_folded".to_owned(), Some(self.retired.folded));
        losses.insert("samples_without_owner".to_owned(), Some(self.pending));
        let (kills, victims) = self.oom.lost();
        losses.insert("oom_autopsies_dropped".to_owned(), Some(kills));
        losses.insert("oom_victims_without_kill".to_owned(), Some(victims));
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

/// Reads every wanted cgroup.
fn poll_wanted(poller: &mut Poller, registry: &Registry, filter: &Filter) -> Poll {
    let wanted = registry.iter().filter(|cgroup| cgroup.state == State::Alive && filter.wants(&cgroup.path));
    poller.poll(wanted.map(|cgroup| (cgroup.id, &cgroup.path)))
}

fn local_figures(registry: &Registry, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, LocalFigures> {
    let parent = |id| registry.get(id).and_then(|cgroup| cgroup.parent);
    let nodes: Vec<Node<'_>> = readings.iter().map(|(id, reading)| Node { id: *id, parent: parent(*id), reading }).collect();
    local::local_figures(&nodes, None)
}

/// Bytes of the kinds that are followed.
fn bytes_of(figures: &HashMap<CgroupId, LocalFigures>) -> HashMap<CgroupId, u64> {
    let bytes = |figures: &LocalFigures| {
        let followed = Kind::ALL.iter().filter_map(|kind| figures.kinds.get(kind.name()));
        followed.fold(0_u64, |sum, figure| sum.saturating_add(u64::try_from(figure.bytes).unwrap_or(0)))
    };
    figures.iter().map(|(id, figures)| (*id, bytes(figures))).collect()
}

/// Tells the kernel half what is decided: wanted subtrees, those in which nothing can ever match, and cgroups that do not match though
/// one below them may; and how finely each is sampled, by its bytes. What finds no room stays undecided: recorded with the host's M, and
/// left out of the report.
fn write_owners<'a>(
    bpf: &mut Ebpf,
    filter: &Filter,
    rates: &Rates,
    bytes: &HashMap<CgroupId, u64>,
    cgroups: impl Iterator<Item = (CgroupId, &'a CgroupPath)>,
) -> Result<(), BpfError> {
    if filter.is_open() && !rates.differ() {
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
        let log2_mean = rates.log2_mean(bytes.get(&id).copied().unwrap_or(0));
        match map.insert(id.0, OwnerFilter { verdict, log2_mean, kept: 0 }, 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                log::debug!("the filter's table is full: cgroup {} stays undecided", id.0);
            }
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

/// Makes room in the table: nobody is charged there any more.
fn forget_owners(bpf: &mut Ebpf, removed: &[u64]) -> Result<(), BpfError> {
    let failed = |source| BpfError::Map { name: "OWNERS", source };
    let map = bpf.map_mut("OWNERS").ok_or(BpfError::Missing("map OWNERS"))?;
    let mut map = BpfHashMap::<_, u64, OwnerFilter>::try_from(map).map_err(failed)?;
    removed.iter().try_for_each(|id| match map.remove(id) {
        // Most were never in it.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        result => result.map_err(failed),
    })
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

/// Frames that the kernel has moved to other frames since boot: `pgmigrate_success`, there where pages can be moved at all.
fn moved_frames() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("pgmigrate_success "))?.trim().parse().ok()
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
