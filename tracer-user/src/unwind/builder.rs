//! The thread that hears of files which walks met: it has them opened and kept (see [`crate::process::files`]), has tables made of them, and fills
//! the kernel half's tables itself, since that takes a right that nobody who reads files should have. Others open and read ([`super::jobs`]).

use super::interpreters::{Interpreters, STATE};
use super::jobs::{Content, Job, Places, Read, read, read_when_idle};
use super::rows::{self, Rows, RowsError};
use super::store::{Put, Store, Target, Use};
use crate::host::elf::ElfError;
use crate::host::lock;
use crate::host::privileges;
use crate::host::proc;
use crate::kernel_half::{events::Ring, unwind::Tables};
use crate::managed::{Found, hotspot::NotKnown};
use crate::process::{FileStore, Mapped, sys};
use crate::symbols::reader::{Limits, Outcome, Reader};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracer_common::managed::hotspot::HotSpot;
use tracer_common::unwind::{BY_ADDRESS, CLOSED, FILES, FileKey, FileTable, Miss, PageRows, Rule, SPECIAL, WITHOUT};

/// Bounds of opening and reading: the largest files take a second.
const LIMITS: Limits = Limits { longest: Duration::from_secs(10), given_up: 2, waiting: 256 };
/// How long the thread sleeps where nothing is asked for.
const REST: Duration = Duration::from_millis(20);
/// The same while files are opened and read: a program may be over in some milliseconds.
const BUSY: Duration = Duration::from_micros(300);
/// Bytes of a file that is read ahead.
const MOST_AHEAD: u64 = 64 << 20;
/// Jobs that wait while processes are listed: others must find room.
const MOST_LISTED: usize = 64;
/// Time between two looks through the table of files, and files that may be left in it then: walks add to it meanwhile.
const LOOK_THROUGH: Duration = Duration::from_secs(60);
const MOST_FILES: usize = FILES as usize / 4 * 3;
/// How often it is looked which of the open files walks still meet.
const LOOK_FOR_IDLE: Duration = Duration::from_secs(1);
/// A file that a walk met so long ago was met lately, seconds of the kernel half's (2^30 nanoseconds).
const MET_LATELY_S: u32 = 2;
/// What is said, with `-v`, when walks need no longer wait for files of the programs that ran at the start.
const TABLES_ARE_THERE: &str = "stacks of the programs that ran at the start are whole from now on";
/// Times that JVMs of a build are asked without a rest: they are being loaded.
const MOST_TRIES: u32 = 64;
/// Files that could not be had are not tried again by the same mapping.
const MOST_REFUSED: usize = 4096;
/// What the kernel half puts above the pages of a special mapping of 32-bit code, in its generation.
const NARROW: u32 = 1 << 16;

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
    files: Mutex<FileStore>,
    stop: AtomicBool,
}

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waited {
    /// Tables of a command that is going to be started, besides those of running programs.
    Program(PathBuf),
    /// Tables of running programs.
    Tables,
    /// Files that walks met before now are open.
    Files,
}

struct Ahead {
    waited: Waited,
    done: SyncSender<()>,
}

/// The running thread. It ends soon after this is dropped; nobody waits for it, since a file server may hold it up.
pub struct Builder {
    shared: Arc<Shared>,
    ahead: Sender<Ahead>,
}

