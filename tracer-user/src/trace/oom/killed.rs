//! The kills so far, bounded by number and bytes, with the readings that they are compared with.

use super::{kills::Kills, late::Late, verify};
use crate::{
    analyse::oom::{Autopsy, KillFacts, autopsy, judge, log, loops::Memory},
    cgroup::{
        CgroupId, CgroupPath, StatReading,
        history::{History, Point},
    },
    host::{clock::monotonic_ns, meminfo},
    kernel_half::{
        BpfError, KernelHalf,
        events::{
            Ring,
            oom::{self, Event},
        },
    },
    report::FileRow,
    trace::{filter::Filter, kmsg::Kmsg},
};
use std::collections::{HashMap, HashSet, VecDeque};
use tracer_common::oom::{OOM_STATS, OomVictim};

/// What was warned of: each is told once until it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Warned {
    Share,
    Within,
    Waiting,
}

/// Autopsies kept; of further kills only the number is.
const MOST_KEPT: usize = 256;
/// Cgroups with a history.
const MOST_HISTORIES: usize = 2048;
/// No victim of a kill comes so long after the one before, nanoseconds: the kernel prints a line for each, and a serial console is slow.
const SEAL_NS: u64 = 30_000_000_000;
/// Memory of a stack whose names are still looked for: two stacks and two records.
const MOST_OF_LATE: usize = 3072;
/// Memory that a case is planned to take at most, for the bound on all of them.
const MOST_BYTES: usize = 64 << 20;

/// What is kept of kills.
pub struct OomLog {
    pub(super) ring: Ring<Event>,
    /// The kernel's log, for the limit's cgroup where nothing else tells; `None` where it may not be read.
    kmsg: Option<Kmsg>,
    /// Which figures the kernel half reads rightly.
    pub(super) trusted: [bool; OOM_STATS],
    pub(super) one_node: bool,
    pub(super) cases: VecDeque<Kept>,
    bytes: usize,
    /// Kills whose case found no room, or had to make room.
    dropped: u64,
    /// Events that did not fit in the ring, as of the last look.
    pub(super) events_lost: u64,
    /// Epoch of the last event.
    pub(super) last_epoch: Option<u64>,
    /// Epochs of open pictures that may have lost theirs, and since when that is thought, monotonic nanoseconds.
    pub(super) suspects: HashMap<u64, u64>,
    /// Victims whose kill is not kept.
    strays: u64,
    /// Readings of the last interval: older than any kill that comes next.
    pub(super) last: HashMap<CgroupId, (u64, StatReading)>,
    pub(super) histories: HashMap<CgroupId, History>,
    /// The host's memory at the last reading.
    pub(super) memory: Option<Memory>,
    /// Warnings that were given.
    pub(super) warned: HashSet<(CgroupId, Warned)>,
    /// Cgroups without a history, for want of room.
    pub histories_refused: u64,
}

/// A kill: while victims may still come, what its autopsy is made from; then the autopsy.
pub(super) struct Kept {
    pub(super) number: u64,
    /// Monotonic nanoseconds at which the last of its events was taken in.
    pub(super) last_ns: u64,
    bytes: usize,
    /// Cgroups of the victims and the trigger, noted while they are known: by these it concerns what is traced, or not.
    pub(super) cgroups: Vec<CgroupPath>,
    /// It was asked for as a new one.
    pub(super) told: bool,
    /// Stacks whose names are still looked for.
    pub(super) late: Vec<Late>,
    body: Body,
}

enum Body {
    Open(Box<KillFacts>),
    Sealed(Box<Autopsy>),
}

impl Kept {
    pub(super) fn is_wanted(&self, filter: &Filter) -> bool {
        filter.is_open() || self.cgroups.iter().any(|path| filter.wants(path))
    }

    /// Whether some of its names are still looked for.
    pub(super) fn is_late(&self) -> bool {
        !self.late.is_empty()
    }

    pub(super) fn facts(&mut self) -> Option<&mut KillFacts> {
        match &mut self.body {
            Body::Open(case) => Some(case),
            Body::Sealed(_) => None,
        }
    }

    pub(super) fn autopsy(&self) -> Autopsy {
        match &self.body {
            Body::Open(case) => autopsy(case),
            Body::Sealed(autopsy) => (**autopsy).clone(),
        }
    }
}

impl OomLog {
    /// Begins: takes the ring, and looks whether the figures of memory.stat stand where they are thought to.
    pub fn start(bpf: &mut KernelHalf, read: impl FnMut(CgroupId) -> Option<StatReading>, page_bytes: u64) -> Result<OomLog, BpfError> {
        let ring = oom::ring(bpf)?;
        let trusted = verify::verify(bpf, read, page_bytes)?;
        let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
        Ok(OomLog {
            ring,
            kmsg: Kmsg::from_now().ok(),
            trusted,
            one_node: nodes.trim() == "0",
            cases: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            events_lost: 0,
            last_epoch: None,
            suspects: HashMap::new(),
            strays: 0,
            last: HashMap::new(),
            histories: HashMap::new(),
            memory: None,
            warned: HashSet::new(),
            histories_refused: 0,
        })
    }

