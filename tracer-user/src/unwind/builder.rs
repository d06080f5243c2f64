//! The thread that makes tables. It asks another one, which has a deadline for each file, to open and read them, so that no file server and no
//! hostile file keeps it from the next; it fills the tables itself, since that takes a right that nobody who reads files should have.

use super::opener;
use super::rows::{self, Rows, RowsError};
use super::store::{Put, Store, Target, Use};
use crate::host::elf::ElfError;
use crate::host::privileges;
use crate::host::proc::{self, Process};
use crate::kernel_half::{events::Ring, unwind::Tables};
use crate::process::{FileVersion, NewFiles, sys};
use crate::symbols::reader::{Limits, Outcome, Reader};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracer_common::unwind::{FILES, FileKey, FileTable, Miss, PageRows, Rule};

/// Bounds of reading: the largest files take a second.
const LIMITS: Limits = Limits { longest: Duration::from_secs(10), given_up: 2, waiting: 256 };
/// How long the thread sleeps where nothing is asked for.
const REST: Duration = Duration::from_millis(20);
/// The same while files are read.
const BUSY: Duration = Duration::from_millis(2);
/// Bytes of a file that is read ahead.
const MOST_AHEAD: u64 = 64 << 20;
/// Time between two looks through the table of files, and files that may be left in it then: walks add to it meanwhile.
const LOOK_THROUGH: Duration = Duration::from_secs(60);
const MOST_FILES: usize = FILES as usize / 4 * 3;
/// What is said, with `-v`, when walks need no longer wait for files of the programs that ran at the start.
const TABLES_ARE_THERE: &str = "stacks of the programs that ran at the start are whole from now on";
/// Files that could not be had are not tried again by the same mapping.
const MOST_REFUSED: usize = 4096;
/// Files of which is remembered what they were like.
const MOST_VERSIONS: usize = 8192;

/// How the tables do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Files that were gone, or could not be opened, when they were wanted.
    pub gone: u64,
    /// Files for which there was no room.
    pub full: u64,
    /// Files that could not be read, or not in time.
    pub unread: u64,
    /// Rules for which there was no room.
    pub rules_left_out: u64,
}

impl Counters {
    /// What of it makes stacks shorter, by the words of the reports. None is of bytes.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, u64); 3] {
        [("unwind_tables_full", self.full + self.rules_left_out), ("unwind_files_gone", self.gone), ("unwind_files_unread", self.unread)]
    }
}

#[derive(Default)]
struct Shared {
    counters: Mutex<Counters>,
    stop: AtomicBool,
}

/// Tables that somebody waits for.
struct Ahead {
    /// Of a command that is going to be started, besides those of running programs.
    program: Option<PathBuf>,
    done: SyncSender<()>,
}

/// The running thread. It ends soon after this is dropped; nobody waits for it, since a file server may hold it up.
pub struct Builder {
    shared: Arc<Shared>,
    ahead: Sender<Ahead>,
}

impl Builder {
    /// Starts it. Tables of the files that `opened` gives are made ahead, as long as there is room.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(tables: Tables, misses: Ring<Miss>, opened: Option<NewFiles>) -> io::Result<Builder> {
        let shared = Arc::new(Shared::default());
        let (ahead, asked) = channel();
        let thread = Thread::new(tables, misses, opened, asked, Arc::clone(&shared));
        std::thread::Builder::new().name("memtrail-unwind".into()).spawn(move || thread.run())?;
        Ok(Builder { shared, ahead })
    }

    /// Has tables made of a program and all that it maps at its start, and waits for that as long as said. Whether they are there.
    #[must_use]
    pub fn prepare(&self, program: &Path, longest: Duration) -> bool {
        self.wait_for(Some(program.to_owned()), longest)
    }

    /// Waits until the tables of all files that running programs map are there, as long as said. Whether they are.
    #[must_use]
    pub fn settle(&self, longest: Duration) -> bool {
        self.wait_for(None, longest)
    }

    fn wait_for(&self, program: Option<PathBuf>, longest: Duration) -> bool {
        let (done, waited) = sync_channel(1);
        self.ahead.send(Ahead { program, done }).is_ok() && waited.recv_timeout(longest).is_ok()
    }

    /// How the tables do.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// What the reading thread is asked for.
