//! User frames to functions: groups places by file, has each file read once on the thread of [`super::reader`], remembers the answers.

use super::elf::{self, ElfError, ElfOptions};
use super::found::{About, Binary, FoundIn};
use super::kernel::KernelSymbols;
use super::patience::{Patience, Waiting};
use super::perf_map::{self, PerfMap};
use super::reader::{Limits, Outcome, Reader, Work};
use super::stack::{self, Place, Status, judge_user_stack};
use super::{BinaryId, Frame, FrameKind};
use crate::host::{elf as host_elf, lock, privileges};
use crate::kernel_half::stack::Walked;
use crate::managed::{
    Functions,
    interleave::{From, Slot, interleave},
};
use crate::process::{CodeFile, FileStore, Loop, OpenFile, sys};
use crate::report::CodeRow;
use crate::text;
use object::elf::PF_X;
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracer_common::{
    managed::ManagedFrame,
    stack::{FAR, LEFT_OUT, UserFrame},
};

/// Answers remembered: some 10 MB when full, less where names repeat.
const MAX_CACHED: usize = 65_536;
/// Perf maps remembered, by process, and bytes of all of them before the next is read.
const MAX_PERF_MAPS: usize = 64;
const MAX_PERF_BYTES: usize = 32 << 20;
/// Users of processes, files that were given up, and things counted, remembered.
const MAX_REMEMBERED: usize = 4096;
/// Pieces of code that are kept of a file: linkers make one.
const MOST_CODE: usize = 4;
/// Bytes of a file's headers that are read for them.
const MOST_HEADERS: u64 = 1 << 20;
/// Bounds of reading. A file of the largest size that is read takes a few seconds on a slow machine.
const LIMITS: Limits = Limits { longest: Duration::from_secs(10), given_up: 4, waiting: 1024 };

/// How symbols are read.
#[derive(Clone, Debug)]
pub struct SymbolizerOptions {
    /// Use DWARF for inlined functions.
    pub debug: bool,
    /// Where separate debug files are looked for, on the host.
    pub debug_directories: Vec<PathBuf>,
}

impl Default for SymbolizerOptions {
    fn default() -> SymbolizerOptions {
        SymbolizerOptions { debug: true, debug_directories: vec!["/usr/lib/debug".into(), "/lib/debug".into()] }
    }
}

/// What could not be named, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SymbolCounters {
    /// Times that a file was parsed.
    pub files: u64,
    /// Files that could not be read when their symbols were wanted.
    pub unreadable: u64,
    /// Files refused before parsing: not ELF, malformed, too large.
    pub refused: u64,
    /// Files that the parser could not understand.
    pub malformed: u64,
    /// Files that made the parser panic.
    pub panicked: u64,
    /// Files and perf maps that were given up, with their thread, since reading them did not come to an end.
    pub given_up: u64,
    /// Files that were not open (any more) when their symbols were wanted.
    pub not_open: u64,
    /// Places and perf maps that were shown without their names, since those were not there in time.
    pub late: u64,
    /// Perf maps that may be another user's.
    pub perf_maps_foreign: u64,
    /// Perf maps of which only the beginning was read.
    pub perf_maps_cut: u64,
    /// Frames of interpreters whose functions are not known.
    pub functions_not_told: u64,
    /// Times the remembered answers were thrown away because there were too many.
    pub cache_flushes: u64,
}

impl SymbolCounters {
    /// What names are missing for, by the words of the reports. All are of names; none is of bytes.
    #[must_use]
    pub fn losses(self) -> [(&'static str, u64); 6] {
        [
            ("symbols_late", self.late),
            ("symbol_files_unread", self.unreadable + self.refused + self.malformed + self.panicked + self.given_up),
            ("symbol_files_not_open", self.not_open),
            ("perf_maps_foreign", self.perf_maps_foreign),
            ("perf_maps_cut", self.perf_maps_cut),
            ("functions_not_told", self.functions_not_told),
        ]
    }
}

/// A user stack made readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserStack {
    /// Innermost first, inlined functions as frames of their own.
    pub frames: Vec<Frame>,
    /// How far it reaches.
    pub status: Status,
}

/// What is known of one place in a file.
#[derive(Clone, Debug, Default)]
struct Answer {
    frames: Option<Arc<[Frame]>>,
    root_call: bool,
}

/// A place in a file: its number, the offset, and whether it is a return address.
type Spot = (u32, u64, bool);
/// Which image of which process: thread-group id and first moment.
type ImageKey = (u32, u64);

/// The process whose stack is named: code that it wrote itself is known by its addresses alone.
#[derive(Clone, Copy, Debug)]
pub struct Traced {
    /// Thread-group id.
    pub tgid: u32,
    /// When its image was first seen, monotonic nanoseconds.
    pub since_ns: u64,
    /// It runs no more.
    pub has_ended: bool,
}

