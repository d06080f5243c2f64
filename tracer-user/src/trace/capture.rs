//! From what was read of a moment to its [`Snapshot`]: everything gets its words here.

use super::{
    mappings::Origin,
    regions,
    words::{self, Symbols},
};
use crate::{
    cgroup::{CgroupId, Hierarchy, StatReading, local::LocalFigures},
    containers,
    files::{Resolver, mounts::device_text, resolve::file_system_name},
    host::kernel::facts::Facts,
    kernel_half::{
        stack::{Stack, Walked},
        tables::{self, SweepVerdict},
    },
    region::{Survey, Vma, intervals::Intervals},
    report,
    snapshot::{
        Arenas, CgroupNames, Charges, File, Files, FrameId, KeyWords, Malloc, MappedRange, Names, Place, Process, Region, Space,
        StackWords, SurveyedProcess, Surveys, Swept,
    },
};
use std::collections::{BTreeMap, HashMap, HashSet};
use tracer_common::{
    attribution::{KEY_BASELINE, KeyRecord, OwnerTotals, Sample},
    dirty::{DirtyKey, DirtyRecord},
    file::{FileRecord, LINKS_UNKNOWN},
    kind::Kind,
    process::ProcessRecord,
    stack::{BY_FAULT, BY_READ, BY_WRITE},
};

/// Most living threads whose names are looked up.
const MOST_THREADS: usize = 1 << 16;
/// Most living processes of a file in whose mount namespaces it is looked for.
const MOST_TOUCHERS: usize = 10;

/// The kernel half's tables as they were read for one moment.
pub struct Tables<'a> {
    /// Keys by identity.
    pub keys: &'a HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: &'a HashMap<u64, Sample>,
    /// What the sweep found, by slot.
    pub swept: &'a HashMap<u64, tables::Swept>,
    /// Stacks by identity.
    pub stacks: &'a HashMap<u64, Stack>,
    /// Processes by identity.
    pub processes: &'a HashMap<u64, ProcessRecord>,
    /// Files by identity.
    pub files: &'a HashMap<u64, FileRecord>,
    /// Exact totals by owner.
    pub totals: &'a HashMap<u64, OwnerTotals>,
    /// Who made page cache dirty.
    pub dirtied: &'a HashMap<DirtyKey, DirtyRecord>,
}

impl Tables<'_> {
    /// Samples whose charge still waits for its owner.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.swept.values().filter(|swept| swept.verdict == SweepVerdict::Pending && swept.owner != 0).count() as u64
    }

    /// The charges of a snapshot. What was retired is not among them.
    #[must_use]
    pub fn charges(&self) -> Charges {
        let swept = |found: &tables::Swept| Swept {
            unmapped_frames: found.frames_left.saturating_sub(found.mapped_frames),
            dirty: found.dirty,
            writeback: found.writeback,
        };
        Charges {
            keys: self.keys.clone(),
            samples: self.samples.clone(),
            swept: self.swept.iter().map(|(slot, found)| (*slot, swept(found))).collect(),
            totals: self.totals.clone(),
            peaks: HashMap::new(),
            retired: Vec::new(),
        }
    }
}

/// The host as outputs show it.
#[must_use]
pub fn host(facts: &Facts, hierarchy: &Hierarchy) -> report::Host {
    report::Host {
        kernel: facts.release.clone(),
        cpus: facts.cpus_online,
        cgroup: hierarchy.kind_label.to_owned(),
        page_size: facts.page_size,
    }
}

/// What those who run a cgroup call it.
#[must_use]
pub fn names_of_cgroup(names: containers::Names) -> CgroupNames {
    let containers::Names { pod_uid, container, runtime, named } = names;
    CgroupNames {
        pod_uid,
        container,
        runtime: runtime.map(|runtime| runtime.to_string()),
        pod: named.pod,
        namespace: named.namespace,
        name: named.name,
        image: named.image,
        restart: named.restart,
    }
}

/// Bytes by kind.
#[must_use]
pub fn bytes_by_kind(figures: &LocalFigures) -> BTreeMap<String, i64> {
    figures.kinds.iter().map(|(kind, figure)| ((*kind).to_owned(), figure.bytes)).collect()
}

/// Readings by cgroup.
#[must_use]
pub fn by_cgroup(readings: &[(CgroupId, StatReading)]) -> HashMap<CgroupId, StatReading> {
    readings.iter().map(|(id, reading)| (*id, reading.clone())).collect()
}

/// Puts things in words, each once.
pub struct Words<'a> {
    symbols: &'a mut dyn Symbols,
    tables: &'a Tables<'a>,
    numbers: HashMap<String, FrameId>,
    names: Names,
}

