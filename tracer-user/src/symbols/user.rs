//! User addresses of an image to frames: finds the mapping, groups by file, asks [`super::elf`] once a file, remembers the answers.

use super::build_id;
use super::elf::{self, ElfError, ElfOptions};
use super::kernel::KernelSymbols;
use super::perf_map::PerfMap;
use super::stack::{self, Place, Status, judge_user_stack};
use super::{Frame, FrameKind};
use crate::host::proc::Process;
use crate::process::{FileStore, Image, MappedFile, Mapping, OpenFile, sys};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tracer_common::stack::StackStatus;

/// Answers remembered: some 10 MB when full, less where names repeat.
const MAX_CACHED: usize = 65_536;
/// Perf maps remembered, by process, and entries of all of them before the next is read.
const MAX_PERF_MAPS: usize = 64;
const MAX_PERF_ENTRIES: usize = 1 << 17;
/// Files remembered with their build ids.
const MAX_BINARIES: usize = 4096;
/// Stands for several files in place of one's id.
const SEVERAL: u64 = u64::MAX;
/// The store's ids begin at 1; this stands for the kernel's code page.
const VDSO_ID: u64 = 0;

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
    /// Files parsed.
    pub files: u64,
    /// Files that could not be read when their symbols were wanted.
    pub unreadable: u64,
    /// Files refused before parsing: not ELF, malformed, too large.
    pub refused: u64,
    /// Files that the parser could not understand.
    pub malformed: u64,
    /// Files that made the parser panic.
    pub panicked: u64,
    /// Look-ups in mappings whose file is not open (any more).
    pub not_open: u64,
    /// Times the remembered answers were thrown away because there were too many.
    pub cache_flushes: u64,
}

/// A user stack made readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserStack {
    /// Innermost first, inlined functions as frames of their own.
    pub frames: Vec<Frame>,
    /// How far it reaches.
    pub status: Status,
}

/// A file in which frames were found since [`Symbolizer::refresh`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// Path seen from the process. Hostile.
    pub path: String,
    /// Hexadecimal digits.
    pub build_id: Option<String>,
    /// Names of the frames that are in no other file.
    pub frames: Vec<String>,
}

/// What is known of one place in a file.
#[derive(Clone, Debug, Default)]
struct Answer {
    frames: Option<Arc<[Frame]>>,
    root_call: bool,
}

/// A place in a file: the store's id of it, the offset, and whether it is a return address.
type Spot = (u64, u64, bool);

/// Offsets in a file, and whether each is a return address.
type Places = BTreeSet<(u64, bool)>;

/// Places that are not remembered yet, of many stacks, to be looked up at once: to open and parse a file costs far more than to
/// look one place more up in it, and the kernel writes all of its names for each that is asked for.
#[derive(Debug, Default)]
pub struct Unknown {
    files: HashMap<u64, (OpenFile, Arc<MappedFile>, Places)>,
    kernel: BTreeSet<u64>,
}

/// Turns addresses into frames. Not for several threads at once: keep it on the one that makes reports.
#[derive(Debug)]
pub struct Symbolizer {
    options: ElfOptions,
    cache: HashMap<Spot, Answer>,
    kernel: KernelSymbols,
    vdso: Option<OpenFile>,
    perf_maps: HashMap<(u32, u64), Option<PerfMap>>,
    /// Files by their ids, without frames.
    binaries: HashMap<u64, Binary>,
    /// Files that are closed: what is remembered of them cannot be looked up again.
    settled: HashSet<u64>,
    /// In which file each name was found since the last report.
    found_in: HashMap<String, u64>,
    counters: SymbolCounters,
}

impl Symbolizer {
    /// An empty one.
    #[must_use]
    pub fn new(options: SymbolizerOptions) -> Symbolizer {
        Symbolizer {
            options: ElfOptions { debug: options.debug, debug_directories: options.debug_directories },
            cache: HashMap::new(),
            kernel: KernelSymbols::default(),
            vdso: None,
            perf_maps: HashMap::new(),
            binaries: HashMap::new(),
            settled: HashSet::new(),
            found_in: HashMap::new(),
            counters: SymbolCounters::default(),
        }
    }

