//! OOM kills in a running trace: takes the kernel half's events, reads the frozen picture at once and closes it, and keeps what an autopsy
//! is made from, within bounds. The autopsy itself is [`crate::oom::autopsy`].

use super::{
    assemble::{self, Symbols as _},
    kmsg::Kmsg,
    names::Names,
    session::{Session, SessionError},
};
use crate::{
    bpf::{BpfError, picture, picture::Picture, tables},
    cgroup::{CgroupId, StatReading, container, monotonic_ns, registry::State, stat::Limit},
    date, ledger,
    ledger::history::{History, Point},
    oom::{
        Autopsy, Case, autopsy,
        autopsy::{Place, Reading, WINDOWS_S},
        event::{self, Event, known},
        figures, judge, log,
        model::LiveStack,
    },
};
use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    time::{Duration, SystemTime},
};
use tokio::io::{Interest, unix::AsyncFd};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, Sample, variance_in_frames},
    kind::Kind,
    layout::STAT_NAMES,
    oom::{OOM_CONTROL, OOM_KILL, OOM_LEVELS, OOM_STATS, OomKill, OomLevel, OomTask, OomVictim, UNKNOWN},
    process::ProcessRecord,
    stack::StackRecord,
};

/// Autopsies kept; of further kills only the number is.
const MOST_KEPT: usize = 256;
/// Stacks kept of a picture.
const MOST_STACKS: usize = 64;
/// Cgroups with a history.
const MOST_HISTORIES: usize = 2048;
/// Cgroups that an autopsy knows besides the levels: those below the limit.
const MOST_PLACES: usize = 1024;
/// All victims of a kill have come by then, and its lines are in the kernel's log, nanoseconds. A stopped collector finds both at once.
const SEAL_NS: u64 = 2_000_000_000;
/// A cgroup is warned of again when it has been this share of its limit below the threshold.
const REARM: f64 = 0.05;
/// Memory that a case is planned to take at most, for the bound on all of them.
const MOST_BYTES: usize = 64 << 20;

/// Tells when the kernel half has sent OOM events.
pub struct Kills(AsyncFd<OwnedFd>);

impl Kills {
    /// Returns when there may be an event: the ring is to be read until it is empty then.
    ///
    /// # Errors
    /// When the event loop fails.
    pub async fn next(&mut self) -> std::io::Result<()> {
        // Cleared before the ring is read: what comes during the reading wakes again.
        self.0.readable_mut().await?.clear_ready();
        Ok(())
    }
}

/// What is kept of kills.
pub struct OomLog {
    ring: RingBuf<MapData>,
    /// The kernel's log, for the limit's cgroup where nothing else tells; `None` where it may not be read.
    kmsg: Option<Kmsg>,
    /// Which figures the kernel half reads rightly.
    trusted: [bool; OOM_STATS],
    one_node: bool,
    cases: VecDeque<Kept>,
    bytes: usize,
    /// Kills whose case found no room, or had to make room.
    dropped: u64,
    /// Victims whose kill is not kept.
    strays: u64,
    /// Readings of the last interval: older than any kill that comes next.
    last: HashMap<CgroupId, (u64, StatReading)>,
    histories: HashMap<CgroupId, History>,
    /// Cgroups whose warning was given.
    warned: HashSet<CgroupId>,
    /// Cgroups without a history, for want of room.
    pub histories_refused: u64,
}

/// A kill: while victims may still come, what its autopsy is made from; then the autopsy.
struct Kept {
    number: u64,
    at_ns: u64,
    bytes: usize,
    /// One of its cgroups is among those that are traced. Decided while their names are known.
    wanted: bool,
    body: Body,
}

enum Body {
    Open(Box<Case>),
    Sealed(Box<Autopsy>),
}

impl Kept {
    fn case(&mut self) -> Option<&mut Case> {
        match &mut self.body {
            Body::Open(case) => Some(case),
            Body::Sealed(_) => None,
        }
    }

    fn autopsy(&self) -> Autopsy {
        match &self.body {
            Body::Open(case) => autopsy(case),
            Body::Sealed(autopsy) => (**autopsy).clone(),
        }
    }
}

