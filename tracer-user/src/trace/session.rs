//! A running trace: the kernel half, the cgroups, and the last readings. What a report is made from is in [`super::snapshot`].

use super::{
    capture,
    cost::{self, CpuTimes},
};
use super::{
    dirtied::Dirtied,
    filter::Filter,
    follow::{FollowError, Following},
    histograms::Histograms,
    mappings::Mappings,
    named,
    names::Names,
    oom::killed::OomLog,
    oom::kills::Kills,
    owners, regions,
    retired::{Marks, Retired},
};
use crate::{
    analyse::accounts,
    cgroup::{
        CgroupId, Hierarchy, Registry, StatReading, Version,
        hierarchy::HierarchyError,
        listing::{Bounds, Listing, list},
        local::{self, LocalFigures, Node},
        poll::{Care, Poll, Poller, default_most_open},
        registry::{Cgroup, State},
    },
    containers::KnownNames,
    host::{
        clock::{self, monotonic_ns},
        lock, proc,
    },
    kernel_half::{
        BpfError, Loader,
        diagnosis::{self, Listener},
        events::{self, Ring},
        probes::ProbeId,
        stats,
        tables::{self, TableId},
        unwind::Tables,
    },
    managed::{self, Functions},
    report::{Interval, IntervalCgroup, distribution::Increment},
    snapshot::Counts,
    symbols::Symbolizer,
    text::date,
    unwind::Builder,
};
use crate::{
    host::phases::Phases,
    kernel_half::start::{self, Follow, Host, Running, StartError, StartOptions},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use tracer_common::{
    attribution::KEY_BASELINE,
    event::{CgroupChange, CgroupEvent},
    kind::Kind,
    loss::Loss,
    process::ProcessRecord,
};

/// Most cgroups known at once, dead ones included.
const MOST_CGROUPS: usize = 65_536;
/// Most dead cgroups kept for the bytes they still own.
pub(super) const MOST_DEAD: usize = 16_384;
/// Time between two retirements, nanoseconds.
const RETIREMENT_NS: u64 = 5_000_000_000;
/// The same while a table was a quarter full at the last one: what comes and goes so fast must go as fast as it may.
const RETIREMENT_IN_CHURN_NS: u64 = 1_000_000_000;
/// How long a start waits for the tables of programs that run already.
const LONGEST_SETTLING: std::time::Duration = std::time::Duration::from_millis(500);
/// How long a command waits for the tables by which its stacks are walked.
const LONGEST_PREPARATION: std::time::Duration = std::time::Duration::from_millis(500);
/// Time between two moments in which the programs' cost is counted, nanoseconds.
const MOMENT_NS: u64 = 5_000_000_000;
/// Readings over which dirty page cache must last to be more than a burst.
const SUSTAINED_READINGS: usize = 5;

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
    pub(super) poller: Poller,
    pub(super) filter: Filter,
    /// Names of containers and pods.
    pub(super) names: KnownNames,
    /// Processes that are followed; none if everything is recorded.
    pub(super) following: Following,
    pub(super) running: Running,
    ring: Ring<CgroupEvent>,
    /// Hears the kernel half's own messages, if it tells any.
    listener: Option<Listener>,
    /// Looks into processes for their regions.
    pub(super) surveying: regions::Surveying,
    /// What processes of cgroups close to their limits are like.
    pub(super) ahead: regions::ahead::Ahead,
    /// Who mapped what; `None` where that is not followed.
    pub(super) mappings: Option<Mappings>,
    /// OOM kills so far.
    pub(super) oom: OomLog,
    /// Names of functions.
    pub(super) symbolizer: Symbolizer,
    /// Opens the files that walks meet, and makes the tables by which user stacks are walked.
    pub(super) unwinding: Builder,
    pub(super) runtimes: Arc<Mutex<Functions>>,
    /// It ends with the session.
    _runtimes: managed::listener::Listener,
    /// Dirty and writeback bytes of the last readings, newest last.
    pub(super) unwritten: HashMap<CgroupId, VecDeque<u64>>,
    pub(super) started_ns: u64,
    pub(super) started: SystemTime,
    /// `pgmigrate_success` of /proc/vmstat when counting began.
    pub(super) moved_at_start: Option<u64>,
    /// CPU time used by the start, and when the last report began.
    pub(super) cpu: CpuTimes,
    /// What each cgroup owned for itself right after counting began.
    pub(super) first: HashMap<CgroupId, LocalFigures>,
    pub(super) retired: Retired,
    pub(super) dirtied: Dirtied,
    /// Dirty and writeback bytes at the first reading.
    pub(super) unwritten_first: HashMap<CgroupId, u64>,
    /// Counts of events at the first reading.
    pub(super) first_counts: HashMap<CgroupId, Counts>,
    pub(super) marks: Marks,
    pub(super) histograms: Histograms,
    /// Live bytes are wanted at each interval.
    live_wanted: bool,
    /// What is recorded is the cgroup of a command that memtrail started.
    pub of_command: bool,
    /// How carefully cgroups are read at intervals.
    care: Care,
    pub(super) last_retirement_ns: u64,
    last_poll_ns: u64,
    /// Samples whose end the sweep had to make, and those that never got an owner, at the last snapshot.
    pub(super) pending: u64,
    poll_errors: u64,
    /// Events that did not fit in the ring, as of the last repair.
    refused_events: u64,
    /// What the programs cost, and when that was last looked at.
    pub(super) moments: stats::Moments,
    last_moment_ns: u64,
    /// Entries of the tables when they were last read.
    pub(super) occupancy: std::collections::BTreeMap<String, u64>,
}