#[derive(Clone)]
enum Job {
    /// The file of a mapping.
    Mapped(Miss),
    /// A file that is open.
    Open(Arc<File>),
    /// The files that a program will map.
    Program(PathBuf),
}

/// What it answers.
enum Read {
    /// A file and its rows.
    File(Arc<File>, Result<Rows, RowsError>),
    /// Files to be read.
    Files(Vec<File>),
    /// It could not be opened.
    Gone(io::Error),
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// A file that a walk met.
    Met(FileKey),
    /// One that was identified before it is read.
    Ahead(FileKey),
    /// A program.
    Program(PathBuf),
}

struct Thread {
    tables: Tables,
    misses: Ring<Miss>,
    opened: Option<NewFiles>,
    asked: Receiver<Ahead>,
    shared: Arc<Shared>,
    store: Store,
    /// Reads what walks met.
    reader: Reader<Wanted, Job, Read>,
    /// Reads what they may meet: a walk does not wait for that.
    ahead: Reader<Wanted, Job, Read>,
    /// Files that cannot be read by anyone.
    refused: HashSet<FileKey>,
    /// What files were like when they were read.
    versions: HashMap<FileKey, FileVersion>,
    /// Commands that wait.
    waiting: Vec<Ahead>,
    counters: Counters,
    /// When the table of files was last looked through.
    looked_through: Instant,
    /// This program's own file.
    own: Option<(u64, u64)>,
}

impl Thread {
    fn new(tables: Tables, misses: Ring<Miss>, opened: Option<NewFiles>, asked: Receiver<Ahead>, shared: Arc<Shared>) -> Thread {
        let store = Store::new(tables.chunks(), tables.pages(), tables.rules());
        let reader = Reader::new("memtrail-frames", LIMITS, Arc::new(read));
        let ahead = Reader::new("memtrail-ahead", LIMITS, Arc::new(read_when_idle));
        Thread {
            tables,
            misses,
            opened,
            asked,
            shared,
            store,
            reader,
            ahead,
            refused: HashSet::new(),
            versions: HashMap::new(),
            waiting: Vec::new(),
            looked_through: Instant::now(),
            own: File::open("/proc/self/exe").ok().and_then(|own| place_of(&own)),
            counters: Counters::default(),
        }
    }