/// Places that are not remembered yet, of many stacks, to be looked up at once: to open and parse a file costs far more than to
/// look one place more up in it, and the kernel writes all of its names for each that is asked for.
#[derive(Debug, Default)]
pub struct Unknown {
    files: HashMap<u32, (OpenFile, BTreeSet<(u64, bool)>)>,
    kernel: BTreeSet<u64>,
}

/// What is counted once, however often it is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Note {
    Unread(u32),
    NotOpen(u32),
    NotTold(u64),
    Foreign(ImageKey),
    Cut(ImageKey),
}

/// What the reader is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    File(u32),
    PerfMap(ImageKey),
}

#[derive(Clone, Debug)]
enum Job {
    /// Sorted places of a file.
    File(OpenFile, Vec<(u64, bool)>),
    PerfMap(perf_map::Wanted),
}

/// What it found.
enum Read {
    File(FileRead),
    PerfMap(perf_map::Found, Option<u32>),
}

/// What was found in a file.
struct FileRead {
    about: About,
    wanted: Vec<(u64, bool)>,
    /// For each place its functions, innermost first.
    functions: Result<Vec<Option<Vec<Frame>>>, ElfError>,
    /// For each place whether it is after the call of a thread's first function.
    root_calls: Vec<bool>,
}

/// Turns addresses into frames. Not for several threads at once: keep it on the one that makes reports.
#[derive(Debug)]
pub struct Symbolizer {
    cache: HashMap<Spot, Answer>,
    /// Names of the remembered answers, each once.
    names: HashSet<Arc<str>>,
    kernel: KernelSymbols,
    reader: Reader<Key, Job, Read>,
    patience: Patience,
    /// Places that were late since the last [`Symbolizer::refresh`]: each is counted once.
    late: HashSet<Spot>,
    /// Files and perf maps that were given up, and are not read again.
    given_up: HashSet<Key>,
    /// What is counted already.
    noted: HashSet<Note>,
    perf_maps: HashMap<ImageKey, Option<PerfMap>>,
    /// Users of processes whose perf map was read while they lived.
    owners: HashMap<ImageKey, u32>,
    found: FoundIn,
    /// What interpreters run.
    functions: Arc<Mutex<Functions>>,
    /// Files that are closed: what is remembered of them cannot be looked up again.
    settled: HashSet<u32>,
    counters: SymbolCounters,
}

impl Symbolizer {
    /// An empty one.
    #[must_use]
    pub fn new(options: SymbolizerOptions) -> Symbolizer {
        let options = ElfOptions { debug: options.debug, debug_directories: options.debug_directories };
        let work = move |job| {
            give_up_privileges();
            read(job, &options)
        };
        Symbolizer::reading_by(Arc::new(work), LIMITS)
    }

    /// The same that knows what interpreters run.
    #[must_use]
    pub fn with_functions(self, functions: Arc<Mutex<Functions>>) -> Symbolizer {
        Symbolizer { functions, ..self }
    }

    fn reading_by(work: Work<Job, Read>, limits: Limits) -> Symbolizer {
        Symbolizer {
            cache: HashMap::new(),
            names: HashSet::new(),
            kernel: KernelSymbols::default(),
            reader: Reader::new("memtrail-symbol", limits, work),
            patience: Patience::new(Instant::now()),
            late: HashSet::new(),
            given_up: HashSet::new(),
            noted: HashSet::new(),
            perf_maps: HashMap::new(),
            owners: HashMap::new(),
            found: FoundIn::default(),
            functions: Arc::default(),
            settled: HashSet::new(),
            counters: SymbolCounters::default(),
        }
    }

    /// Functions of a user stack, innermost first. `frames` are as recorded: the first is where the task was, the others are return addresses.
    /// Every frame gives at least one function.
    pub fn user(&mut self, traced: Traced, frames: &[u64], files: &Mutex<FileStore>) -> Vec<Frame> {
        self.places(traced, frames, Walked::Ended, files).into_iter().flat_map(|found| found.frames).collect()
    }

    /// The same with the judgement how far it reaches; what lies beyond the root is left out.
    pub fn user_stack(&mut self, traced: Traced, frames: &[u64], walked: Walked, files: &Mutex<FileStore>) -> UserStack {
        let found = self.places(traced, frames, walked, files);
        let places: Vec<Place<'_>> =
            found.iter().filter_map(|f| Some(Place { frame: f.frames.last()?, mapped: f.mapped, root_call: f.root_call })).collect();
        let (status, real) = judge_user_stack(&places, walked);
        UserStack { frames: found.into_iter().take(real).flat_map(|f| f.frames).collect(), status }
    }

    /// The frames of a kernel stack, innermost first, one an address.
    pub fn kernel(&mut self, addresses: &[u64]) -> Vec<Frame> {
        self.kernel.frames(&looked_up(addresses).collect::<Vec<_>>())
    }