impl OomLog {
    /// Begins: takes the ring, and looks whether the figures of memory.stat stand where they are thought to.
    pub fn start(bpf: &mut Ebpf, read: impl FnMut(CgroupId) -> Option<StatReading>, page_bytes: u64) -> Result<OomLog, BpfError> {
        let ring = bpf.take_map("OOM_EVENTS").ok_or(BpfError::Missing("map OOM_EVENTS"))?;
        let ring = RingBuf::try_from(ring).map_err(|source| BpfError::Map { name: "OOM_EVENTS", source })?;
        let trusted = verify(bpf, read, page_bytes)?;
        let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
        Ok(OomLog {
            ring,
            kmsg: Kmsg::from_now().ok(),
            trusted,
            one_node: nodes.trim() == "0",
            cases: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            strays: 0,
            last: HashMap::new(),
            histories: HashMap::new(),
            warned: HashSet::new(),
            histories_refused: 0,
        })
    }

    /// Tells when there may be events.
    pub fn kills(&self) -> std::io::Result<Kills> {
        // SAFETY: the ring's descriptor is open as long as the ring, which is borrowed here.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }.try_clone_to_owned()?;
        // SAFETY: the descriptor is owned, so it stays open and the same as long as it is registered.
        Ok(Kills(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?))
    }

    /// Takes readings in, for the kills to come.
    pub fn readings(&mut self, readings: &[(CgroupId, StatReading)], at_s: f64) {
        self.last.clear();
        self.last.extend(readings.iter().map(|(id, reading)| (*id, (reading.at_ns, reading.clone()))));
        let alive: HashSet<CgroupId> = readings.iter().map(|(id, _)| *id).collect();
        self.histories.retain(|id, _| alive.contains(id));
        for (id, reading) in readings {
            if self.histories.len() >= MOST_HISTORIES && !self.histories.contains_key(id) {
                self.histories_refused += 1;
                continue;
            }
            let kinds = reading.subtree.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect();
            self.histories.entry(*id).or_default().push(Point::new(at_s, reading.usage, &kinds));
        }
    }

    /// Kills that are not among the autopsies, and victims without a kill.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        (self.dropped, self.strays)
    }

    /// Which figures of memory.stat are read in the kernel at a kill.
    #[must_use]
    pub fn trusted(&self) -> Vec<&'static str> {
        STAT_NAMES.iter().zip(self.trusted).filter(|(_, trusted)| *trusted).map(|(name, _)| *name).collect()
    }

    /// Makes the autopsies of kills whose victims have all come: they take far less room than what they are made from.
    fn seal(&mut self) {
        let now = monotonic_ns();
        for kept in &mut self.cases {
            if let Body::Open(case) = &kept.body
                && now.saturating_sub(kept.at_ns) > SEAL_NS
            {
                let sealed = autopsy(case);
                let bytes = size_of_autopsy(&sealed);
                self.bytes = self.bytes + bytes - kept.bytes;
                kept.bytes = bytes;
                kept.body = Body::Sealed(Box::new(sealed));
            }
        }
    }

    fn keep(&mut self, case: Case, wanted: bool) {
        let bytes = size_of(&case);
        self.cases.push_back(Kept { number: case.kill.number, at_ns: monotonic_ns(), bytes, wanted, body: Body::Open(Box::new(case)) });
        self.bytes += bytes;
        while self.cases.len() > MOST_KEPT || (self.bytes > MOST_BYTES && self.cases.len() > 1) {
            // The first kills tell how it began: of those between, the oldest go.
            let at = (self.cases.len() / 2).min(8);
            if let Some(gone) = self.cases.remove(at) {
                self.bytes -= gone.bytes;
                self.dropped += 1;
            }
        }
    }

    /// The last resort: asks the kernel's log for the limit's cgroup of memcg kills whose limit could not be worked out.
    pub fn ask_log(&mut self) {
        let unknown = |case: &Case| {
            case.logged_limit.is_none() && {
                let found = judge::judge(&case.kill, case.kernel_stack.as_deref(), case.one_node);
                found.constraint == Some("memcg") && found.limit.is_none()
            }
        };
        let mut asking = self.cases.iter_mut().filter_map(Kept::case).filter(|case| unknown(case)).peekable();
        if asking.peek().is_none() {
            return;
        }
        let Some(Ok(messages)) = self.kmsg.as_mut().map(Kmsg::messages) else { return };
        let incidents = log::incidents(messages.iter().map(String::as_str));
        for case in asking {
            let pids: Vec<u32> = case.victims.iter().map(|victim| victim.task.tgid).collect();
            let of_case = |incident: &&log::Incident| incident.victims.iter().any(|killed| pids.contains(&killed.pid));
            case.logged_limit = incidents.iter().rfind(of_case).and_then(|incident| incident.oom_memcg.clone());
        }
    }

    fn add_victim(&mut self, victim: &OomVictim, stack: Option<Vec<String>>) {
        match self.cases.iter_mut().rfind(|kept| kept.number == victim.number).and_then(Kept::case) {
            Some(case) => {
                case.victims.push(*victim);
                if let Some(stack) = stack {
                    case.victim_stacks.insert(victim.kernel_stack, stack);
                }
            }
            None => self.strays += 1,
        }
    }
}