    /// The frames of a user stack, innermost first. `addresses` are as recorded: the first is where the task was, the others are
    /// return addresses. Every address gives at least one frame.
    pub fn user(&mut self, image: &Image, addresses: &[u64], files: &Mutex<FileStore>) -> Vec<Frame> {
        self.places(image, addresses, files).into_iter().flat_map(|found| found.frames).collect()
    }

    /// The same with the judgement how far it reaches; what lies beyond the root is left out.
    pub fn user_stack(&mut self, image: &Image, addresses: &[u64], recorded: StackStatus, files: &Mutex<FileStore>) -> UserStack {
        let found = self.places(image, addresses, files);
        let places: Vec<Place<'_>> =
            found.iter().filter_map(|f| Some(Place { frame: f.frames.last()?, mapped: f.mapped, root_call: f.root_call })).collect();
        let (status, real) = judge_user_stack(&places, recorded);
        UserStack { frames: found.into_iter().take(real).flat_map(|f| f.frames).collect(), status }
    }

    /// The frames of a kernel stack, innermost first, one an address.
    pub fn kernel(&mut self, addresses: &[u64]) -> Vec<Frame> {
        self.kernel.frames(&looked_up(addresses).collect::<Vec<_>>())
    }

    /// What to tell the user about kernel names, once known.
    #[must_use]
    pub fn kernel_warning(&self) -> Option<&'static str> {
        self.kernel.warning()
    }

    /// Forgets perf maps, which JITs go on writing, and in which files frames were found. Call it once a report.
    pub fn refresh(&mut self) {
        self.perf_maps.clear();
        self.found_in.clear();
        if self.binaries.len() >= MAX_BINARIES {
            self.binaries.clear();
        }
    }

    /// The files in which frames were found. A name that is in several files is in none here.
    #[must_use]
    pub fn binaries(&self) -> Vec<Binary> {
        let mut binaries: BTreeMap<(&str, Option<&str>), Vec<String>> = BTreeMap::new();
        for (name, id) in &self.found_in {
            if let Some(Binary { path, build_id, .. }) = self.binaries.get(id) {
                binaries.entry((path, build_id.as_deref())).or_default().push(name.clone());
            }
        }
        let row = |((path, build_id), mut frames): ((&str, Option<&str>), Vec<String>)| {
            frames.sort_unstable();
            Binary { path: path.to_owned(), build_id: build_id.map(str::to_owned), frames }
        };
        binaries.into_iter().map(row).collect()
    }

    /// Notes that these files are going to be closed: their answers outlive those of files that can be read again.
    pub fn settle(&mut self, ids: impl Iterator<Item = u64>) {
        self.settled.extend(ids);
    }

    /// Remembers a file's path and build id.
    fn remember_file(&mut self, open: &OpenFile, path: &[u8]) {
        if self.binaries.len() < MAX_BINARIES {
            self.binaries.entry(open.id).or_insert_with(|| Binary {
                path: String::from_utf8_lossy(path).into_owned(),
                build_id: build_id::of_file(&open.file),
                frames: Vec::new(),
            });
        }
    }

    /// Remembers in which file frames are.
    fn remember(&mut self, frames: &[Frame], file: u64) {
        for frame in frames {
            let build_id = |id: &u64| self.binaries.get(id)?.build_id.as_ref();
            match self.found_in.get(&frame.name) {
                // Two openings of one build are one file.
                Some(id) if *id == file || build_id(id).is_some() && build_id(id) == build_id(&file) => {}
                Some(_) => drop(self.found_in.insert(frame.name.clone(), SEVERAL)),
                None if self.found_in.len() < MAX_CACHED => drop(self.found_in.insert(frame.name.clone(), file)),
                None => {}
            }
        }
    }

    /// What could not be named.
    #[must_use]
    pub fn counters(&self) -> SymbolCounters {
        self.counters
    }

    /// Notes what of a user stack is not remembered yet. See [`Unknown`].
    pub fn gather_user(&mut self, image: &Image, addresses: &[u64], files: &Mutex<FileStore>, unknown: &mut Unknown) {
        let spots = self.spots(image, addresses, files);
        self.gather(&spots, unknown);
    }

    /// The same of a kernel stack.
    pub fn gather_kernel(&self, addresses: &[u64], unknown: &mut Unknown) {
        unknown.kernel.extend(looked_up(addresses).filter(|address| !self.kernel.knows(*address)));
    }

    /// Looks everything up, each file and the kernel's names once.
    pub fn learn(&mut self, unknown: Unknown) {
        let kernel: Vec<u64> = unknown.kernel.into_iter().collect();
        self.kernel.frames(&kernel);
        for (open, path, wanted) in unknown.files.into_values() {
            self.remember_file(&open, &path.path);
            self.learn_file(&open, &wanted.into_iter().collect::<Vec<_>>());
        }
    }

    /// The mapping, its file if that is open, and the address to look up for each recorded one.
    fn spots<'i>(&mut self, image: &'i Image, addresses: &[u64], files: &Mutex<FileStore>) -> Vec<Found<'i>> {
        looked_up(addresses)
            .enumerate()
            .map(|(n, address)| {
                let mapping = image.mapping(address);
                let (open, id) = mapping.map_or((None, None), |mapping| self.open_file(&mapping.file, files));
                Found { mapping, open, id, address, returns: n > 0 }
            })
            .collect()
    }

    fn places(&mut self, image: &Image, addresses: &[u64], files: &Mutex<FileStore>) -> Vec<Named> {
        let spots = self.spots(image, addresses, files);
        let mut unknown = Unknown::default();
        self.gather(&spots, &mut unknown);
        self.learn(unknown);
        spots
            .into_iter()
            .map(|Found { mapping, open, id, address, returns }| {
                let Some(mapping) = mapping else { return Named { frames: vec![Frame::unknown()], mapped: false, root_call: false } };
                let answer = id.and_then(|id| self.cache.get(&(id, mapping.file_offset(address), returns))).cloned();
                let answer = answer.unwrap_or_default();
                let frames = match answer.frames {
                    Some(frames) => frames.to_vec(),
                    None => vec![self.jit_name(image, mapping, address).unwrap_or_else(|| place_name(mapping, address, returns))],
                };
                if let Some(open) = &open {
                    self.remember_file(open, &mapping.file.path);
                }
                if let Some(id) = id {
                    self.remember(&frames, id);
                }
                Named { frames, mapped: true, root_call: answer.root_call && stack::is_c_library(mapping.file.base_name()) }
            })
            .collect()
    }

    fn gather(&self, spots: &[Found<'_>], unknown: &mut Unknown) {
        for Found { mapping, open, address, returns, .. } in spots {
            let Some((mapping, open)) = mapping.zip(open.as_ref()) else { continue };
            let place = (mapping.file_offset(*address), *returns);
            if !self.cache.contains_key(&(open.id, place.0, place.1)) {
                let found = unknown.files.entry(open.id).or_insert_with(|| (open.clone(), Arc::clone(&mapping.file), Places::new()));
                found.2.insert(place);
            }
        }
    }

    /// Looks up sorted places of one file.
    fn learn_file(&mut self, open: &OpenFile, wanted: &[(u64, bool)]) {
        if self.cache.len() + wanted.len() > MAX_CACHED {
            self.forget();
        }
        let offsets: Vec<u64> = wanted.iter().map(|(offset, _)| *offset).collect();
        let functions = elf::functions(open, &offsets, &self.options);
        match functions {
            Ok(_) => self.counters.files += 1,
            Err(ElfError::Unreadable) => self.counters.unreadable += 1,
            Err(ElfError::Refused(_)) => self.counters.refused += 1,
            Err(ElfError::Malformed) => self.counters.malformed += 1,
            Err(ElfError::Panicked) => self.counters.panicked += 1,
        }
        // A large file's index is the most that the collector ever holds: not that of two.
        sys::give_memory_back();
        let mut functions = functions.unwrap_or_default().into_iter();
        for &(offset, returns) in wanted {
            let code = if returns { elf::code_around(open, offset + 1) } else { None };
            let root_call = code.is_some_and(|(before, after)| stack::is_root_call(&before, &after));
            let frames = functions.next().flatten().map(Arc::from);
            self.cache.insert((open.id, offset, returns), Answer { frames, root_call });
        }
    }

    /// Makes room: what can be looked up again goes first.
    fn forget(&mut self) {
        self.counters.cache_flushes += 1;
        self.cache.retain(|(file, ..), _| self.settled.contains(file));
        if self.cache.len() > MAX_CACHED / 2 {
            self.cache.clear();
        }
        let left: HashSet<u64> = self.cache.keys().map(|(file, ..)| *file).collect();
        self.settled.retain(|file| left.contains(file));
    }

    /// The file, if it is open, and its id, also if it was closed since.
    fn open_file(&mut self, file: &MappedFile, files: &Mutex<FileStore>) -> (Option<OpenFile>, Option<u64>) {
        if file.is_vdso() {
            if self.vdso.is_none() {
                self.vdso = own_vdso();
            }
            return (self.vdso.clone(), self.vdso.as_ref().map(|open| open.id));
        }
        if file.identity.inode == 0 {
            return (None, None);
        }
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let open = files.get(&file.identity);
        let id = open.as_ref().map(|open| open.id).or_else(|| files.closed_id(&file.identity));
        self.counters.not_open += u64::from(id.is_none());
        (open, id)
    }

    /// The name that a JIT gave to its code.
    fn jit_name(&mut self, image: &Image, mapping: &Mapping, address: u64) -> Option<Frame> {
        // JITs use anonymous memory or files in memory; ordinary libraries have no perf map entries.
        let in_memory =
            mapping.file.is_anonymous() || mapping.file.path.starts_with(b"/memfd:") || mapping.file.path.starts_with(b"/dev/zero");
        if !in_memory {
            return None;
        }
        let known = self.perf_maps.contains_key(&(image.tgid, image.from_ns));
        let entries: usize = self.perf_maps.values().flatten().map(PerfMap::len).sum();
        if !known && (self.perf_maps.len() >= MAX_PERF_MAPS || entries >= MAX_PERF_ENTRIES) {
            self.perf_maps.clear();
        }
        let map = self.perf_maps.entry((image.tgid, image.from_ns)).or_insert_with(|| match image.to_ns {
            None => PerfMap::of_process(image.tgid),
            Some(_) => PerfMap::left_behind(image.tgid),
        });
        map.as_ref()?.name(address).map(|name| Frame::new(FrameKind::User, name))
    }
}