    /// Tells when there may be events.
    pub fn kills(&self) -> std::io::Result<Kills> {
        Kills::of(self.ring.descriptor()?)
    }

    /// Takes readings in, for the kills to come.
    pub fn readings(&mut self, readings: &[(CgroupId, StatReading)], at_s: f64) {
        self.memory = meminfo::now().map(|now| Memory { total: now.total, available: now.available });
        self.last.clear();
        self.last.extend(readings.iter().map(|(id, reading)| (*id, (reading.at_ns, reading.clone()))));
        let alive: HashSet<CgroupId> = readings.iter().map(|(id, _)| *id).collect();
        self.histories.retain(|id, _| alive.contains(id));
        for (id, reading) in readings {
            if self.histories.len() >= MOST_HISTORIES && !self.histories.contains_key(id) {
                self.histories_refused += 1;
                continue;
            }
            self.histories.entry(*id).or_default().push(Point::of(at_s, reading));
        }
    }

    /// Readings of a cgroup.
    #[must_use]
    pub fn history(&self, id: CgroupId) -> Option<&History> {
        self.histories.get(&id)
    }

    /// Kills that are not among the autopsies, and victims without a kill.
    #[must_use]
    pub fn lost(&self) -> (u64, u64) {
        (self.dropped, self.strays)
    }

    /// Makes the autopsies of kills whose victims have all come: they take far less room than what they are made from.
    pub(super) fn seal(&mut self) {
        let now = monotonic_ns();
        for kept in &mut self.cases {
            if let Body::Open(case) = &kept.body
                && now.saturating_sub(kept.last_ns) > SEAL_NS
            {
                let sealed = autopsy(case);
                let bytes = size_of_autopsy(&sealed);
                self.bytes = self.bytes + bytes - kept.bytes;
                kept.bytes = bytes;
                kept.late = Vec::new();
                kept.body = Body::Sealed(Box::new(sealed));
            }
        }
    }

    pub(super) fn keep(&mut self, case: KillFacts, late: Vec<Late>, cgroups: Vec<CgroupPath>) {
        let bytes = size_of(&case) + late.len() * MOST_OF_LATE;
        let (number, last_ns) = (case.kill.number, monotonic_ns());
        self.cases.push_back(Kept { number, last_ns, bytes, cgroups, told: false, late, body: Body::Open(Box::new(case)) });
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
        let unknown = |case: &KillFacts| {
            case.logged_limit.is_none() && {
                let found = judge::judge(&case.kill, case.kernel_stack.as_deref(), case.one_node);
                found.constraint == Some("memcg") && found.limit.is_none()
            }
        };
        let mut asking = self.cases.iter_mut().filter_map(Kept::facts).filter(|case| unknown(case)).peekable();
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

    pub(super) fn add_victim(&mut self, victim: &OomVictim, stack: Option<Vec<String>>) {
        let kept = self.cases.iter_mut().rfind(|kept| kept.number == victim.number);
        let case = kept.and_then(|kept| {
            kept.last_ns = monotonic_ns();
            kept.facts()
        });
        match case {
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

/// Memory of a case, roughly: its strings.
fn size_of(case: &KillFacts) -> usize {
    let stacks = case.stacks.iter().flatten().map(|(_, row)| 256 + row.frames.iter().map(|frame| 24 + frame.len()).sum::<usize>());
    let places = case.places.values().map(|place| 1024 + place.path.len() + place.history.points().count() * std::mem::size_of::<Point>());
    let rows = case.evidence.iter().flat_map(|evidence| &evidence.cgroups);
    let rows = rows.map(|(_, row)| 2048 + size_of_files(&row.files) + 256 * (row.regions.len() + row.arenas.len()));
    std::mem::size_of::<KillFacts>() + stacks.sum::<usize>() + places.sum::<usize>() + rows.sum::<usize>()
}

/// The same of rows of files.
fn size_of_files(files: &[FileRow]) -> usize {
    let touchers = |file: &FileRow| -> usize {
        let all = file.writers.iter().chain(&file.readers).chain(&file.dirtiers);
        all.map(|toucher| 128 + toucher.frames.iter().map(|frame| 24 + frame.len()).sum::<usize>()).sum()
    };
    files.iter().map(|file| 512 + file.path.len() + touchers(file)).sum()
}

/// The same of an autopsy: rows of about this size.
fn size_of_autopsy(autopsy: &Autopsy) -> usize {
    let frames = autopsy.stacks.iter().map(|row| 256 + row.frames.iter().map(|frame| 24 + frame.len()).sum::<usize>());
    let rows = autopsy.regions.iter().map(|of| of.regions.len() + of.arenas.len()).sum::<usize>() + autopsy.verdicts.len();
    frames.sum::<usize>()
        + size_of_files(&autopsy.files)
        + 512 * rows
        + 512 * (autopsy.series.len() + autopsy.growth.len() + autopsy.siblings.len() + autopsy.victims.len() + 8)
}