/// A kill that did not happen: the cgroup at its limit, as read from its files.
fn from_reading(id: CgroupId, reading: &StatReading, at_ns: u64, page_bytes: u64) -> OomKill {
    let nothing = OomLevel {
        cgroup: 0,
        usage: UNKNOWN,
        max: UNKNOWN,
        failcnt: UNKNOWN,
        swap: UNKNOWN,
        kernel: UNKNOWN,
        sockets: UNKNOWN,
        oom_events: UNKNOWN,
        limit_events: UNKNOWN,
        flags: 0,
        depth: 0,
        stats: [UNKNOWN; OOM_STATS],
    };
    let mut levels = [nothing; OOM_LEVELS];
    levels[0] = OomLevel {
        cgroup: id.0,
        usage: reading.usage.map_or(UNKNOWN, |bytes| bytes / page_bytes),
        max: reading.limit.and_then(Limit::bytes).map_or(UNKNOWN, |bytes| bytes / page_bytes),
        failcnt: reading.events.limit_hits.unwrap_or(UNKNOWN),
        ..nothing
    };
    OomKill {
        event: OOM_KILL,
        flags: OOM_CONTROL,
        number: 0,
        at_ns,
        epoch: UNKNOWN,
        limit: id.0,
        total_pages: UNKNOWN,
        constraint: u32::MAX,
        order: u32::MAX,
        gfp_mask: u32::MAX,
        level_count: 1,
        trigger: OomTask { process: 0, cgroup: id.0, tgid: 0, tid: 0, comm: [0; 16] },
        user_stack: 0,
        kernel_stack: 0,
        trigger_levels: [0; OOM_LEVELS],
        levels,
    }
}

/// Memory of a case, roughly: its strings.
fn size_of(case: &Case) -> usize {
    let stacks = case.stacks.iter().flatten().map(|(_, row)| 256 + row.frames.iter().map(|frame| 24 + frame.len()).sum::<usize>());
    let places = case.places.values().map(|place| 1024 + place.path.len() + place.history.points().count() * std::mem::size_of::<Point>());
    std::mem::size_of::<Case>() + stacks.sum::<usize>() + places.sum::<usize>()
}

/// The same of an autopsy: rows of about this size.
fn size_of_autopsy(autopsy: &Autopsy) -> usize {
    let frames = autopsy.stacks.iter().map(|row| 256 + row.frames.iter().map(|frame| 24 + frame.len()).sum::<usize>());
    frames.sum::<usize>() + 512 * (autopsy.series.len() + autopsy.growth.len() + autopsy.siblings.len() + autopsy.victims.len() + 8)
}