    /// What to tell the user about kernel names: asks the kernel.
    #[must_use]
    pub fn kernel_warning(&mut self) -> Option<&'static str> {
        self.kernel.warning()
    }

    /// Begins a report or a batch of stacks: says how long may be waited for files, and forgets perf maps, which JITs go on writing, and in
    /// which files frames were found. Before the first call it is waited as long as it takes.
    pub fn refresh(&mut self, waiting: Waiting) {
        self.patience.begin(waiting, Instant::now());
        self.perf_maps.clear();
        self.late.clear();
        if self.found.refresh() {
            self.forget_answers();
        }
    }

    /// The files in which frames were found since then. A name that is in several files is in each of them.
    #[must_use]
    pub fn binaries(&self) -> Vec<Binary> {
        self.found.binaries()
    }

    /// Notes that these files are going to be closed: their answers outlive those of files that can be read again.
    pub fn settle(&mut self, numbers: impl Iterator<Item = u32>) {
        self.settled.extend(numbers);
    }

    /// What could not be named.
    #[must_use]
    pub fn counters(&self) -> SymbolCounters {
        self.counters
    }

    /// Notes what of a user stack is not remembered yet. See [`Unknown`].
    pub fn gather_user(&mut self, frames: &[u64], files: &Mutex<FileStore>, unknown: &mut Unknown) {
        let spots = self.spots(frames, Walked::Ended, files);
        self.gather(&spots, unknown);
    }

    /// The same of a kernel stack.
    pub fn gather_kernel(&self, addresses: &[u64], unknown: &mut Unknown) {
        unknown.kernel.extend(looked_up(addresses).filter(|address| !self.kernel.knows(*address)));
    }

    /// Looks everything up, each file and the kernel's names once, as far as there is patience for it. What is late then goes on being read.
    pub fn learn(&mut self, unknown: Unknown) {
        let kernel: Vec<u64> = unknown.kernel.into_iter().collect();
        self.kernel.frames(&kernel);
        let job = |(open, wanted): (OpenFile, BTreeSet<(u64, bool)>)| (open, wanted.into_iter().collect::<Vec<_>>());
        let mut files: Vec<(OpenFile, Vec<(u64, bool)>)> = unknown.files.into_values().map(job).collect();
        let is_any = !files.is_empty();
        files.retain(|(open, wanted)| !self.reader.ask(Key::File(open.number), Job::File(open.clone(), wanted.clone())));
        self.take(is_any);
        // Those of which other places were being read already.
        let mut is_any = false;
        for (open, mut wanted) in files {
            wanted.retain(|(offset, returns)| !self.cache.contains_key(&(open.number, *offset, *returns)));
            if !wanted.is_empty() && !self.given_up.contains(&Key::File(open.number)) {
                is_any |= self.reader.ask(Key::File(open.number), Job::File(open, wanted));
            }
        }
        self.take(is_any);
    }

    /// Whether anything is being read.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.reader.is_asked(|_| true)
    }

    /// Whether some of it is being read, so that it will be known or given up.
    #[must_use]
    pub fn is_reading(&self, unknown: &Unknown) -> bool {
        self.is_reading_any(unknown.files.keys().copied())
    }

    /// Whether one of these files is being read.
    #[must_use]
    pub fn is_reading_any(&self, mut numbers: impl Iterator<Item = u32>) -> bool {
        numbers.any(|file| self.reader.is_asked(|key| *key == Key::File(file)))
    }

    /// Takes what the reader has. If something of it is `needed` now, waits for it as far as there is patience.
    fn take(&mut self, needed: bool) {
        let (mut outcomes, began) = (Vec::new(), Instant::now());
        let longest = if needed { self.patience.left() } else { Some(Duration::ZERO) };
        self.reader.wait(longest, |key, outcome| outcomes.push((key, outcome)));
        self.patience.spend(began.elapsed());
        for (key, outcome) in outcomes {
            match (key, outcome) {
                (Key::File(id), Outcome::Answer(Read::File(read))) => self.learn_file(id, read),
                (Key::PerfMap(image), Outcome::Answer(Read::PerfMap(found, owner))) => self.learn_perf_map(image, found, owner),
                (key, Outcome::GivenUp(job)) => self.give_up(key, &job),
                // An answer to another question does not come.
                (_, Outcome::Answer(_)) => {}
            }
        }
    }

    /// What does not come back is not asked for again: each time would cost a thread.
    fn give_up(&mut self, key: Key, job: &Job) {
        self.counters.given_up += 1;
        if self.given_up.len() < MAX_REMEMBERED {
            self.given_up.insert(key);
        }
        let of = match job {
            Job::File(open, _) => {
                let path = sys::path_of(&*open.file).unwrap_or_default();
                format!("functions in {}", text::escape_bytes(path.as_os_str().as_encoded_bytes()))
            }
            Job::PerfMap(wanted) => format!("compiled code of process {}", wanted.tgid),
        };
        log::warn!("{of} have no names: reading them does not come to an end");
    }

    /// What each frame stands for, with its file if that is known.
    fn spots(&mut self, frames: &[u64], walked: Walked, files: &Mutex<FileStore>) -> Vec<Spotted> {
        let is_managed = |frame: &u64| matches!(UserFrame::of(*frame), UserFrame::Managed(ManagedFrame { is_in_place: false, .. }));
        let (native, managed) = frames.split_at(frames.iter().position(is_managed).unwrap_or(frames.len()));
        let spots = self.native_spots(native, files);
        if managed.is_empty() {
            return spots;
        }
        if spots.first().is_some_and(Spotted::has_just_begun) {
            return spots;
        }
        let managed = self.of_program(managed);
        let is_whole = matches!(walked, Walked::Root | Walked::Ended) && !managed.contains(&UserFrame::LeftOut);
        let gap = native.iter().position(|frame| *frame == LEFT_OUT);
        let from = match gap {
            Some(gap) if is_whole => From::Gap(gap + 1),
            Some(gap) => From::GapOfBoth(gap + 1),
            None if is_whole => From::Root,
            None => From::Leaf,
        };
        let is_loop: Vec<bool> = spots.iter().map(Spotted::is_loop).collect();
        let is_outermost: Vec<bool> =
            managed.iter().map(|frame| matches!(frame, UserFrame::Managed(ManagedFrame { is_outermost: true, .. }))).collect();
        let mut spots: Vec<Option<Spotted>> = spots.into_iter().map(Some).collect();
        let spot = |slot| match slot {
            Slot::Native(at) => spots[at].take(),
            Slot::Managed(at) => Some(match managed[at] {
                UserFrame::Managed(frame) => Spotted { at: At::Managed(frame), returns: false },
                _ => Spotted { at: At::LeftOut, returns: false },
            }),
        };
        interleave(&is_loop, &is_outermost, from).into_iter().filter_map(spot).collect()
    }

    /// Frames of an interpreter, without those that are none of a program's.
    fn of_program(&self, managed: &[u64]) -> Vec<UserFrame> {
        let mut functions = lock(&self.functions);
        let mut is_known = |frame: &UserFrame| match frame {
            UserFrame::Managed(ManagedFrame { function, is_outermost: false, .. }) => {
                functions.get(*function).is_none_or(|function| !function.is_of_interpreter())
            }
            _ => true,
        };
        managed.iter().map(|frame| UserFrame::of(*frame)).filter(|frame| is_known(frame)).collect()
    }

    fn native_spots(&mut self, frames: &[u64], files: &Mutex<FileStore>) -> Vec<Spotted> {
        let mut known: HashMap<u32, Option<CodeFile>> = HashMap::new();
        let mut spots = Vec::with_capacity(frames.len());
        for (n, frame) in frames.iter().enumerate() {
            // A call can be the last instruction of its function: what was called from lies before the return address.
            let before = u64::from(n > 0);
            let at = match UserFrame::of(*frame) {
                UserFrame::LeftOut => At::LeftOut,
                UserFrame::Managed(frame) => At::Managed(frame),
                UserFrame::At(0) | UserFrame::InFile { offset: FAR, .. } => At::Nowhere,
                UserFrame::At(address) => At::Memory(address.saturating_sub(before)),
                UserFrame::InFile { file, offset } => {
                    let look_up = || lock(files).get(file);
                    let known = known.entry(file).or_insert_with(look_up).clone();
                    if known.is_none() {
                        self.counters.not_open += self.is_new(Note::NotOpen(file));
                    }
                    At::File { number: file, offset: offset.saturating_sub(before), known }
                }
            };
            spots.push(Spotted { at, returns: n > 0 });
        }
        spots
    }

    fn places(&mut self, traced: Traced, frames: &[u64], walked: Walked, files: &Mutex<FileStore>) -> Vec<Named> {
        let spots = self.spots(frames, walked, files);
        let mut unknown = Unknown::default();
        self.gather(&spots, &mut unknown);
        self.learn(unknown);
        spots.into_iter().map(|spot| self.named(traced, spot)).collect()
    }

    fn named(&mut self, traced: Traced, Spotted { at, returns }: Spotted) -> Named {
        let (number, offset, file) = match at {
            At::LeftOut => return Named::one(Frame::new(FrameKind::Unknown, "[frames left out]"), true),
            At::Nowhere => return Named::one(Frame::unknown(), false),
            At::Managed(frame) => return Named::one(self.managed_name(frame), true),
            At::File { known: None, .. } => return Named::one(Frame::unknown(), true),
            At::Memory(address) => {
                // Code that was written at run time moves about: its address would split what belongs together.
                let jit = || Frame::new(FrameKind::Unknown, "[jit]");
                return Named::one(self.jit_name(traced, address).unwrap_or_else(jit), true);
            }
            At::File { number, offset, known: Some(file) } => (number, offset, file),
        };
        // Of one that was closed, what was learnt before is all that can be known.
        let answer = match &file.open {
            Some(_) => self.answer(number, offset, returns),
            None => self.cache.get(&(number, offset, returns)).cloned(),
        };
        let answer = answer.unwrap_or_default();
        let frames = answer.frames.map_or_else(
            || vec![Frame { binary: Some(BinaryId(number.into())), offset, ..place_name(file.base_name(), offset, returns) }],
            |frames| frames.to_vec(),
        );
        for frame in &frames {
            if let Some(binary) = frame.binary {
                self.found.add(binary, &file.path, &frame.name);
            }
        }
        Named { frames, mapped: true, root_call: answer.root_call && stack::is_c_library(file.base_name()) }
    }

    /// The name of a function that an interpreter runs.
    fn managed_name(&mut self, frame: ManagedFrame) -> Frame {
        let is_near = frame.is_in_place && frame.is_outermost;
        let known = lock(&self.functions).described(frame.function, frame.place, is_near);
        match known {
            Some(name) => Frame::new(FrameKind::Managed, &name),
            None => {
                self.counters.functions_not_told += self.is_new(Note::NotTold(frame.function));
                Frame::new(FrameKind::Unknown, "[interpreted]")
            }
        }
    }

    /// What is known of a place in an open file, which was asked for.
    fn answer(&mut self, file: u32, offset: u64, returns: bool) -> Option<Answer> {
        let answer = self.cache.get(&(file, offset, returns)).cloned();
        if answer.is_none()
            && !self.given_up.contains(&Key::File(file))
            && self.late.len() < MAX_CACHED
            && self.late.insert((file, offset, returns))
        {
            self.counters.late += 1;
        }
        answer
    }

    fn gather(&self, spots: &[Spotted], unknown: &mut Unknown) {
        for Spotted { at, returns } in spots {
            let At::File { number, offset, known: Some(CodeFile { open: Some(open), .. }) } = at else { continue };
            if !self.given_up.contains(&Key::File(*number)) && !self.cache.contains_key(&(*number, *offset, *returns)) {
                unknown.files.entry(*number).or_insert_with(|| (open.clone(), BTreeSet::new())).1.insert((*offset, *returns));
            }
        }
    }

    /// Takes in what was found in a file.
    fn learn_file(&mut self, id: u32, read: FileRead) {
        if self.cache.len() + read.wanted.len() > MAX_CACHED {
            self.forget_answers();
        }
        let once = if read.functions.is_err() { self.is_new(Note::Unread(id)) } else { 1 };
        match read.functions {
            Ok(_) => self.counters.files += once,
            Err(ElfError::Unreadable) => self.counters.unreadable += once,
            Err(ElfError::Refused(_)) => self.counters.refused += once,
            Err(ElfError::Malformed) => self.counters.malformed += once,
            Err(ElfError::Panicked) => self.counters.panicked += once,
        }
        if let Err(error) = &read.functions {
            log::debug!("symbols: a file {error}");
        }
        self.found.learn(BinaryId(id.into()), read.about);
        let mut functions = read.functions.unwrap_or_default().into_iter();
        for ((offset, returns), root_call) in read.wanted.into_iter().zip(read.root_calls) {
            let in_file =
                |frame: Frame| Frame { binary: Some(BinaryId(id.into())), offset, name: interned(&mut self.names, frame.name), ..frame };
            let frames = functions.next().flatten().map(|frames| frames.into_iter().map(in_file).collect());
            self.cache.insert((id, offset, returns), Answer { frames, root_call });
        }
    }

    /// One for what was not counted yet. With too many to remember, something may count once more; nothing is missed.
    fn is_new(&mut self, note: Note) -> u64 {
        if self.noted.len() >= MAX_REMEMBERED {
            self.noted.clear();
        }
        u64::from(self.noted.insert(note))
    }

    /// Makes room: what can be looked up again goes first.
    fn forget_answers(&mut self) {
        self.counters.cache_flushes += 1;
        self.cache.retain(|(file, ..), _| self.settled.contains(file));
        if self.cache.len() > MAX_CACHED / 2 {
            self.cache.clear();
        }
        let left: HashSet<u32> = self.cache.keys().map(|(file, ..)| *file).collect();
        self.settled.retain(|file| left.contains(file));
        self.names.clear();
    }

    fn learn_perf_map(&mut self, image: ImageKey, found: perf_map::Found, owner: Option<u32>) {
        if let Some(owner) = owner {
            if self.owners.len() >= MAX_REMEMBERED {
                self.owners.clear();
            }
            self.owners.insert(image, owner);
        }
        let map = match found {
            perf_map::Found::Map(map) => Some(map),
            perf_map::Found::Nothing => None,
            perf_map::Found::Foreign => {
                self.counters.perf_maps_foreign += self.is_new(Note::Foreign(image));
                None
            }
        };
        if map.as_ref().is_some_and(PerfMap::is_cut) {
            self.counters.perf_maps_cut += self.is_new(Note::Cut(image));
        }
        let bytes: usize = self.perf_maps.values().flatten().map(PerfMap::bytes).sum();
        if self.perf_maps.len() >= MAX_PERF_MAPS || bytes >= MAX_PERF_BYTES {
            self.perf_maps.clear();
        }
        self.perf_maps.insert(image, map);
    }

    /// The name that a JIT gave to its code.
    fn jit_name(&mut self, traced: Traced, address: u64) -> Option<Frame> {
        let key = (traced.tgid, traced.since_ns);
        if self.given_up.contains(&Key::PerfMap(key)) {
            return None;
        }
        if !self.perf_maps.contains_key(&key) {
            let owner = self.owners.get(&key).copied();
            let wanted = perf_map::Wanted { tgid: traced.tgid, has_ended: traced.has_ended, owner };
            // They can be large: one at a time.
            let is_perf_map = |asked: &Key| matches!(asked, Key::PerfMap(_));
            if self.reader.is_asked(is_perf_map) {
                self.take(true);
            }
            if !self.perf_maps.contains_key(&key) && !self.reader.is_asked(is_perf_map) {
                self.reader.ask(Key::PerfMap(key), Job::PerfMap(wanted));
                self.take(true);
            }
        }
        match self.perf_maps.get(&key) {
            None if self.given_up.contains(&Key::PerfMap(key)) => None,
            Some(map) => map.as_ref()?.name(address).map(|name| Frame::new(FrameKind::User, name)),
            None => {
                self.counters.late += u64::from(self.late.len() < MAX_CACHED && self.late.insert((u32::MAX, traced.tgid.into(), false)));
                None
            }
        }
    }
}