    fn run(mut self) {
        privileges::keep_only_or_warn(&[privileges::UNWIND, privileges::PROCESSES]);
        self.begin();
        let descriptor = match self.misses.descriptor() {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn!("no tables for unwinding are made: {error}");
                return;
            }
        };
        while !self.shared.stop.load(Ordering::Acquire) {
            let rest = if self.is_reading() { BUSY } else { REST };
            if let Err(error) = sys::poll_readable(std::slice::from_ref(&descriptor), rest) {
                log::warn!("no more tables for unwinding are made: {error}");
                return;
            }
            self.round();
        }
    }

    /// What nearly every program maps is read before anybody asks: it is mapped here, too.
    fn begin(&mut self) {
        if let Ok(Some((start, page))) = proc::own_vdso()
            && let Ok(key) = self.tables.identify_at(start)
        {
            self.put(&key, rows::read(&page[..]), Use::Met);
        }
        let Ok(own) = Process::own() else { return };
        let Ok(maps) = own.maps() else { return };
        for vma in maps.vmas.iter().filter(|vma| vma.execute && vma.name.starts_with(b"/")) {
            let file = sys::mapped_file(&own, vma.start, vma.end).and_then(|found| crate::process::opener::read_only(&found));
            if let Ok((file, _)) = file {
                self.ask_ahead(Arc::new(file));
            }
        }
    }

    fn is_reading(&self) -> bool {
        self.reader.is_asked(|_| true) || self.ahead.is_asked(|_| true)
    }

    fn ask_ahead(&mut self, file: Arc<File>) {
        // This program's own stacks are nobody's concern.
        if place_of(&file) == self.own {
            return;
        }
        let Ok(key) = self.tables.identify(&file) else { return };
        self.note_version(&key, &file);
        if !self.store.has(&key) && !self.refused.contains(&key) {
            self.ahead.ask(Wanted::Ahead(key), Job::Open(file));
        }
    }

    /// Notes what a file is like. If it was written to since its table was made, that one is gone.
    fn note_version(&mut self, key: &FileKey, file: &File) {
        let Ok(version) = FileVersion::of(file) else { return };
        if self.versions.len() >= MOST_VERSIONS {
            self.versions.clear();
        }
        if self.versions.insert(*key, version).is_some_and(|before| before != version) {
            log::debug!("unwinding: {key:x?} was written to");
            self.refused.remove(key);
            self.store.remove(&mut self.tables, key);
        }
    }

    fn round(&mut self) {
        let own = std::process::id();
        for miss in self.misses.by_ref() {
            // This process's own stacks are nobody's concern.
            if self.refused.contains(&miss.key) {
                self.store.without(&mut self.tables, &miss.key);
            } else if miss.tgid != own && !self.store.has(&miss.key) {
                self.reader.ask(Wanted::Met(miss.key), Job::Mapped(miss));
            }
        }
        if self.looked_through.elapsed() >= LOOK_THROUGH {
            self.looked_through = Instant::now();
            self.store.forget(&mut self.tables, MOST_FILES, now_s());
        }
        let opened = self.opened.as_mut().map(|opened| opened()).unwrap_or_default();
        // Larger ones take seconds of a slow machine, and few walks meet them: those are read by need.
        for file in opened.into_iter().filter(|file| file.metadata().is_ok_and(|metadata| metadata.len() <= MOST_AHEAD)) {
            self.ask_ahead(file);
        }
        for ahead in self.asked.try_iter() {
            if let Some(program) = &ahead.program {
                self.reader.ask(Wanted::Program(program.clone()), Job::Program(program.clone()));
            }
            self.waiting.push(ahead);
        }
        let mut outcomes = Vec::new();
        for reader in [&mut self.reader, &mut self.ahead] {
            reader.wait(Some(Duration::ZERO), |wanted, outcome| outcomes.push((wanted, outcome)));
        }
        for (wanted, outcome) in outcomes {
            self.take(wanted, outcome);
        }
        if !self.waiting.is_empty() && !self.is_reading() {
            for Ahead { program, done } in self.waiting.drain(..) {
                if program.is_none() {
                    log::info!("{TABLES_ARE_THERE}");
                }
                // Who waited may have given up.
                let _ = done.try_send(());
            }
        }
        self.counters.rules_left_out = self.store.rules_left_out();
        *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.counters;
    }

    fn take(&mut self, wanted: Wanted, outcome: Outcome<Job, Read>) {
        match (wanted, outcome) {
            (_, Outcome::Answer(Read::Files(files))) => {
                for file in files {
                    self.ask_ahead(Arc::new(file));
                }
            }
            // The mapping may have gone, and another file come to its addresses.
            (Wanted::Met(key), Outcome::Answer(Read::File(file, rows))) => match self.tables.identify(&file) {
                Ok(found) if found == key => {
                    self.note_version(&key, &file);
                    self.put(&key, rows, Use::Met);
                }
                found => {
                    log::debug!("unwinding: {key:x?} is {found:x?} by now");
                    self.counters.gone += 1;
                }
            },
            (Wanted::Ahead(key), Outcome::Answer(Read::File(_, rows))) => self.put(&key, rows, Use::Ahead),
            (Wanted::Program(_), Outcome::Answer(Read::File(..))) => {}
            (wanted, Outcome::Answer(Read::Gone(error))) => {
                log::debug!("unwinding: {wanted:x?}: {error}");
                self.counters.gone += 1;
            }
            (Wanted::Met(key) | Wanted::Ahead(key), Outcome::GivenUp(_)) => {
                self.counters.unread += 1;
                self.refuse(&key);
            }
            (Wanted::Program(_), Outcome::GivenUp(_)) => {}
        }
    }

    fn put(&mut self, key: &FileKey, rows: Result<Rows, RowsError>, used: Use) {
        match rows {
            Ok(rows) => {
                log::debug!("unwinding: {key:x?}: {} rows, {} rules, {} unread", rows.rows.len(), rows.rules.len(), rows.unread);
                match self.store.put(&mut self.tables, key, &rows, used, now_s()) {
                    Ok(Put::Done) => {}
                    Err(error) => {
                        self.counters.full += 1;
                        log::warn!("a table for unwinding cannot be written: {error}");
                    }
                    Ok(Put::Full) if used == Use::Ahead => {}
                    Ok(Put::Full) => {
                        self.counters.full += 1;
                        // Not to be read again each second: the next look through the table lets walks ask for it once more.
                        self.store.without(&mut self.tables, key);
                        log::debug!("unwinding: no room for {key:x?}");
                    }
                }
            }
            Err(error) => {
                log::debug!("unwinding: {key:x?} {error}");
                match error {
                    RowsError::NoDescriptions | RowsError::Narrow | RowsError::Elf(ElfError::Foreign) => {}
                    RowsError::Elf(_) => self.counters.unread += 1,
                }
                self.refuse(key);
            }
        }
    }

    fn refuse(&mut self, key: &FileKey) {
        self.store.without(&mut self.tables, key);
        if self.refused.len() >= MOST_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(*key);
    }
}