/// Compares what the kernel half reads of this process's cgroups with their files: a figure counts only if it is equal at each level, but
/// for what CPUs hold back.
fn verify(bpf: &mut Ebpf, mut read: impl FnMut(CgroupId) -> Option<StatReading>, page_bytes: u64) -> Result<[bool; OOM_STATS], BpfError> {
    let mut trusted = [true; OOM_STATS];
    let ids: Vec<u64> = own_levels(bpf)?.iter().map(|level| level.cgroup).collect();
    let mut compared = 0;
    for id in ids {
        // The reading makes the kernel flush: what is read next is as new.
        let Some(reading) = read(CgroupId(id)) else { continue };
        let Some(level) = own_levels(bpf)?.into_iter().find(|level| level.cgroup == id) else { continue };
        compared += 1;
        for (at, name) in STAT_NAMES.iter().enumerate() {
            let in_kernel = figures::stat(&level, name, &[true; OOM_STATS], page_bytes);
            let in_file = file_figure(&reading, name);
            // Other tasks go on meanwhile: 1 % or 4 MiB.
            let agree = |a: u64, b: u64| a.abs_diff(b) <= (b / 100).max(4 << 20);
            match (in_kernel, in_file) {
                (Some(a), Some(b)) if !agree(a, b) => {
                    ::log::debug!("{name} of cgroup {id}: {a} in the kernel, {b} in its file: not trusted");
                    trusted[at] = false;
                }
                _ => {}
            }
        }
    }
    Ok(if compared > 0 { trusted } else { [false; OOM_STATS] })
}

/// The line of memory.stat behind a figure.
fn file_figure(reading: &StatReading, name: &str) -> Option<u64> {
    let kind = |kind: &str| reading.subtree.kinds.get(kind).map(|figure| figure.bytes);
    match name {
        "file" => Some(kind("file")? + kind("shmem")?),
        "file_dirty" => reading.subtree.dirty,
        "file_writeback" => reading.subtree.writeback,
        "kernel_stack" => kind("kernel.stack"),
        "percpu" => kind("kernel.percpu"),
        // One line for both: their sum is in the kernel's.
        "slab_reclaimable" | "slab_unreclaimable" => None,
        name => kind(name),
    }
}

fn own_levels(bpf: &mut Ebpf) -> Result<Vec<tracer_common::oom::OomLevel>, BpfError> {
    tables::run(bpf, "run_oom_self", [0; 3])?;
    let name = "OOM_RECORD";
    let failed = |source| BpfError::Map { name, source };
    let map = Array::<_, OomKill>::try_from(bpf.map(name).ok_or(BpfError::Missing(name))?).map_err(failed)?;
    let record = map.get(&1, 0).map_err(failed)?;
    Ok(record.levels.get(..record.level_count as usize).unwrap_or_default().to_vec())
}

/// The kernel half's tables, read once for all kills of a batch.
struct Tables {
    keys: HashMap<u64, KeyRecord>,
    stacks: HashMap<u64, StackRecord>,
    processes: HashMap<u64, ProcessRecord>,
}

impl Session {
    /// Takes OOM events in; the number of kills among them. To be called as soon as [`OomLog::descriptor`] is readable: a picture that is
    /// read is closed, and makes room for the next.
    pub fn drain_oom(&mut self) -> Result<usize, SessionError> {
        let mut events = Vec::new();
        while let Some(item) = self.oom.ring.next() {
            events.extend(event::decode(&item));
        }
        self.oom.ask_log();
        self.oom.seal();
        if events.is_empty() {
            return Ok(0);
        }
        // First of all what cannot wait: pictures hold memory of the kernel half's, and refuse further ones.
        let mut pictures: HashMap<u64, Picture> = HashMap::new();
        let bpf = &mut self.running.bpf;
        let keys = tables::keys(bpf)?;
        for event in &events {
            if let Event::Kill(kill) = event
                && kill.epoch != UNKNOWN
            {
                if let Some(picture) = picture::read(bpf, kill.epoch)? {
                    pictures.insert(kill.number, picture);
                }
                picture::close(bpf, kill.epoch)?;
            }
        }
        let tables = Tables { keys, stacks: tables::stacks(bpf)?, processes: tables::processes(bpf)? };
        if let Some(feed) = &self.feed
            && !feed.settle(Duration::from_millis(500))
        {
            ::log::debug!("process records are behind the kill: some names may be missing");
        }
        // Cgroups that were made and killed since the last reading are in the other ring.
        self.drain_events()?;
        let mut kills = 0;
        for event in events {
            match event {
                Event::Kill(kill) => {
                    kills += 1;
                    let case = self.case(kill, pictures.remove(&kill.number), &tables);
                    let wanted = [kill.levels[0].cgroup, kill.trigger.cgroup].into_iter().any(|id| self.is_wanted(id));
                    self.oom.keep(case, wanted);
                }
                Event::Victim(victim) => {
                    let stack = tables.stacks.get(&victim.kernel_stack);
                    let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
                    let stack = stack.map(|stack| names.kernel(stack));
                    self.oom.add_victim(&victim, stack);
                    self.add_place(&victim);
                }
            }
        }
        Ok(kills)
    }