impl Session {
    /// Starts tracing.
    pub fn start(filter: Filter, names: KnownNames, options: StartOptions) -> Result<Session, SessionError> {
        Session::start_following(filter, names, &[], options)
    }

    /// Starts tracing. Where there are `pids`, only what these processes and their later children cause is recorded.
    pub fn start_following(
        mut filter: Filter,
        mut names: KnownNames,
        pids: &[u32],
        mut options: StartOptions,
    ) -> Result<Session, SessionError> {
        let mut phases = Phases::begin();
        let loader = Loader::prepare()?;
        let host = Host::look()?;
        host.check()?;
        phases.end("host looked at");
        let following = Following::find(pids, host.facts.initial_pid_namespace)?;
        if !following.is_empty() {
            options.follow = Follow::Yes;
            following.fits(host.sizes(&options).map_err(StartError::Sizes)?.of(TableId::Followed))?;
        }
        let hierarchy = Hierarchy::find()?;
        let mut registry = Registry::new(hierarchy.hierarchy_id, MOST_CGROUPS);
        registry.repair(&listing(&hierarchy)?);
        named::learn_first(&mut names, &mut filter, registry.iter().map(|cgroup| &cgroup.path));
        for name in named::unmatched(&names, &filter, &registry) {
            log::warn!("no cgroup is known to be of {name} yet");
        }
        for pattern in filter.unmatched(registry.iter().map(|cgroup| &cgroup.path)) {
            if let Some(literal) = pattern.literal() {
                return Err(SessionError::NoSuchCgroup(literal.to_owned(), hierarchy.mount.display().to_string()));
            }
            log::warn!("no cgroup matches {} yet", pattern.as_str());
        }
        let mut poller = Poller::new(&hierarchy, default_most_open());
        options.hierarchy = hierarchy.hierarchy_id;
        options.filtered = !filter.is_open();
        let readings = poll_wanted(&mut poller, Care::Whole, &registry, &filter, u64::MAX).readings;
        // On a whole host finer sampling would find more stacks than their table holds. A pattern may match only later.
        options.owners = if filter.is_open() { 0 } else { u32::try_from(readings.len()).unwrap_or(u32::MAX).max(1) };
        if options.traced_bytes.is_none() && options.filtered {
            options.traced_bytes = owners::limits_of(&filter, &registry, &mut poller);
        }
        let rates = host.rates(&options, &host.sizes(&options).map_err(StartError::Sizes)?);
        let bytes = owners::bytes_of(&local_figures(&registry, &readings));
        phases.end("cgroups listed");
        let mut running = start::start(&host, loader, &options, |bpf| {
            following.write(bpf)?;
            owners::write(bpf, &filter, &rates, &bytes, registry.iter().map(|c| (c.id, &c.path)))?;
            let wanted = || registry.iter().filter(|cgroup| filter.wants(&cgroup.path)).map(|cgroup| cgroup.id.0).collect();
            Ok((!filter.is_open()).then(wanted))
        })?;
        following.settle(&mut running.bpf)?;
        phases.end("started");
        let ring = events::cgroup::ring(&mut running.bpf)?;
        let unwinding = unwinding(&mut running)?;
        let runtimes = Arc::new(Mutex::new(Functions::by(events::managed::ring(&mut running.bpf)?)));
        let listening = managed::listener::Listener::start(&runtimes).map_err(SessionError::Thread)?;
        let listener = if diagnosis::wanted() { Some(Listener::new(&mut running.bpf)?) } else { None };
        // Cgroups made between the first listing and the attachment have no event.
        registry.repair(&listing(&hierarchy)?);
        named::learn_first(&mut names, &mut filter, registry.iter().map(|cgroup| &cgroup.path));
        let read = |id: CgroupId| poller.read_one(id, &registry.get(id)?.path).ok().flatten();
        let oom = OomLog::start(&mut running.bpf, read, u64::from(host.facts.page_size))?;
        let followed = running.attached.has(ProbeId::Mapping);
        let mappings = if followed { Some(Mappings::start(&mut running.bpf)?) } else { None };
        let mut session = Session {
            host,
            hierarchy,
            registry,
            poller,
            filter,
            names,
            following,
            running,
            ring,
            listener,
            surveying: regions::Surveying::start().map_err(SessionError::Thread)?,
            ahead: regions::ahead::Ahead::default(),
            mappings,
            oom,
            symbolizer: Names::symbolizer(Arc::clone(&runtimes)),
            unwinding,
            runtimes,
            _runtimes: listening,
            unwritten: HashMap::new(),
            started_ns: monotonic_ns(),
            started: SystemTime::now(),
            moved_at_start: moved_frames(),
            cpu: CpuTimes { started: crate::host::clock::process_cpu_ns(), reporting: 0 },
            first: HashMap::new(),
            retired: Retired::default(),
            dirtied: Dirtied::default(),
            unwritten_first: HashMap::new(),
            first_counts: HashMap::new(),
            marks: Marks::default(),
            histograms: Histograms::default(),
            live_wanted: false,
            of_command: false,
            care: Care::Whole,
            last_retirement_ns: monotonic_ns(),
            last_poll_ns: monotonic_ns(),
            pending: 0,
            poll_errors: 0,
            refused_events: 0,
            moments: stats::Moments::default(),
            last_moment_ns: 0,
            occupancy: std::collections::BTreeMap::new(),
        };
        session.drain_events()?;
        session.drain_oom()?;
        let readings = session.poll();
        session.first = local_figures(&session.registry, &readings);
        session.point(&readings)?;
        phases.end("first figures read");
        if !session.unwinding.settle(LONGEST_SETTLING) {
            log::debug!("not all tables for unwinding are there yet");
        }
        phases.end("tables for unwinding made");
        Ok(session)
    }