impl Builder {
    /// Starts it. Without `with_tables`, files are opened and kept for their names alone.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(tables: Tables, misses: Ring<Miss>, with_tables: bool) -> io::Result<Builder> {
        let own = File::open("/proc/self/exe").ok().and_then(|own| place_of(&own));
        Builder::without(own, tables, misses, with_tables)
    }

    /// The same with tables of this program, for a benchmark of walks of its own stacks.
    ///
    /// # Errors
    /// As above.
    pub fn start_with_own(tables: Tables, misses: Ring<Miss>) -> io::Result<Builder> {
        Builder::without(None, tables, misses, true)
    }

    fn without(own: Option<(u64, u64)>, tables: Tables, misses: Ring<Miss>, with_tables: bool) -> io::Result<Builder> {
        let shared = Arc::new(Shared::default());
        let (ahead, asked) = channel();
        let thread = Thread::new(own, tables, misses, with_tables, asked, Arc::clone(&shared));
        std::thread::Builder::new().name("memtrail-unwind".into()).spawn(move || thread.run())?;
        Ok(Builder { shared, ahead })
    }

    /// Has tables made of a program and all that it maps at its start, and waits for that as long as said. Whether they are there.
    #[must_use]
    pub fn prepare(&self, program: &Path, longest: Duration) -> bool {
        self.wait_for(Waited::Program(program.to_owned()), longest)
    }

    /// Waits until the tables of all files that running programs map are there, as long as said. Whether they are.
    #[must_use]
    pub fn settle(&self, longest: Duration) -> bool {
        self.wait_for(Waited::Tables, longest)
    }

    /// Waits until the files that walks have met before now are open or gone, as long as said. Whether they are.
    #[must_use]
    pub fn settle_files(&self, longest: Duration) -> bool {
        self.wait_for(Waited::Files, longest)
    }

    fn wait_for(&self, waited: Waited, longest: Duration) -> bool {
        let (done, answer) = sync_channel(1);
        self.ahead.send(Ahead { waited, done }).is_ok() && answer.recv_timeout(longest).is_ok()
    }

    /// Files that walks met, for single look-ups.
    pub fn files(&self) -> &Mutex<FileStore> {
        &self.shared.files
    }

    /// How the tables do.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *lock(&self.shared.counters)
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// A file that a walk met is opened.
    Open(FileKey, Mapped),
    /// It is looked for interpreters, and read.
    Interpreters(FileKey),
    /// See [`Wanted::Interpreters`].
    Met(FileKey),
    /// One that was identified before it is read.
    Ahead(FileKey),
    /// A program.
    Program(PathBuf),
    /// A program that a process begins to execute.
    Executed(FileKey, Mapped),
    /// What a process maps.
    Process(u32),
    /// What a JVM says of itself.
    Jvm(FileKey),
}

struct Thread {
    tables: Tables,
    misses: Ring<Miss>,
    with_tables: bool,
    asked: Receiver<Ahead>,
    shared: Arc<Shared>,
    store: Store,
    /// Opens what walks met: the process may be gone in a moment.
    opener: Reader<Wanted, Job, Read>,
    /// Reads what walks met.
    reader: Reader<Wanted, Job, Read>,
    /// Reads what they may meet: a walk does not wait for that.
    ahead: Reader<Wanted, Job, Read>,
    /// Interpreters that were found in files.
    interpreters: Interpreters,
    /// Files that cannot be read by anyone.
    refused: HashSet<FileKey>,
    /// Processes whose files are to be listed.
    to_list: Vec<u32>,
    /// Places of files that were listed.
    listed: Places,
    /// Files that are read ahead, and a process that has each mapped.
    listed_in: HashMap<FileKey, (u32, Arc<File>)>,
    /// Who waits.
    waiting: Vec<Ahead>,
    counters: Counters,
    /// When the table of files was last looked through, and files that walks meet no more were last looked for.
    looked_through: Instant,
    looked_for_idle: Instant,
    /// This program's own file, whose stacks are nobody's concern.
    own: Option<(u64, u64)>,
}

impl Thread {
    fn new(
        own: Option<(u64, u64)>,
        tables: Tables,
        misses: Ring<Miss>,
        with_tables: bool,
        asked: Receiver<Ahead>,
        shared: Arc<Shared>,
    ) -> Thread {
        let store = Store::new(tables.chunks(), tables.pages(), tables.rules());
        Thread {
            tables,
            misses,
            with_tables,
            asked,
            shared,
            store,
            opener: Reader::new("memtrail-open", LIMITS, Arc::new(read)),
            reader: Reader::new("memtrail-frames", LIMITS, Arc::new(read)),
            ahead: Reader::new("memtrail-ahead", LIMITS, Arc::new(read_when_idle)),
            interpreters: Interpreters::default(),
            refused: HashSet::new(),
            to_list: Vec::new(),
            listed: Places::default(),
            listed_in: HashMap::new(),
            waiting: Vec::new(),
            counters: Counters::default(),
            looked_through: Instant::now(),
            looked_for_idle: Instant::now(),
            own,
        }
    }