impl<'a> Words<'a> {
    /// None yet.
    pub fn new(symbols: &'a mut dyn Symbols, tables: &'a Tables<'a>) -> Words<'a> {
        Words { symbols, tables, numbers: HashMap::new(), names: Names::default() }
    }

    fn frames(&mut self, frames: Vec<String>) -> Vec<FrameId> {
        frames.into_iter().map(|frame| self.frame(frame)).collect()
    }

    /// The number of a frame's name.
    pub fn frame(&mut self, frame: String) -> FrameId {
        if let Some(known) = self.numbers.get(&frame) {
            return *known;
        }
        let id = FrameId(u32::try_from(self.names.frames.len()).unwrap_or(u32::MAX));
        self.names.frames.push(frame.clone());
        self.numbers.insert(frame, id);
        id
    }

    /// Keys of wanted owners that are not older than the trace, as far as they are to be `in_words`, and the kernel stacks of all those of
    /// files.
    pub fn keys(&mut self, wanted: impl Fn(CgroupId) -> bool, in_words: impl Fn(u64) -> bool) {
        let tables = self.tables;
        for (identity, record) in tables.keys {
            let key = &record.key;
            if key.flags & KEY_BASELINE != 0 || !wanted(CgroupId(key.owner)) {
                continue;
            }
            if in_words(*identity) {
                let row = words::describe(self.symbols, record, tables.processes.get(&key.process), tables.stacks);
                let stack = StackWords { frames: self.frames(row.frames), status: row.status };
                self.names.keys.insert(*identity, KeyWords { comm: row.comm, stack });
            }
            let of_file = key.kind == Kind::File as u32 || key.kind == Kind::Shmem as u32;
            if of_file && !matches!(key.kernel_stack, BY_FAULT | BY_READ | BY_WRITE) {
                self.kernel(key.kernel_stack);
            }
        }
    }

    fn kernel(&mut self, identity: u64) {
        if self.names.kernel.contains_key(&identity) {
            return;
        }
        if let Some(stack) = self.tables.stacks.get(&identity) {
            let frames = self.symbols.kernel(stack);
            let frames = self.frames(frames);
            self.names.kernel.insert(identity, frames);
        }
    }

    /// User stacks that something else than a key names, by process and stack.
    pub fn stacks(&mut self, named: impl Iterator<Item = (u64, u64)>) {
        for (process, stack) in named {
            if self.names.stacks.contains_key(&(process, stack)) {
                continue;
            }
            let record = self.tables.processes.get(&process);
            let mut words = words::user_stack(self.symbols, record, stack, self.tables.stacks);
            words::root_cut(&words.status, &mut words.frames);
            let frames = self.frames(words.frames);
            self.names.stacks.insert((process, stack), StackWords { frames, status: words.status });
        }
    }

    /// The processes that keys, what was made dirty, or `others` name.
    pub fn processes(&mut self, others: impl Iterator<Item = u64>) {
        let of_keys = self.tables.keys.values().map(|record| record.key.process);
        let named: HashSet<u64> = of_keys.chain(self.tables.dirtied.keys().map(|key| key.process)).chain(others).collect();
        for (identity, record) in self.tables.processes.iter().filter(|(identity, _)| named.contains(identity)) {
            let comm = self.symbols.comm(record);
            let gone = self.symbols.is_gone(record);
            self.names.processes.insert(*identity, Process { tgid: record.tgid, ns_tgid: record.ns_tgid, comm, gone });
        }
    }

    /// Living threads that own something.
    pub fn threads(&mut self) {
        let mut youngest: HashMap<(u64, u32), u64> = HashMap::new();
        for sample in self.tables.samples.values().filter(|sample| sample.frames_left > 0) {
            let Some(record) = self.tables.keys.get(&sample.key).filter(|record| record.key.flags & KEY_BASELINE == 0) else { continue };
            if youngest.len() < MOST_THREADS || youngest.contains_key(&(record.key.process, sample.tid)) {
                let at_ns = youngest.entry((record.key.process, sample.tid)).or_default();
                *at_ns = (*at_ns).max(sample.charged_ns);
            }
        }
        for ((process, tid), at_ns) in youngest {
            let record = self.tables.processes.get(&process);
            if let Some(name) = record.and_then(|record| self.symbols.thread(record, tid, at_ns)) {
                self.names.threads.insert((process, tid), name);
            }
        }
    }

    /// Functions that threads of these processes began with, by process and address; and what is mapped there.
    pub fn functions<'v>(&mut self, addresses: impl Iterator<Item = (u64, u64, &'v Vma)>) {
        for (process, address, vma) in addresses {
            let mut in_file = || self.symbols.place(&vma.name, address.wrapping_sub(vma.start).wrapping_add(vma.offset));
            let frame = if vma.inode == 0 { Some(address) } else { in_file() };
            let stack = Stack { status: Walked::Ended, frames: [frame.unwrap_or(0)].into() };
            let record = self.tables.processes.get(&process);
            let name = record.and_then(|record| self.symbols.user(record, Some(&stack)).frames.pop());
            if let Some(name) = name.filter(|name| name != "[unknown]") {
                self.names.functions.insert((process, address), name);
            }
        }
    }

    /// Everything that has words by now.
    pub fn names(mut self) -> Names {
        self.names.binaries = self.symbols.binaries();
        self.names
    }
}