/// Where an address lies.
struct Found<'i> {
    mapping: Option<&'i Mapping>,
    open: Option<OpenFile>,
    /// The store's id of the file, also where it is closed.
    id: Option<u64>,
    /// What is looked up.
    address: u64,
    returns: bool,
}

/// What stands there.
struct Named {
    frames: Vec<Frame>,
    mapped: bool,
    root_call: bool,
}

/// What to look up for recorded addresses, innermost first: the first is where the task was, the others are return addresses. A call
/// can be the last instruction of its function: what was called from lies before the return address.
fn looked_up(addresses: &[u64]) -> impl Iterator<Item = u64> {
    addresses.iter().enumerate().map(|(n, &address)| if n == 0 { address } else { address.saturating_sub(1) })
}

/// `[binary+0xoffset]`: the address as recorded, in the file.
fn place_name(mapping: &Mapping, looked_up: u64, returns: bool) -> Frame {
    if mapping.file.is_anonymous() {
        // Code that was written at run time moves about: its address would split what belongs together.
        return Frame::new(FrameKind::Unknown, "[jit]");
    }
    let name = String::from_utf8_lossy(mapping.file.base_name());
    let name = name.trim_start_matches('[').trim_end_matches(']');
    // A name of any length would push the offset out of the bound of a frame.
    let name: String = name.chars().take(100).collect();
    let offset = mapping.file_offset(looked_up).wrapping_add(u64::from(returns));
    Frame::new(FrameKind::Unknown, &format!("[{name}+{offset:#x}]"))
}

/// The kernel's code page, which is the same in every 64-bit process, from this one.
fn own_vdso() -> Option<OpenFile> {
    let own = Process::own().ok()?;
    let vdso = own.maps().ok()?.vmas.into_iter().find(|vma| *vma.name == *b"[vdso]")?;
    let mut bytes = vec![0; usize::try_from(vdso.bytes()).ok()?];
    own.open_file("mem").ok()?.read_exact_at(&mut bytes, vdso.start).ok()?;
    let file = sys::memory_file(&CString::new("memtrail-vdso").ok()?).ok()?;
    file.write_all_at(&bytes, 0).ok()?;
    Some(OpenFile { id: VDSO_ID, identity: crate::process::FileIdentity::NONE, size: bytes.len() as u64, file: Arc::new(file) })
}