/// One copy of each name.
fn interned(names: &mut HashSet<Arc<str>>, name: Arc<str>) -> Arc<str> {
    match names.get(&name) {
        Some(known) => Arc::clone(known),
        None => {
            names.insert(Arc::clone(&name));
            name
        }
    }
}

/// What the reader's thread does first, once: it needs to look into the roots of processes for their perf maps, and nothing else.
fn give_up_privileges() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        privileges::keep_only_or_warn(&[privileges::SYMBOLS]);
    }
}

/// Does one job, on the reader's thread.
fn read(job: Job, options: &ElfOptions) -> Read {
    match job {
        Job::PerfMap(wanted) => {
            let (found, owner) = PerfMap::of(wanted);
            Read::PerfMap(found, owner)
        }
        Job::File(open, wanted) => {
            let offsets: Vec<u64> = wanted.iter().map(|(offset, _)| *offset).collect();
            let functions = elf::functions(&open, &offsets, options);
            let root_call = |(offset, returns): &(u64, bool)| {
                let code = if *returns { elf::code_around(&open, offset + 1) } else { None };
                code.is_some_and(|(before, after)| stack::is_root_call(&before, &after))
            };
            let root_calls = wanted.iter().map(root_call).collect();
            let about = about(&open.file);
            // A large file's index is the most that this program ever holds: not that of two.
            sys::give_memory_back();
            Read::File(FileRead { about, wanted, functions, root_calls })
        }
    }
}