/// The files of wanted owners, and where they are seen.
pub fn files(tables: &Tables<'_>, names: &Names, wanted: impl Fn(CgroupId) -> bool, named_before: impl Iterator<Item = u64>) -> Files {
    let mut touchers: HashMap<u64, HashSet<u64>> = HashMap::new();
    for sample in tables.samples.values().filter(|sample| sample.file != 0) {
        let Some(record) = tables.keys.get(&sample.key).filter(|record| wanted(CgroupId(record.key.owner))) else { continue };
        let of_file = touchers.entry(sample.file).or_default();
        if record.key.flags & KEY_BASELINE == 0 {
            of_file.insert(record.key.process);
        }
    }
    let dirtied = tables.dirtied.keys().filter(|key| wanted(CgroupId(key.owner))).map(|key| key.file);
    for file in dirtied.chain(named_before) {
        touchers.entry(file).or_default();
    }
    let mut resolver = Resolver::new();
    let mut known = HashMap::new();
    for (identity, record) in tables.files.iter().filter(|(identity, _)| touchers.contains_key(identity)) {
        let processes = touchers.get(identity).into_iter().flatten().filter_map(|process| names.processes.get(process));
        let living: Vec<u32> = processes.filter(|process| !process.gone).map(|process| process.tgid).take(MOST_TOUCHERS).collect();
        known.insert(*identity, file(record, &mut resolver, &living));
    }
    Files { known, dirtied: tables.dirtied.clone(), dirtied_before: Vec::new() }
}

fn file(record: &FileRecord, resolver: &mut Resolver, touchers: &[u32]) -> File {
    let crate::files::Seen { path, mount, path_inside, volume } = resolver.resolve(record, touchers);
    File {
        device: device_text(record.device),
        inode: record.inode,
        path,
        mount,
        path_inside,
        volume,
        file_system: Some(file_system_name(record)).filter(|name| !name.is_empty()),
        size: record.size,
        state: match record.links {
            LINKS_UNKNOWN => None,
            0 => Some("deleted".to_owned()),
            _ => Some("present".to_owned()),
        },
    }
}

/// What was looked into.
#[must_use]
pub fn surveys(read: &regions::Surveys) -> Surveys {
    let process = |process: &regions::Process| SurveyedProcess {
        tgid: process.tgid,
        comm: process.comm.clone(),
        owner: process.owner,
        regions: regions_of(&process.survey),
        malloc: malloc(&process.survey),
        held: process.survey.held,
        threads: process.survey.threads,
        thread_functions: process.survey.thread_functions.clone(),
        java_frames: process.survey.java_frames,
    };
    let place = |(slot, place): (&u64, &regions::Place)| (*slot, Place { process: place.process, region: place.region });
    Surveys {
        processes: read.processes.iter().map(process).collect(),
        places: read.places.iter().map(place).collect(),
        left_out: read.left_out,
    }
}

fn regions_of(survey: &Survey) -> Vec<Region> {
    let regions = survey.classified.regions.iter().zip(&survey.resident);
    let region = |(region, resident): (&crate::region::Region, &Option<u64>)| {
        let vma = survey.maps.vmas.get(region.vma)?;
        // What holds none and is not writable.
        let is_text = vma.inode != 0 && !vma.write && *resident == Some(0);
        Some(Region {
            start: region.start,
            end: region.end,
            class: region.class,
            by: region.by.map(str::to_owned),
            accessible: !vma.is_inaccessible(),
            private: !vma.shared && !is_text && region.class != crate::region::Class::Vdso,
            resident: *resident,
        })
    };
    regions.filter_map(region).collect()
}

fn malloc(survey: &Survey) -> Malloc {
    let environment = survey.environment.as_ref();
    let arenas = survey.arenas().map(|arenas| Arenas {
        arenas: arenas.arenas,
        heaps: arenas.heaps,
        reserved: arenas.reserved,
        committed: arenas.committed,
        resident: arenas.resident,
    });
    Malloc {
        arenas,
        word: survey.layout.word,
        free: survey.free.map(|free| (free.free, free.looked_through)),
        environment_limit: environment.and_then(|environment| environment.arena_max()),
        malloc_arena_max: environment.and_then(|environment| environment.malloc_arena_max.clone()),
        tunable_arena_max: environment.and_then(|environment| environment.tunable_arena_max.clone()),
    }
}

/// The address space of a process.
#[must_use]
pub fn space(space: &super::mappings::Space) -> Space {
    let ranges = |intervals: &Intervals<Origin>| {
        let pieces = intervals.over(0, u64::MAX);
        let range = |piece: crate::region::intervals::Interval<Origin>| {
            let Origin { stack, change, tid, at_ns } = piece.mark;
            MappedRange { start: piece.start, end: piece.end, stack, change, tid, at_ns }
        };
        pieces.map(range).collect()
    };
    Space { process: space.process, mapped: ranges(&space.origins()), opened: ranges(&space.opened) }
}