/// The same where nobody waits: the host's own work goes first.
fn read_when_idle(job: Job) -> Read {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true)
        && let Err(error) = sys::give_way()
    {
        log::debug!("tables that are made ahead take the host's time: {error}");
    }
    read(job)
}

/// Does one job, on the reading thread.
fn read(job: Job) -> Read {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        privileges::keep_only_or_warn(&[privileges::PROCESSES]);
    }
    let file = match job {
        Job::Mapped(miss) => match opener::open_mapped(&miss) {
            Ok(file) => Arc::new(file),
            Err(error) => return Read::Gone(error),
        },
        Job::Open(file) => file,
        Job::Program(path) => return Read::Files(opener::open_program(&path)),
    };
    let rows = rows::read(&*file);
    // What a large file took is not kept for the next.
    sys::give_memory_back();
    Read::File(file, rows)
}

/// Device and inode.
fn place_of(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Seconds as the kernel half counts them.
fn now_s() -> u32 {
    (crate::host::clock::monotonic_ns() >> 30) as u32
}

impl Target for Tables {
    fn write_rows(&mut self, chunk: u32, first: usize, rows: &[u32]) -> io::Result<()> {
        Tables::write_rows(self, chunk as usize, first, rows)
    }
    fn write_pages(&mut self, first: usize, pages: &[PageRows]) -> io::Result<()> {
        Tables::write_pages(self, first, pages)
    }
    fn write_rules(&mut self, first: usize, rules: &[Rule]) -> io::Result<()> {
        Tables::write_rules(self, first, rules)
    }
    fn file(&self, key: &FileKey) -> Option<FileTable> {
        Tables::file(self, key)
    }
    fn set_file(&mut self, key: &FileKey, table: &FileTable) -> bool {
        Tables::set_file(self, key, table)
    }
    fn files(&self) -> Vec<(FileKey, FileTable)> {
        Tables::files(self)
    }
    fn remove_file(&mut self, key: &FileKey) {
        Tables::remove_file(self, key);
    }
    fn wait_for_readers(&self) {
        Tables::wait_for_readers(self);
    }
}