/// What a file says of itself.
fn about(file: &File) -> About {
    let code = |elf: &host_elf::Elf<'_, File>| {
        let mapped = elf.loaded().filter(|segment| segment.flags & PF_X != 0).take(MOST_CODE);
        mapped.map(|segment| CodeRow { offset: segment.offset, bytes: segment.in_file, address: segment.address }).collect()
    };
    let code = host_elf::Elf::open(file, MOST_HEADERS).map(|elf| code(&elf)).unwrap_or_default();
    About { build_id: host_elf::build_id_of_file(file), code }
}

/// A frame, and whether it is a return address.
struct Spotted {
    at: At,
    returns: bool,
}

impl Spotted {
    /// Whether it is an interpreter's own frame, for which those of its functions stand.
    fn is_loop(&self) -> bool {
        self.in_loop(Loop::contains)
    }

    /// Whether it is one whose functions are not known yet.
    fn has_just_begun(&self) -> bool {
        self.in_loop(Loop::has_just_begun)
    }

    fn in_loop(&self, is_there: impl Fn(&Loop, u64) -> bool) -> bool {
        let At::File { offset, known: Some(CodeFile { interpreter: Some(code), .. }), .. } = &self.at else { return false };
        is_there(code, *offset)
    }
}

/// What is looked up for a frame.
enum At {
    LeftOut,
    /// In no code.
    Nowhere,
    /// What an interpreter runs.
    Managed(ManagedFrame),
    /// Code that has no file.
    Memory(u64),
    File {
        number: u32,
        offset: u64,
        known: Option<CodeFile>,
    },
}