    /// Whether a kill in that cgroup concerns what is traced.
    fn is_wanted(&self, id: u64) -> bool {
        self.filter.is_open() || self.registry.get(CgroupId(id)).is_some_and(|cgroup| self.filter.wants(&cgroup.path))
    }

    /// Autopsies of the kills that concern what is traced.
    #[must_use]
    pub fn autopsies(&self) -> Vec<Autopsy> {
        self.oom.cases.iter().filter(|kept| kept.wanted).map(Kept::autopsy).collect()
    }

    /// The same, newer than a number, once their victims have had `age_ns` to come.
    #[must_use]
    pub fn settled_autopsies(&self, after: u64, age_ns: u64) -> Vec<(u64, Autopsy)> {
        let now = monotonic_ns();
        let newer = self.oom.cases.iter().filter(|kept| kept.number > after && kept.wanted);
        newer.filter(|kept| now.saturating_sub(kept.at_ns) >= age_ns).map(|kept| (kept.number, kept.autopsy())).collect()
    }

    /// Warnings of wanted cgroups that hold `share` of their limit or more, as last read: each once, until it has fallen below again.
    pub fn warnings(&mut self, share: f64) -> Result<Vec<Autopsy>, SessionError> {
        let page = u64::from(self.host.facts.page_size);
        let mut close: Vec<(CgroupId, StatReading)> = Vec::new();
        for (id, (_, reading)) in &self.oom.last {
            let (Some(usage), Some(limit)) = (reading.usage, reading.limit.and_then(Limit::bytes)) else { continue };
            if usage as f64 >= share * limit as f64 && self.oom.warned.insert(*id) {
                close.push((*id, reading.clone()));
            } else if (usage as f64) < (share - REARM) * limit as f64 {
                self.oom.warned.remove(id);
            }
        }
        let alive = &self.oom.last;
        self.oom.warned.retain(|id| alive.contains_key(id));
        if close.is_empty() {
            return Ok(Vec::new());
        }
        close.sort_by_key(|(id, _)| *id);
        let bpf = &self.running.bpf;
        let tables = Tables { keys: tables::keys(bpf)?, stacks: tables::stacks(bpf)?, processes: tables::processes(bpf)? };
        let now_ns = monotonic_ns();
        let samples = tables::samples(bpf)?;
        let mut warnings = Vec::new();
        for (id, reading) in close {
            let keys = tables.keys.iter().map(|(identity, record)| (*identity, ledger::live(record))).collect();
            let frames = |sample: &Sample| u64::try_from(sample.frames_left).unwrap_or(0);
            let samples = samples.values().filter(|sample| sample.key != 0).map(|sample| (*sample, frames(sample))).collect();
            let event = from_reading(id, &reading, now_ns, page);
            let case = Case { warning: Some(share), ..self.case(event, Some(Picture { keys, samples }), &tables) };
            warnings.push(autopsy(&case));
        }
        Ok(warnings)
    }