    /// Where memory cgroups are.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// What a recording begins with.
    #[must_use]
    pub fn header(&self) -> crate::report::Header {
        crate::report::Header {
            tool: format!("memtrail {}", env!("CARGO_PKG_VERSION")),
            schema: crate::report::SCHEMA,
            host: capture::host(&self.host.facts, &self.hierarchy),
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
    pub fn cost(&self) -> crate::report::RunningCost {
        let (cpu_percent, collector_rss_bytes) = cost::so_far(self.cpu, monotonic_ns().saturating_sub(self.started_ns));
        crate::report::RunningCost { cpu_percent, collector_rss_bytes, map_bytes: self.running.sizes.bytes }
    }

    /// Monotonic, boot-clock and real nanoseconds of this moment.
    #[must_use]
    pub fn clocks(&self) -> [u64; 3] {
        clock::triple()
    }

    /// Has the tables made by which stacks of a program are walked, before it starts. Waits for a moment: what is late then is made while it runs.
    pub fn prepare_for(&self, program: &std::path::Path) {
        if !self.unwinding.prepare(program, LONGEST_PREPARATION) {
            log::debug!("the tables for unwinding {} are late", program.display());
        }
    }

    /// The processes that charged something. Where nobody sees their ends, those that are gone by now have ended.
    pub(super) fn processes(&self) -> Result<HashMap<u64, ProcessRecord>, SessionError> {
        let mut processes = tables::processes(&self.running.bpf)?;
        if !self.running.attached.has(ProbeId::Images) {
            for process in processes.values_mut().filter(|process| !proc::runs_since(process.tgid, process.start_ns)) {
                process.ended_ns = monotonic_ns();
            }
        }
        Ok(processes)
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
        let paths = self.filter.unmatched(self.registry.iter().map(|c| &c.path));
        let mut unmatched: Vec<String> = paths.iter().map(|p| p.as_str().to_owned()).collect();
        unmatched.extend(named::unmatched(&self.names, &self.filter, &self.registry));
        unmatched
    }

    /// Readable while events wait: then call [`Session::take_events`].
    pub fn events_fd(&self) -> std::io::Result<OwnedFd> {
        self.ring.descriptor()
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
        // Each hierarchy counts its ids for itself.
        for event in self.ring.by_ref().filter(|event| event.hierarchy == self.hierarchy.hierarchy_id) {
            repair |= self.registry.apply(&event);
            if event.change == CgroupChange::Removed as u32 {
                removed.push(event.id);
                continue;
            }
            if let Some(cgroup) = self.registry.get(CgroupId(event.id)) {
                decided.push((cgroup.id, cgroup.path.clone()));
            }
        }
        if repair {
            // Whose removal had no room in the ring has to leave its table too. Read before the listing: none of them is younger.
            let known = owners::known(&mut self.running.bpf)?;
            self.registry.repair(&listing(&self.hierarchy)?);
            let lives = |id: &u64| self.registry.get(CgroupId(*id)).is_some_and(|cgroup| cgroup.state == State::Alive);
            removed.extend(known.into_iter().filter(|id| !lives(id)));
            let living = self.registry.iter().filter(|cgroup| cgroup.state == State::Alive);
            decided = living.map(|cgroup| (cgroup.id, cgroup.path.clone())).collect();
        }
        self.take_names_in()?;
        named::learn(&mut self.names, &mut self.filter, decided.iter().map(|(_, path)| path));
        // The new ones have next to nothing yet; with a repair all are told, and have their M at the next reading.
        let decided = decided.iter().map(|(id, path)| (*id, path));
        owners::write(&mut self.running.bpf, &self.filter, &self.running.rates, &HashMap::new(), decided)?;
        // Afterwards: one that was made and removed since the last time is among both.
        owners::forget(&mut self.running.bpf, &removed)?;
        Ok(())
    }

    /// From now on intervals have live bytes, which takes a reading of all keys.
    pub fn want_live(&mut self) {
        self.live_wanted = true;
    }

    /// What came to the distributions since the last call.
    pub fn distributions(&mut self) -> Result<Increment, SessionError> {
        self.histograms.read(&self.running.bpf)?;
        Ok(self.last_distributions())
    }

    /// The same as of the last report, and nothing that came later.
    pub fn last_distributions(&mut self) -> Increment {
        let mut increment = self.histograms.take(self.elapsed_s());
        increment.cgroups.retain(|owner, _| match self.registry.get(CgroupId(*owner)) {
            Some(cgroup) => self.filter.wants(&cgroup.path),
            None => self.filter.is_open(),
        });
        increment
    }

    /// From now on the readings of intervals are skimmed: see [`Care`]. Those of reports stay whole.
    pub fn skim(&mut self) {
        self.care = Care::Skimmed;
    }

    /// One point of the series: reads every wanted cgroup that was there at the point before.
    pub fn interval(&mut self) -> Result<Interval, SessionError> {
        self.drain_events()?;
        // Before the reading: what a kill is compared with is older than it.
        self.drain_oom()?;
        let readings = self.poll_settled();
        self.point(&readings)
    }

    fn point(&mut self, readings: &[(CgroupId, StatReading)]) -> Result<Interval, SessionError> {
        self.name_containers()?;
        self.look_at_owners(readings)?;
        let at_ns = monotonic_ns();
        let at_s = seconds(at_ns.saturating_sub(self.started_ns));
        self.oom.readings(readings, at_s);
        self.look_ahead(readings);
        let mut interval = Interval { at_s, clocks: clock::triple(), ..Interval::default() };
        for (id, reading) in readings {
            let kinds: std::collections::BTreeMap<String, u64> =
                reading.subtree.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect();
            self.first_counts.entry(*id).or_insert_with(|| Counts::of(reading));
            let figures = if reading.version == Version::V1 { &reading.local } else { &reading.subtree };
            if let (Some(dirty), Some(writeback)) = (figures.dirty, figures.writeback) {
                let last = self.unwritten.entry(*id).or_default();
                self.unwritten_first.entry(*id).or_insert(dirty.saturating_add(writeback));
                last.push_back(dirty.saturating_add(writeback));
                last.drain(..last.len().saturating_sub(SUSTAINED_READINGS));
            }
            interval.cgroups.insert(id.0.to_string(), IntervalCgroup { usage_bytes: reading.usage, kinds, ..IntervalCgroup::default() });
        }
        if self.live_wanted {
            self.add_live(&mut interval)?;
        }
        let read: HashSet<CgroupId> = readings.iter().map(|(id, _)| *id).collect();
        self.unwritten.retain(|id, _| read.contains(id));
        self.unwritten_first.retain(|id, _| read.contains(id));
        self.first_counts.retain(|id, _| read.contains(id));
        let pause_ns = if self.is_filling() { RETIREMENT_IN_CHURN_NS } else { RETIREMENT_NS };
        if at_ns.saturating_sub(self.last_retirement_ns) > pause_ns {
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

    /// Adds the live bytes of each cgroup with what is below it, as its other figures are.
    fn add_live(&self, interval: &mut Interval) -> Result<(), SessionError> {
        let mut sums: BTreeMap<(CgroupId, &str), i64> = BTreeMap::new();
        for (_, record) in tables::keys(&self.running.bpf)? {
            let kind = u8::try_from(record.key.kind).ok().and_then(Kind::from_number);
            if let Some(kind) = kind.filter(|_| record.key.flags & KEY_BASELINE == 0) {
                for cgroup in self.registry.ancestry(CgroupId(record.key.owner)) {
                    *sums.entry((cgroup.id, kind.name())).or_default() += accounts::live(&record);
                }
            }
        }
        for ((id, kind), bytes) in sums {
            if let Some(cgroup) = interval.cgroups.get_mut(&id.0.to_string()) {
                // Between two tables that are read one after the other a sum may be short by what moved.
                cgroup.live.insert(kind.to_owned(), u64::try_from(bytes).unwrap_or(0));
            }
        }
        Ok(())
    }

    /// Tells the kernel half how large the cgroups are now, which decides how finely they are sampled.
    fn look_at_owners(&mut self, readings: &[(CgroupId, StatReading)]) -> Result<(), SessionError> {
        if self.running.rates.differ() {
            let bytes = owners::bytes_of(&local_figures(&self.registry, readings));
            let cgroups = readings.iter().filter_map(|(id, _)| Some((*id, &self.registry.get(*id)?.path)));
            owners::write(&mut self.running.bpf, &self.filter, &self.running.rates, &bytes, cgroups)?;
        }
        Ok(())
    }

    /// Reads every wanted cgroup.
    pub(super) fn poll(&mut self) -> Vec<(CgroupId, StatReading)> {
        self.poll_known_by(Care::Whole, u64::MAX)
    }

    /// The same without those that came since the last time: where they come and go by the hundred most are gone before the next time, and
    /// opening the files of a new one costs more than reading an old one's.
    fn poll_settled(&mut self) -> Vec<(CgroupId, StatReading)> {
        let last_ns = std::mem::replace(&mut self.last_poll_ns, monotonic_ns());
        self.poll_known_by(self.care, last_ns)
    }

    fn poll_known_by(&mut self, care: Care, seen_ns: u64) -> Vec<(CgroupId, StatReading)> {
        let poll = poll_wanted(&mut self.poller, care, &self.registry, &self.filter, seen_ns);
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
        losses.extend(self.running.bpf.losses().map(|(cause, count)| (cause.to_owned(), Some(count))));
        let counters = self.registry.counters();
        losses.insert("cgroups_refused".to_owned(), Some(counters.refused));
        losses.insert("dead_cgroups_forgotten".to_owned(), Some(counters.forgotten));
        losses.insert("container_names_refused".to_owned(), Some(self.names.refused()));
        losses.insert("container_names_late".to_owned(), Some(self.names.late()));
        losses.insert("filter_names_refused".to_owned(), Some(self.filter.refused()));
        losses.insert("cgroup_read_errors".to_owned(), Some(self.poll_errors));
        losses.insert("retired_rows_folded".to_owned(), Some(self.retired.folded));
        losses.insert("histograms_forgotten".to_owned(), Some(self.histograms.forgotten()));
        losses.insert("samples_without_owner".to_owned(), Some(self.pending));
        let (kills, victims) = self.oom.lost();
        losses.insert("oom_autopsies_dropped".to_owned(), Some(kills));
        losses.insert("oom_victims_without_kill".to_owned(), Some(victims));
        let files = lock(self.unwinding.files()).counters();
        losses.insert("symbol_file_gone".to_owned(), Some(files.gone));
        losses.insert("symbol_file_refused".to_owned(), Some(files.refused));
        losses.insert("symbol_file_evicted".to_owned(), Some(files.evicted));
        losses.insert("symbol_file_not_tried".to_owned(), Some(files.not_tried));
        if let Some(mappings) = &self.mappings {
            losses.insert("mapping_ranges_dropped".to_owned(), Some(mappings.with(|spaces| spaces.dropped())));
        }
        losses.extend(self.unwinding.counters().losses().map(|(cause, count)| (cause.to_owned(), Some(count))));
        losses.extend(super::names::losses(&self.symbolizer));
        losses.insert("functions_forgotten".to_owned(), Some(lock(&self.runtimes).forgotten()));
        losses.insert("recursion_misses".to_owned(), stats::recursion_misses(&self.running.bpf));
        Ok(losses)
    }
}

/// Starts to open the files that walks meet, and to make tables for unwinding if walks are going to use them.
fn unwinding(running: &mut Running) -> Result<Builder, SessionError> {
    let (tables, misses) = Tables::take(&mut running.bpf)?;
    Builder::start(tables, misses, running.settings.unwind != 0).map_err(SessionError::Thread)
}

fn listing(hierarchy: &Hierarchy) -> Result<Listing, SessionError> {
    list(&hierarchy.mount, Bounds::default()).map_err(SessionError::List)
}

/// Reads every wanted cgroup that was known by then, monotonic nanoseconds.
fn poll_wanted(poller: &mut Poller, care: Care, registry: &Registry, filter: &Filter, seen_ns: u64) -> Poll {
    poller.poll(care, wanted_by(registry, filter, seen_ns).map(|cgroup| (cgroup.id, &cgroup.path)))
}

fn wanted_by<'r>(registry: &'r Registry, filter: &'r Filter, seen_ns: u64) -> impl Iterator<Item = &'r Cgroup> {
    let living = registry.iter().filter(move |cgroup| cgroup.state == State::Alive && cgroup.seen_ns <= seen_ns);
    living.filter(|cgroup| filter.wants(&cgroup.path))
}

fn local_figures(registry: &Registry, readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, LocalFigures> {
    let parent = |id| registry.get(id).and_then(|cgroup| cgroup.parent);
    let nodes: Vec<Node<'_>> = readings.iter().map(|(id, reading)| Node { id: *id, parent: parent(*id), reading }).collect();
    local::local_figures(&nodes)
}

/// Frames that the kernel has moved to other frames since boot: `pgmigrate_success`, there where pages can be moved at all.
pub(super) fn moved_frames() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("pgmigrate_success "))?.trim().parse().ok()
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::CgroupPath;

    #[test]
    fn living_cgroups_that_were_known_by_then_are_read() {
        let mut registry = Registry::new(1, 10);
        let dead = State::Dead { at_ns: 7, exact: true };
        for (id, seen_ns, state) in [(1, 5, State::Alive), (2, 10, State::Alive), (3, 11, State::Alive), (4, 5, dead)] {
            let path = CgroupPath::from_bytes(format!("/c{id}").as_bytes()).unwrap();
            registry.insert_unless_known(Cgroup { id: CgroupId(id), path, path_cut: false, parent: None, depth: 1, state, seen_ns });
        }
        let read = |seen_ns| -> HashSet<u64> { wanted_by(&registry, &Filter::default(), seen_ns).map(|cgroup| cgroup.id.0).collect() };
        assert_eq!(read(10), HashSet::from([1, 2]));
        assert_eq!(read(u64::MAX), HashSet::from([1, 2, 3]));
    }
}