    fn run(mut self) {
        privileges::keep_only_or_warn(&[privileges::UNWIND, privileges::PROCESSES]);
        self.begin();
        let descriptor = match self.misses.descriptor() {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::warn!("files with code are not opened, so that their functions have no names: {error}");
                return;
            }
        };
        while !self.shared.stop.load(Ordering::Acquire) {
            let rest = if self.is_reading() { BUSY } else { REST };
            if let Err(error) = sys::poll_readable(std::slice::from_ref(&descriptor), rest) {
                log::warn!("no more files with code are opened, so that their functions have no names: {error}");
                return;
            }
            self.round();
        }
    }

    /// The kernel's own code page, which no file holds, and the files of the programs that run.
    fn begin(&mut self) {
        if let Ok(Some((start, page))) = proc::own_vdso()
            && let Ok(key) = self.tables.identify_at(start)
        {
            match sys::memory_file(c"memtrail-vdso").and_then(|file| file.write_all_at(&page, 0).map(|()| file)) {
                Ok(file) => {
                    lock(&self.shared.files).insert(&key, b"[vdso]", None, Some(Arc::new(file)));
                }
                Err(error) => log::debug!("functions of the vDSO have no names: {error}"),
            }
            if self.with_tables {
                self.put(&key, rows::read(&page[..]), Use::Met);
            } else {
                self.note_without(&key);
            }
        }
        if self.with_tables {
            self.to_list = proc::tgids().map(Iterator::collect).unwrap_or_default();
        }
    }

    fn is_reading(&self) -> bool {
        [&self.opener, &self.reader, &self.ahead].iter().any(|reader| reader.is_asked(|_| true)) || !self.to_list.is_empty()
    }

    fn is_own(&self, file: &File) -> bool {
        self.own.is_some() && place_of(file) == self.own
    }

    /// Asks for the table of a file that nobody has met yet; `tgid` has it mapped.
    fn ask_ahead(&mut self, key: FileKey, file: Arc<File>, tgid: Option<u32>) {
        // Larger files take seconds of a slow machine, and few walks meet them: those are read by need.
        let is_large = file.metadata().is_ok_and(|metadata| metadata.len() > MOST_AHEAD);
        if self.store.has(&key) || self.refused.contains(&key) {
            return;
        }
        let is_asked = if !is_large {
            self.ahead.ask(Wanted::Ahead(key), Job::Ahead(Arc::clone(&file)))
        } else if !self.interpreters.has(&key) {
            self.ahead.ask(Wanted::Interpreters(key), Job::Interpreters(Arc::clone(&file)))
        } else {
            false
        };
        if let Some(tgid) = tgid.filter(|_| is_asked) {
            self.listed_in.insert(key, (tgid, file));
        }
    }

    fn round(&mut self) {
        let own = self.own.map(|_| std::process::id());
        let misses: Vec<Miss> = self.misses.by_ref().filter(|miss| Some(miss.tgid) != own).collect();
        for miss in misses {
            self.met(miss);
        }
        let closed = lock(&self.shared.files).take_closed();
        for key in closed {
            self.change_state(&key, |state| state | CLOSED);
        }
        self.look_around();
        self.list();
        for ahead in self.asked.try_iter() {
            if let Waited::Program(program) = &ahead.waited {
                self.ahead.ask(Wanted::Program(program.clone()), Job::Program(program.clone()));
            }
            self.waiting.push(ahead);
        }
        let mut outcomes = Vec::new();
        for reader in [&mut self.opener, &mut self.reader, &mut self.ahead] {
            reader.wait(Some(Duration::ZERO), |wanted, outcome| outcomes.push((wanted, outcome)));
        }
        for (wanted, outcome) in outcomes {
            self.take(wanted, outcome);
        }
        let (is_reading, is_opening) = (self.is_reading(), self.opener.is_asked(|_| true));
        self.waiting.retain(|Ahead { waited, done }| {
            if is_opening || is_reading && *waited != Waited::Files {
                return true;
            }
            if *waited == Waited::Tables {
                log::info!("{TABLES_ARE_THERE}");
            }
            // Who waited may have given up.
            let _ = done.try_send(());
            false
        });
        self.counters.rules_left_out = self.store.rules_left_out();
        *lock(&self.shared.counters) = self.counters;
    }

    /// A walk has met a file that is not open, or has no table.
    fn met(&mut self, miss: Miss) {
        let key = miss.key;
        if key.inode == SPECIAL {
            // What uprobes run instructions at is one page; the code page of 32-bit programs is not this program's.
            let name: &[u8] = if key.generation & NARROW != 0 { b"[vdso]" } else { b"[uprobes]" };
            lock(&self.shared.files).insert(&key, name, None, None);
            self.note_without(&key);
            return;
        }
        let open = lock(&self.shared.files).get(key.number()).and_then(|known| known.open);
        match open.filter(|_| lock(&self.shared.files).is_open(&key)) {
            Some(open) => {
                // Of what can have no table, or found no room, the JVM in it may be wanted all the same.
                if self.interpreters.is_wanted(&key) && self.tables.file(&key).is_some_and(|table| table.state & WITHOUT != 0) {
                    self.change_state(&key, |state| state & !CLOSED);
                } else {
                    self.opened(&key, open.file);
                }
                self.ask_jvm(&key, miss.tgid, miss.start);
            }
            None => {
                let mapped = Mapped { tgid: miss.tgid, start: miss.start, end: miss.end, process: miss.process };
                let is_it = |wanted: &Wanted| matches!(wanted, Wanted::Open(asked, _) | Wanted::Executed(asked, _) if *asked == key);
                let (wanted, job) = match miss.start {
                    0 => (Wanted::Executed(key, mapped), Job::Executed(miss.tgid)),
                    _ => (Wanted::Open(key, mapped), Job::Mapped(miss)),
                };
                if !self.opener.is_asked(is_it) && !self.opener.ask(wanted, job) {
                    lock(&self.shared.files).note_not_tried();
                }
            }
        }
    }

    /// The file is open: walks need not tell of it any more, and its table is to be made.
    fn opened(&mut self, key: &FileKey, file: Arc<File>) {
        if !self.with_tables || self.refused.contains(key) {
            self.note_without(key);
        } else if self.store.has(key) {
            self.change_state(key, |state| state & !CLOSED);
        } else {
            self.read_met(*key, file);
        }
    }

    fn change_state(&mut self, key: &FileKey, change: impl Fn(u32) -> u32) {
        let Some(table) = self.tables.file(key) else { return };
        let state = change(table.state);
        if state != table.state {
            // The entry is there, so there is room for it; if it has gone meanwhile, a walk makes it anew.
            // Who meets it next may tell of it at once.
            let _ = self.tables.set_file(key, &FileTable { state, asked_s: 0, ..table });
        }
    }

    /// What is done from time to time.
    fn look_around(&mut self) {
        if self.looked_through.elapsed() >= LOOK_THROUGH {
            self.looked_through = Instant::now();
            self.store.forget(&mut self.tables, MOST_FILES, now_s());
        }
        if self.looked_for_idle.elapsed() < LOOK_FOR_IDLE {
            return;
        }
        self.looked_for_idle = Instant::now();
        let (open, now_s) = (lock(&self.shared.files).opened(), now_s());
        let was_met = |key: &FileKey| self.tables.file(key).is_some_and(|table| now_s.saturating_sub(table.used_s) <= MET_LATELY_S);
        let unmet = open.iter().filter(|key| !was_met(key)).map(FileKey::number).collect();
        lock(&self.shared.files).note_unmet(&unmet);
    }

    /// Has files of running processes read, a few processes at a time.
    fn list(&mut self) {
        while let Some(tgid) = self.to_list.last().copied() {
            if self.ahead.asked() >= MOST_LISTED || !self.ahead.ask(Wanted::Process(tgid), Job::Process(tgid, Arc::clone(&self.listed))) {
                return;
            }
            self.to_list.pop();
        }
    }

    fn take(&mut self, wanted: Wanted, outcome: Outcome<Job, Read>) {
        let listed_in = match &wanted {
            Wanted::Ahead(key) | Wanted::Interpreters(key) => self.listed_in.remove(key),
            _ => None,
        };
        match (wanted, outcome) {
            (Wanted::Program(_), Outcome::Answer(Read::Files(files))) => {
                let by = Mapped { tgid: std::process::id(), start: 0, end: 0, process: 0 };
                for file in files {
                    self.take_program(Arc::new(file), by, None);
                }
            }
            (Wanted::Executed(key, by), Outcome::Answer(Read::Files(files))) => {
                let mut is_found = false;
                for file in files {
                    is_found |= self.take_program(Arc::new(file), by, Some(key)) == Some(key);
                }
                if !is_found {
                    self.note_gone(&key);
                }
            }
            (wanted, Outcome::Answer(Read::Files(files))) => {
                let tgid = if let Wanted::Process(tgid) = wanted { Some(tgid) } else { None };
                for file in files {
                    if !self.is_own(&file)
                        && let Ok(key) = self.tables.identify(&file)
                    {
                        self.ask_ahead(key, Arc::new(file), tgid);
                    }
                }
            }
            (Wanted::Open(key, by), Outcome::Answer(Read::Mapped(path, content))) => self.take_mapped(&key, by, &path, content),
            (Wanted::Interpreters(key), Outcome::Answer(Read::Interpreters(found))) => {
                self.take_interpreters(&key, found, listed_in);
                let open = lock(&self.shared.files).get(key.number()).and_then(|known| known.open);
                if let Some(open) = open.filter(|_| !self.store.has(&key) && lock(&self.shared.files).is_open(&key)) {
                    self.reader.ask(Wanted::Met(key), Job::Open(open.file));
                }
            }
            (Wanted::Jvm(key), Outcome::Answer(Read::Jvm(said))) => self.take_jvm(&key, said),
            (Wanted::Met(key), Outcome::Answer(Read::Rows(rows))) => self.put(&key, rows, Use::Met),
            (Wanted::Ahead(key), Outcome::Answer(Read::Both(found, rows))) => {
                self.take_interpreters(&key, found, listed_in);
                let is_open = lock(&self.shared.files).is_open(&key);
                self.put(&key, rows, if is_open { Use::Met } else { Use::Ahead });
            }
            (Wanted::Open(key, _), Outcome::Answer(Read::Gone(error))) => {
                log::debug!("{key:x?} is gone: {error}");
                self.note_gone(&key);
            }
            (Wanted::Open(key, _) | Wanted::Executed(key, _), Outcome::GivenUp(_)) => {
                // Each time would cost a thread.
                lock(&self.shared.files).note_refused();
                self.note_without(&key);
            }
            (Wanted::Jvm(key), Outcome::GivenUp(_)) => self.try_jvm_again(&key),
            (Wanted::Met(key) | Wanted::Ahead(key) | Wanted::Interpreters(key), Outcome::GivenUp(_)) => {
                self.counters.unread += 1;
                self.refuse(&key);
            }
            // What a command would map is not known then, and what a process maps; and no job has another's answer.
            _ => {}
        }
    }

    fn note_gone(&mut self, key: &FileKey) {
        self.counters.gone += u64::from(!self.store.has(key));
        lock(&self.shared.files).note_gone();
    }

    /// A file of a program that is going to run or has just begun: it may be over before anybody can open the file as a mapping of its. Which file
    /// it is.
    fn take_program(&mut self, file: Arc<File>, by: Mapped, executed: Option<FileKey>) -> Option<FileKey> {
        let key = self.tables.identify(&file).ok()?;
        // Another process that executes it, as a workload of the demo does, is not this one.
        if executed != Some(key) && self.is_own(&file) {
            return Some(key);
        }
        if !lock(&self.shared.files).is_open(&key) {
            let path = sys::path_of(&*file).ok()?;
            lock(&self.shared.files).insert(&key, path.as_os_str().as_encoded_bytes(), Some(by), Some(Arc::clone(&file)));
        }
        // The program itself runs already: its table does not wait until nothing else wants to run.
        if executed == Some(key) || self.store.has(&key) {
            self.opened(&key, file);
        } else {
            self.ask_ahead(key, file, None);
        }
        Some(key)
    }

    fn take_mapped(&mut self, key: &FileKey, by: Mapped, path: &[u8], content: Content) {
        match content {
            Content::File(file) => match self.tables.identify(&file) {
                Ok(found) if found == *key => {
                    let is_kept = lock(&self.shared.files).insert(key, path, Some(by), Some(Arc::clone(&file)));
                    if is_kept {
                        log::debug!("{} is {key:x?}", crate::text::escape_bytes(path));
                        self.opened(key, file);
                        self.ask_jvm(key, by.tgid, by.start);
                    }
                    // Where this one is, others are that are met next.
                    if self.with_tables {
                        self.ahead.ask(Wanted::Process(by.tgid), Job::Process(by.tgid, Arc::clone(&self.listed)));
                    }
                }
                // The mapping may have gone, and another file come to its addresses; or it was written to.
                found => {
                    log::debug!("{key:x?} is {found:x?} by now");
                    self.note_gone(key);
                }
            },
            Content::Memory => self.change_state(key, |_| WITHOUT | BY_ADDRESS),
            Content::Refused => {
                let mut files = lock(&self.shared.files);
                files.note_refused();
                files.insert(key, path, Some(by), None);
                drop(files);
                self.note_without(key);
            }
        }
    }

    fn put(&mut self, key: &FileKey, rows: Result<Rows, RowsError>, used: Use) {
        match rows {
            Ok(rows) => {
                log::debug!("unwinding: {key:x?}: {} rows, {} rules, {} unread", rows.rows.len(), rows.rules.len(), rows.unread);
                let put = self.store.put(&mut self.tables, key, &rows, used, now_s());
                self.mark_interpreters(key);
                match put {
                    Ok(Put::Done) => {}
                    Err(error) => {
                        self.counters.full += 1;
                        log::warn!("a table for unwinding cannot be written: {error}");
                    }
                    Ok(Put::Full) if used == Use::Ahead => {}
                    Ok(Put::Full) => {
                        self.counters.full += 1;
                        // Not to be read again each second: the next look through the table lets walks ask for it once more.
                        self.note_without(key);
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

    /// Has a file that was met looked for interpreters, and read after that: the first takes a tenth of the time. One whose server does not answer
    /// costs a thread once.
    fn read_met(&mut self, key: FileKey, file: Arc<File>) {
        if self.interpreters.has(&key) {
            self.mark_interpreters(&key);
            self.reader.ask(Wanted::Met(key), Job::Open(file));
        } else {
            self.reader.ask(Wanted::Interpreters(key), Job::Interpreters(file));
        }
    }

    /// There is no table of a file, and the interpreters in it are known all the same.
    fn note_without(&mut self, key: &FileKey) {
        self.store.without(&mut self.tables, key);
        self.mark_interpreters(key);
    }

    /// Tells the kernel half how functions of the interpreters in a file are read.
    fn take_interpreters(&mut self, key: &FileKey, found: Found, listed_in: Option<(u32, Arc<File>)>) {
        if let Some(code) = self.interpreters.tell(&mut self.tables, key, found) {
            lock(&self.shared.files).note_interpreter(key, code);
        }
        let mapped = lock(&self.shared.files).mapped_by(key);
        if let Some(mapped) = mapped {
            self.ask_jvm(key, mapped.tgid, mapped.start);
        } else if let Some((tgid, library)) = listed_in {
            self.ask_jvm_of(key, tgid, 0, library);
        }
        self.mark_interpreters(key);
    }

    /// Asks a JVM in a process that has it mapped, if it is not known what it says of itself.
    fn ask_jvm(&mut self, key: &FileKey, tgid: u32, start: u64) {
        let open = lock(&self.shared.files).get(key.number()).and_then(|known| known.open);
        if let Some(open) = open.filter(|_| start != 0 && lock(&self.shared.files).is_open(key)) {
            self.ask_jvm_of(key, tgid, start, open.file);
        }
    }

    /// The same with its library, which may be mapped anywhere where `start` is 0.
    fn ask_jvm_of(&mut self, key: &FileKey, tgid: u32, start: u64, library: Arc<File>) {
        let is_it = |wanted: &Wanted| *wanted == Wanted::Jvm(*key);
        if self.interpreters.is_wanted(key)
            && !self.opener.is_asked(is_it)
            && !self.opener.ask(Wanted::Jvm(*key), Job::Jvm(tgid, start, library))
        {
            self.try_jvm_again(key);
        }
    }

    /// The next walk that meets a JVM tells of its process: at once where it is being loaded, and else once a second.
    fn try_jvm_again(&mut self, key: &FileKey) {
        let asked_s = if self.interpreters.note_try(key) < MOST_TRIES { 0 } else { now_s() };
        if let Some(table) = self.tables.file(key) {
            // The entry is there, so there is room for it.
            let _ = self.tables.set_file(key, &FileTable { state: table.state | CLOSED, asked_s, ..table });
        }
    }

    fn take_jvm(&mut self, key: &FileKey, said: Result<HotSpot, NotKnown>) {
        let said = match said {
            Ok(hotspot) => Ok(hotspot),
            Err(error @ NotKnown::Layout(_)) => Err(error.to_string()),
            Err(error) => {
                log::debug!("a JVM: {error}");
                self.try_jvm_again(key);
                return;
            }
        };
        self.interpreters.tell_jvm(&mut self.tables, key, said);
        self.mark_interpreters(key);
    }

    /// Says in a file's entry which interpreters are in it. One that no walk has met gets an entry for that: the first walk knows it then.
    fn mark_interpreters(&mut self, key: &FileKey) {
        if let Some(told) = self.interpreters.state(key) {
            if self.tables.file(key).is_none() {
                // Where there is no room, the first walk makes one.
                let _ = self.tables.set_file(key, &FileTable { state: CLOSED, asked_s: now_s(), ..FileTable::default() });
            }
            self.change_state(key, |state| state & !STATE | told);
        }
    }

    /// There can be no table of a file. Of one that nobody met, the first walk tells all the same, for its names.
    fn refuse(&mut self, key: &FileKey) {
        if lock(&self.shared.files).is_open(key) {
            self.note_without(key);
        }
        if self.refused.len() >= MOST_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(*key);
    }
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