/// What stands there.
struct Named {
    frames: Vec<Frame>,
    mapped: bool,
    root_call: bool,
}

impl Named {
    fn one(frame: Frame, mapped: bool) -> Named {
        Named { frames: vec![frame], mapped, root_call: false }
    }
}

/// What to look up for recorded addresses, innermost first: the first is where the task was, the others are return addresses. A call
/// can be the last instruction of its function: what was called from lies before the return address.
fn looked_up(addresses: &[u64]) -> impl Iterator<Item = u64> {
    addresses.iter().enumerate().map(|(n, &address)| if n == 0 { address } else { address.saturating_sub(1) })
}

/// `[binary+0xoffset]`: the place as recorded.
fn place_name(base_name: &[u8], looked_up: u64, returns: bool) -> Frame {
    let name = String::from_utf8_lossy(base_name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    // A name of any length would push the offset out of the bound of a frame.
    let name: String = name.chars().take(100).collect();
    let offset = looked_up.wrapping_add(u64::from(returns));
    Frame::new(FrameKind::Unknown, &format!("[{name}+{offset:#x}]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::proc::Process;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use tracer_common::unwind::FileKey;

    const PATIENT: Limits = Limits { longest: Duration::from_secs(60), given_up: 2, waiting: 64 };

    const HERE: Traced = Traced { tgid: 1, since_ns: 1, has_ended: false };

    /// The program of this process and its C library, open, and a frame in each.
    struct Own {
        files: Mutex<FileStore>,
        program: UserFrame,
        library: UserFrame,
    }

    impl Own {
        fn new() -> Own {
            let maps = Process::own().unwrap().maps().unwrap();
            let mut files = FileStore::new(8);
            let mut frame = |name: &str| {
                let vma = maps.vmas.iter().find(|vma| vma.execute && String::from_utf8_lossy(&vma.name).contains(name)).unwrap();
                let key = FileKey { inode: vma.inode, ..FileKey::default() };
                let file = File::open(std::str::from_utf8(&vma.name).unwrap()).unwrap();
                assert!(files.insert(&key, &vma.name, None, Some(Arc::new(file))));
                UserFrame::InFile { file: key.number(), offset: vma.offset + 0x10 }
            };
            let (program, library) = (frame("/memtrail-"), frame("/libc.so"));
            Own { files: Mutex::new(files), program, library }
        }

        /// As recorded: the second is a return address.
        fn frames(&self) -> [u64; 2] {
            let UserFrame::InFile { file, offset } = self.library else { panic!("in a file") };
            [self.program.number(), UserFrame::InFile { file, offset: offset + 1 }.number()]
        }

        fn number(frame: UserFrame) -> u32 {
            let UserFrame::InFile { file, .. } = frame else { panic!("in a file") };
            file
        }

        fn names(&self, symbolizer: &mut Symbolizer, waiting: Waiting) -> Vec<String> {
            symbolizer.refresh(waiting);
            symbolizer.user(HERE, &self.frames(), &self.files).iter().map(|frame| frame.name.as_ref().to_owned()).collect()
        }

        fn name(frame: UserFrame) -> String {
            format!("function of {}", Own::number(frame))
        }
    }

    /// A symboliser whose file with this number is not read before something is sent.
    fn blocked_at(blocked: u32, limits: Limits) -> (Symbolizer, Sender<()>) {
        let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
        let receiver = Mutex::new(receiver);
        let work = move |job| {
            let Job::File(open, wanted) = job else { return Read::PerfMap(perf_map::Found::Nothing, None) };
            if open.number == blocked {
                // An error is the end of the test.
                let _ended = receiver.lock().unwrap().recv();
            }
            let functions =
                wanted.iter().map(|_| Some(vec![Frame::new(FrameKind::User, &format!("function of {}", open.number))])).collect();
            let root_calls = vec![false; wanted.len()];
            let about = About { build_id: Some(format!("id of {}", open.number)), ..About::default() };
            Read::File(FileRead { about, wanted, functions: Ok(functions), root_calls })
        };
        (Symbolizer::reading_by(Arc::new(work), limits), sender)
    }

    #[test]
    fn what_is_late_is_shown_by_its_place_and_counted_and_has_its_name_the_next_time() {
        let own = Own::new();
        let (mut symbolizer, door) = blocked_at(Own::number(own.library), PATIENT);
        let began = Instant::now();
        let late = own.names(&mut symbolizer, Waiting::Batch);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert!(late[1].starts_with("[libc.so.6+0x"), "{late:?}");
        assert_eq!(symbolizer.counters().given_up, 0);
        let first = symbolizer.counters().late;
        assert!(first >= 1);
        // The same place once more in the same batch is not lost twice.
        symbolizer.user(HERE, &own.frames(), &own.files);
        assert_eq!(symbolizer.counters().late, first);
        let is_reading = |symbolizer: &mut Symbolizer| {
            let mut unknown = Unknown::default();
            symbolizer.gather_user(&own.frames(), &own.files, &mut unknown);
            symbolizer.is_reading(&unknown)
        };
        assert!(is_reading(&mut symbolizer), "it is late, and not lost");
        door.send(()).unwrap();
        assert_eq!(own.names(&mut symbolizer, Waiting::ForAll), [own.program, own.library].map(Own::name));
        assert_eq!(symbolizer.counters().late, first);
        assert!(!is_reading(&mut symbolizer));
        let losses: HashMap<_, _> = symbolizer.counters().losses().into();
        assert_eq!(losses["symbols_late"], first);
    }

    #[test]
    fn a_file_that_does_not_let_itself_be_read_costs_its_own_names_only() {
        let own = Own::new();
        let (mut symbolizer, _door) = blocked_at(Own::number(own.program), Limits { longest: Duration::from_millis(300), ..PATIENT });
        let names = own.names(&mut symbolizer, Waiting::ForAll);
        assert!(names[0].starts_with("[memtrail-") && names[1] == Own::name(own.library), "{names:?}");
        assert_eq!((symbolizer.counters().given_up, symbolizer.counters().late), (1, 0));
        let mut unknown = Unknown::default();
        symbolizer.gather_user(&own.frames()[..1], &own.files, &mut unknown);
        assert!(!symbolizer.is_reading(&unknown), "what was given up is not waited for");
        // It is not read again.
        let began = Instant::now();
        assert_eq!(own.names(&mut symbolizer, Waiting::ForAll), names);
        assert!(began.elapsed() < Duration::from_millis(300));
        assert_eq!(symbolizer.counters().losses()[1], ("symbol_files_unread", 1));
    }

    #[test]
    fn a_perf_map_that_does_not_let_itself_be_read_is_asked_for_once() {
        let own = Own::new();
        let asked = Arc::new(Mutex::new(0));
        let asked_for = Arc::clone(&asked);
        let never: Arc<Mutex<()>> = Arc::default();
        let held = Arc::clone(&never);
        let work = move |job: Job| {
            if matches!(job, Job::PerfMap(_)) {
                *asked_for.lock().unwrap() += 1;
            }
            drop(held.lock().unwrap());
            Read::PerfMap(perf_map::Found::Nothing, None)
        };
        let mut symbolizer = Symbolizer::reading_by(Arc::new(work), Limits { longest: Duration::from_millis(300), ..PATIENT });
        let _held = never.lock().unwrap();
        for waiting in [Waiting::ForAll, Waiting::Report] {
            symbolizer.refresh(waiting);
            assert_eq!(&*symbolizer.user(HERE, &[0x7f00_0000_1000], &own.files)[0].name, "[jit]");
        }
        assert_eq!((*asked.lock().unwrap(), symbolizer.counters().given_up), (1, 1));
    }

    #[test]
    fn a_frame_knows_its_file_and_the_offset_in_it() {
        let own = Own::new();
        let (mut symbolizer, _door) = blocked_at(0, PATIENT);
        symbolizer.refresh(Waiting::ForAll);
        let frames = symbolizer.user(HERE, &own.frames(), &own.files);
        for (frame, found) in [own.program, own.library].into_iter().zip(&frames) {
            let UserFrame::InFile { file, offset } = frame else { panic!("in a file") };
            assert_eq!((found.binary, found.offset), (Some(BinaryId(file.into())), offset));
        }
        let binaries: Vec<_> = symbolizer.binaries().into_iter().map(|binary| (binary.build_id.unwrap(), binary.frames)).collect();
        for frame in [own.program, own.library] {
            assert!(binaries.contains(&(format!("id of {}", Own::number(frame)), vec![Own::name(frame)])), "{binaries:?}");
        }
        let nowhere = [0, UserFrame::InFile { file: 7, offset: 8 }.number(), UserFrame::InFile { file: 7, offset: FAR }.number()];
        let frames = symbolizer.user(HERE, &nowhere, &own.files);
        assert!(frames.iter().all(|frame| frame.binary.is_none() && frame.offset == 0 && &*frame.name == "[unknown]"));
        assert_eq!(symbolizer.counters().not_open, 1, "a file of which nobody told is counted once");
    }

    #[test]
    fn a_file_that_is_closed_keeps_the_names_that_were_learnt_and_its_own() {
        let own = Own::new();
        let (mut symbolizer, _door) = blocked_at(0, PATIENT);
        let (known, number) = (own.names(&mut symbolizer, Waiting::ForAll), Own::number(own.program));
        let key = FileKey { inode: 5, ..FileKey::default() };
        let mut files = FileStore::new(2);
        assert!(files.insert(&key, b"/usr/bin/gone (deleted)", None, None));
        let place = UserFrame::InFile { file: key.number(), offset: 0x1234 };
        let closed = Mutex::new(files);
        let frames = symbolizer.user(HERE, &[place.number()], &closed);
        assert_eq!((&*frames[0].name, frames[0].offset), ("[gone+0x1234]", 0x1234));
        symbolizer.settle([number].into_iter());
        assert_eq!(own.names(&mut symbolizer, Waiting::ForAll), known);
    }
}