    fn case(&mut self, kill: OomKill, picture: Option<Picture>, tables: &Tables) -> Case {
        let now_ns = monotonic_ns();
        let ago = Duration::from_nanos(now_ns.saturating_sub(kill.at_ns));
        let time = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut places = HashMap::new();
        let ids = kill.levels.iter().take(kill.level_count as usize).map(|level| level.cgroup);
        for id in ids.chain(kill.trigger_levels).chain([kill.limit, kill.trigger.cgroup]).filter(|id| *id != 0 && *id != UNKNOWN) {
            places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
        }
        let levels: HashSet<u64> = places.keys().copied().collect();
        // Those right below a level: the limit is one of them.
        let below: Vec<u64> = self
            .registry
            .iter()
            .filter(|cgroup| cgroup.parent.is_some_and(|parent| levels.contains(&parent.0)))
            .map(|cgroup| cgroup.id.0)
            .take(MOST_PLACES)
            .collect();
        for id in below {
            places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
        }
        let stacks = picture.map(|picture| self.live_stacks(&kill, &picture, tables));
        // Owners of stacks, down to which the tree must be known.
        for owner in stacks.iter().flatten().map(|(owner, _)| *owner).collect::<HashSet<u64>>() {
            let line: Vec<u64> = self.registry.ancestry(CgroupId(owner)).map(|cgroup| cgroup.id.0).collect();
            for id in line {
                places.entry(id).or_insert_with(|| self.place(id, kill.at_ns));
            }
        }
        let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
        let user_stack = tables
            .stacks
            .get(&kill.user_stack)
            .and_then(|stack| Some(names.user(tables.processes.get(&kill.trigger.process)?, Some(stack)).frames));
        let kernel_stack = tables.stacks.get(&kill.kernel_stack).map(|stack| names.kernel(stack));
        // Probes on the way: they say nothing of the kernel's own.
        let kernel_stack = kernel_stack.map(|frames| frames.into_iter().filter(|frame| !frame.starts_with("bpf_")).collect());
        Case {
            warning: None,
            victims: Vec::new(),
            time: date::rfc3339(time),
            at_s: kill.at_ns.saturating_sub(self.started_ns) as f64 / 1e9,
            version: self.hierarchy.version,
            page_bytes: u64::from(self.host.facts.page_size),
            one_node: self.oom.one_node,
            trusted: self.oom.trusted,
            places,
            stacks,
            user_stack,
            kernel_stack,
            victim_stacks: HashMap::new(),
            logged_limit: None,
            kill,
        }
    }

    /// A further victim of a group may lie in a cgroup of its own.
    fn add_place(&mut self, victim: &OomVictim) {
        let Some(id) = known(victim.task.cgroup).filter(|id| *id != 0) else { return };
        let place = self.place(id, victim.at_ns);
        let wanted = self.is_wanted(id);
        if let Some(kept) = self.oom.cases.iter_mut().rfind(|kept| kept.number == victim.number) {
            kept.wanted |= wanted;
            if let Some(case) = kept.case() {
                case.places.entry(id).or_insert(place);
            }
        }
    }

    fn place(&self, id: u64, at_ns: u64) -> Place {
        let cgroup = self.registry.get(CgroupId(id));
        let identity = cgroup.and_then(|cgroup| container::identify(&cgroup.path));
        let read = self.oom.last.get(&CgroupId(id)).filter(|(read_ns, _)| *read_ns < at_ns);
        Place {
            path: self.registry.name(CgroupId(id)),
            pod: identity.as_ref().and_then(|identity| identity.pod.clone()),
            container: identity.and_then(|identity| identity.container),
            // One that was removed since the kill was alive then.
            dead: cgroup.is_some_and(|cgroup| matches!(cgroup.state, State::Dead { at_ns: died, .. } if died <= at_ns)),
            parent: cgroup.and_then(|cgroup| cgroup.parent).map(|parent| parent.0),
            read: read.map(|(read_ns, reading)| Reading {
                age_s: at_ns.saturating_sub(*read_ns) as f64 / 1e9,
                usage: reading.usage,
                kinds: reading.subtree.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect(),
            }),
            history: self.oom.histories.get(&CgroupId(id)).cloned().unwrap_or_default(),
        }
    }

    /// What was live, by owner and stack, largest first: as many as are kept, of those below the outermost level with a limit.
    fn live_stacks(&mut self, kill: &OomKill, picture: &Picture, tables: &Tables) -> Vec<(u64, LiveStack)> {
        #[derive(Default)]
        struct Sum {
            live: i64,
            variance: u64,
            young: [u64; 3],
        }
        let levels = &kill.levels[..(kill.level_count as usize).min(kill.levels.len())];
        let outermost = levels.iter().rfind(|level| figures::limit_pages(level).is_some()).map(|level| level.cgroup);
        let within = |owner: u64| match outermost {
            Some(top) => self.registry.ancestry(CgroupId(owner)).any(|cgroup| cgroup.id.0 == top),
            None => true,
        };
        let mut sums: HashMap<u64, Sum> = HashMap::new();
        for (identity, live) in &picture.keys {
            if tables.keys.get(identity).is_some_and(|record| within(record.key.owner)) {
                sums.entry(*identity).or_default().live += live;
            }
        }
        for (sample, frames) in &picture.samples {
            let Some(sum) = sums.get_mut(&sample.key) else { continue };
            let order = sample.order & 31;
            sum.variance += (variance_in_frames(sample.weight_per_frame, order) * frames) >> order;
            let age_s = kill.at_ns.saturating_sub(sample.charged_ns) as f64 / 1e9;
            for (young, window) in sum.young.iter_mut().zip(WINDOWS_S) {
                *young += if age_s <= window { sample.weight_per_frame * frames } else { 0 };
            }
        }
        let mut largest: Vec<(u64, Sum)> = sums.into_iter().filter(|(_, sum)| sum.live > 0).collect();
        largest.sort_by(|a, b| b.1.live.cmp(&a.1.live).then_with(|| a.0.cmp(&b.0)));
        // Rows of equal words are added up below; twice as many keys make rows enough.
        largest.truncate(4 * MOST_STACKS);
        let mut names = Names::new(self.feed.as_ref(), &mut self.symbolizer);
        let mut rows: Vec<(u64, LiveStack, u64)> = Vec::new();
        for (identity, sum) in largest {
            let Some(record) = tables.keys.get(&identity) else { continue };
            let process = tables.processes.get(&record.key.process);
            let baseline = record.key.flags & KEY_BASELINE != 0;
            let words = assemble::describe(&mut names, record, process, &tables.stacks);
            let dead = self
                .registry
                .get(CgroupId(record.key.owner))
                .is_some_and(|cgroup| matches!(cgroup.state, State::Dead { at_ns, .. } if at_ns <= kill.at_ns));
            let kind = u8::try_from(record.key.kind).ok().and_then(Kind::from_number).map_or("unknown", Kind::name);
            let own = record.key.flags & KEY_OWN != 0;
            let row = LiveStack {
                cgroup: self.registry.name(CgroupId(record.key.owner)),
                state: if dead { "dead" } else { "alive" }.to_owned(),
                kind: kind.to_owned(),
                pid: if baseline || own { None } else { process.map(|process| process.tgid) },
                comm: if baseline { "[before start]".to_owned() } else { words.comm },
                status: words.status,
                frames: if baseline { vec!["[before start]".to_owned()] } else { words.frames },
                live: u64::try_from(sum.live).unwrap_or(0),
                live_stderr: 0,
                young: sum.young,
            };
            let same = |other: &LiveStack| {
                (&other.cgroup, &other.kind, other.pid, &other.comm, &other.frames)
                    == (&row.cgroup, &row.kind, row.pid, &row.comm, &row.frames)
            };
            match rows.iter_mut().find(|(owner, other, _)| *owner == record.key.owner && same(other)) {
                Some((_, other, variance)) => {
                    other.live += row.live;
                    *variance += sum.variance;
                    other.young.iter_mut().zip(row.young).for_each(|(sum, young)| *sum += young);
                }
                None => rows.push((record.key.owner, row, sum.variance)),
            }
        }
        rows.sort_by(|a, b| b.1.live.cmp(&a.1.live));
        rows.truncate(MOST_STACKS);
        let with_error =
            |(owner, row, variance): (u64, LiveStack, u64)| (owner, LiveStack { live_stderr: ledger::standard_error(variance), ..row });
        rows.into_iter().map(with_error).collect()
    }
}
