//! Files with code in which stacks were found, by the number that frames know them by, kept open so that symbols can be read after the
//! process, its container and its mounts are gone.
//!
//! A bounded store; opening is done by [`super::opener`], by whoever is told that a walk met a file. An open file pins its inode, and also its file
//! system, which cannot be unmounted then. So a file is let go when it is idle ([`FileStore::idle`], [`FileStore::let_go`]): whoever wants its
//! names learns them before, and it is opened again when a walk meets it again. What it was called stays known.

use super::sys;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use tracer_common::unwind::FileKey;

/// Descriptors used at most, and never more than a quarter of what the process may have.
const MAX_FILES: usize = 512;
/// Files with an interpreter, open or not.
const MAX_INTERPRETERS: usize = 4096;
/// Files of which the name is known, open or not.
const MAX_KNOWN: usize = 16_384;

/// An opened file.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// [`FileKey::number`]: what caches may be keyed by, since other bytes in the same place have another one.
    pub number: u32,
    /// What it was like then, as far as the file system says.
    pub version: Option<FileVersion>,
    /// The file, open for reading. Its owner can change or cut it at any time: never map it.
    pub file: Arc<File>,
}

/// A file as it is known.
#[derive(Clone, Debug)]
pub struct CodeFile {
    /// Path as the kernel shows it: in the process's mount namespace. Hostile bytes.
    pub path: Arc<[u8]>,
    /// The file, while it is open.
    pub open: Option<OpenFile>,
    /// The code that runs an interpreter's frames; `None` in a file without an interpreter that is known.
    pub interpreter: Option<Arc<Loop>>,
}

/// The code of an interpreter that runs its frames, as offsets in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loop {
    /// All of it, the beginning of the function first.
    pub parts: Vec<Range<u64>>,
    /// So many bytes from there on the interpreter's frames are not those of the stack.
    pub begins: u64,
}

impl Loop {
    /// Whether an offset is in it.
    #[must_use]
    pub fn contains(&self, offset: u64) -> bool {
        self.parts.iter().any(|part| part.contains(&offset))
    }

    /// Whether it is where the interpreter's frames are not those of the stack yet.
    #[must_use]
    pub fn has_just_begun(&self, offset: u64) -> bool {
        self.parts.first().is_some_and(|part| offset.wrapping_sub(part.start) < self.begins)
    }
}

impl CodeFile {
    /// Last component of the path, without the kernel's mark for deleted files.
    #[must_use]
    pub fn base_name(&self) -> &[u8] {
        let path = self.path.strip_suffix(b" (deleted)").unwrap_or(&self.path);
        path.rsplit(|&b| b == b'/').next().unwrap_or(path)
    }
}

/// Where a process has mapped a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Thread-group id.
    pub tgid: u32,
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Identity of the process's image; 0 for none.
    pub process: u64,
}

/// What happened to files, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// Opened.
    pub opened: u64,
    /// Not reachable any more: the process had ended or unmapped it.
    pub gone: u64,
    /// Not a regular file, or on a file system served by a user process, which could stop the reader for ever.
    pub refused: u64,
    /// Pushed out by others.
    pub evicted: u64,
    /// Closed because nobody seems to run them any more.
    pub let_go: u64,
    /// Not tried, because too many waited to be opened; or two files that have one number.
    pub not_tried: u64,
}

/// What tells whether a file is as it was: its size, when it was last written to, and when anything of it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    size: u64,
    written: (i64, i64),
}

impl FileVersion {
    /// That of now.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(file: &File) -> io::Result<FileVersion> {
        let metadata = file.metadata()?;
        Ok(FileVersion { size: metadata.len(), written: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

#[derive(Debug)]
struct Known {
    key: FileKey,
    path: Arc<[u8]>,
    open: Option<OpenFile>,
    /// `None` for what stays open.
    by: Option<Mapped>,
    last_used: u64,
    /// No walk met it lately.
    is_unmet: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    capacity: usize,
    known: HashMap<u32, Known>,
    /// Files with an interpreter, by number.
    interpreters: HashMap<u32, Arc<Loop>>,
    open: usize,
    /// Keys of files that were closed since somebody last asked.
    closed: Vec<FileKey>,
    clock: u64,
    counters: FileCounters,
}

impl Default for FileStore {
    fn default() -> FileStore {
        let limit = sys::open_files_limit().and_then(|n| usize::try_from(n / 4).ok());
        FileStore::new(limit.unwrap_or(MAX_FILES).clamp(16, MAX_FILES))
    }
}

impl FileStore {
    /// A store of at most that many open files.
    #[must_use]
    pub fn new(capacity: usize) -> FileStore {
        FileStore {
            capacity,
            known: HashMap::new(),
            interpreters: HashMap::new(),
            open: 0,
            closed: Vec::new(),
            clock: 0,
            counters: FileCounters::default(),
        }
    }

    /// The file with that number, if it was ever here.
    pub fn get(&mut self, number: u32) -> Option<CodeFile> {
        self.clock += 1;
        let known = self.known.get_mut(&number)?;
        known.last_used = self.clock;
        let interpreter = self.interpreters.get(&number).cloned();
        Some(CodeFile { path: Arc::clone(&known.path), open: known.open.clone(), interpreter })
    }

    /// Where a process has mapped a file, for one that is open.
    #[must_use]
    pub fn mapped_by(&self, key: &FileKey) -> Option<Mapped> {
        self.known.get(&key.number()).filter(|known| known.key == *key)?.by
    }

    /// Notes the code of a file that runs an interpreter's frames. Of more files than a bound nothing is noted: their stacks have native frames only.
    pub fn note_interpreter(&mut self, key: &FileKey, code: Loop) {
        if self.interpreters.len() < MAX_INTERPRETERS {
            self.interpreters.insert(key.number(), Arc::new(code));
        }
    }

    /// The number of the file with that path which was looked up last.
    #[must_use]
    pub fn number_of(&self, path: &[u8]) -> Option<u32> {
        let with_path = self.known.iter().filter(|(_, known)| *known.path == *path);
        with_path.max_by_key(|(_, known)| known.last_used).map(|(number, _)| *number)
    }

    /// Whether that very file is open.
    #[must_use]
    pub fn is_open(&self, key: &FileKey) -> bool {
        self.known.get(&key.number()).is_some_and(|known| known.key == *key && known.open.is_some())
    }

    /// Keeps a file that a process has mapped, in the place of the one that was not used longest; without `file`, what it is called; without `by`,
    /// for good. False for one whose number is another file's.
    pub fn insert(&mut self, key: &FileKey, path: &[u8], by: Option<Mapped>, file: Option<Arc<File>>) -> bool {
        let number = key.number();
        if self.known.get(&number).is_some_and(|known| known.key != *key) {
            self.counters.not_tried += 1;
            return false;
        }
        self.clock += 1;
        self.close(number);
        while file.is_some() && self.open >= self.capacity && self.evict() {}
        if self.known.len() >= MAX_KNOWN {
            self.forget_half();
        }
        let open = file.map(|file| OpenFile { number, version: FileVersion::of(&file).ok(), file });
        self.counters.opened += u64::from(open.is_some());
        self.open += usize::from(open.is_some());
        if open.is_some() {
            // Opened anew, it is not to be told again.
            self.closed.retain(|closed| closed != key);
        }
        self.known.insert(number, Known { key: *key, path: path.into(), open, by, last_used: self.clock, is_unmet: false });
        true
    }

    /// Open files, but for those that stay open.
    #[must_use]
    pub fn opened(&self) -> Vec<FileKey> {
        self.known.values().filter(|known| known.open.is_some() && known.by.is_some()).map(|known| known.key).collect()
    }

    /// Says which of the open files no walk met lately.
    pub fn note_unmet(&mut self, unmet: &HashSet<u32>) {
        for (number, known) in &mut self.known {
            known.is_unmet = known.open.is_some() && unmet.contains(number);
        }
    }

    /// Numbers of at most so many files that are idle: no walk met them lately, and the process for which they were opened `has_ended`. While it
    /// runs, the file system is in use anyway.
    #[must_use]
    pub fn idle(&self, most: usize, has_ended: impl Fn(u64) -> bool) -> HashSet<u32> {
        let is_idle = |known: &Known| known.is_unmet && known.by.is_some_and(|by| has_ended(by.process));
        self.known.iter().filter(|(_, known)| is_idle(known)).map(|(number, _)| *number).take(most).collect()
    }

    /// Closes those of these files that no walk met since.
    pub fn let_go(&mut self, numbers: &HashSet<u32>) {
        for number in numbers {
            if self.known.get(number).is_some_and(|known| known.is_unmet) && self.close(*number) {
                self.counters.let_go += 1;
            }
        }
    }

    /// Keys of files that were closed since this was last asked.
    pub fn take_closed(&mut self) -> Vec<FileKey> {
        std::mem::take(&mut self.closed)
    }

    /// A file was not found.
    pub fn note_gone(&mut self) {
        self.counters.gone += 1;
    }

    /// A file was found and is not to be read.
    pub fn note_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// A file was not looked for.
    pub fn note_not_tried(&mut self) {
        self.counters.not_tried += 1;
    }

    /// Counts by cause.
    #[must_use]
    pub fn counters(&self) -> FileCounters {
        self.counters
    }

    /// Files held open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// No file is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    fn close(&mut self, number: u32) -> bool {
        let Some(known) = self.known.get_mut(&number).filter(|known| known.open.is_some()) else { return false };
        (known.open, known.is_unmet) = (None, false);
        self.open -= 1;
        self.closed.push(known.key);
        true
    }

    fn evict(&mut self) -> bool {
        let open = self.known.iter().filter(|(_, known)| known.open.is_some() && known.by.is_some());
        let Some(number) = open.min_by_key(|(_, known)| known.last_used).map(|(number, _)| *number) else { return false };
        self.counters.evicted += 1;
        self.close(number)
    }

    /// Of the files that are closed, the half that was not asked for longest.
    fn forget_half(&mut self) {
        let mut used: Vec<u64> = self.known.values().map(|known| known.last_used).collect();
        used.sort_unstable();
        let middle = used.get(used.len() / 2).copied().unwrap_or(0);
        self.known.retain(|_, known| known.open.is_some() || known.last_used > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64) -> FileKey {
        FileKey { inode, written: 1, device: 1, generation: 1 }
    }

    const BY: Option<Mapped> = Some(Mapped { tgid: 1, start: 0, end: 1, process: 7 });

    fn some_file() -> Option<Arc<File>> {
        Some(Arc::new(File::open("/proc/self/exe").unwrap()))
    }

    fn inserted(store: &mut FileStore, inode: u64) -> u32 {
        assert!(store.insert(&key(inode), b"/x", BY, some_file()));
        key(inode).number()
    }

    #[test]
    fn the_number_of_open_files_is_bounded_and_the_least_used_goes() {
        let mut store = FileStore::new(2);
        let [first, second] = [1, 2].map(|inode| inserted(&mut store, inode));
        assert!(store.get(first).unwrap().open.is_some());
        let third = inserted(&mut store, 3);
        assert_eq!((store.len(), store.counters().evicted), (2, 1));
        assert!(store.get(second).unwrap().open.is_none() && store.get(first).unwrap().open.is_some());
        assert_eq!(&*store.get(second).unwrap().path, b"/x", "what it was called stays known");
        assert_eq!(store.take_closed(), [key(2)], "it is to be told when it is met again");
        assert!(store.take_closed().is_empty() && store.is_open(&key(3)) && !store.is_open(&key(2)));
        assert_ne!(third, first);
    }

    #[test]
    fn idle_files_are_let_go_and_those_that_came_back_are_not() {
        let mut store = FileStore::new(8);
        let numbers = [1, 2, 3].map(|inode| inserted(&mut store, inode));
        store.note_unmet(&numbers[..2].iter().copied().collect());
        assert!(store.idle(10, |process| process != 7).is_empty(), "its process runs");
        let idle = store.idle(10, |process| process == 7);
        assert_eq!(idle.len(), 2);
        assert_eq!(store.idle(1, |_| true).len(), 1);
        // Looked at again before they were let go: one is run.
        store.note_unmet(&[numbers[1]].into());
        store.let_go(&idle);
        assert_eq!((store.len(), store.counters().let_go), (2, 1));
        assert!(store.is_open(&key(1)) && !store.is_open(&key(2)));
        inserted(&mut store, 2);
        assert!(store.is_open(&key(2)) && store.idle(10, |_| true).is_empty());
        assert!(store.insert(&key(9), b"/y", BY, None));
        assert_eq!((store.number_of(b"/y"), store.number_of(b"/z")), (Some(key(9).number()), None));
        assert_eq!(store.number_of(b"/x"), Some(numbers[1]), "the latest of several");
    }

    #[test]
    fn what_is_kept_for_good_is_neither_pushed_out_nor_looked_at() {
        let mut store = FileStore::new(1);
        assert!(store.insert(&key(1), b"[vdso]", None, some_file()));
        assert!(store.opened().is_empty());
        inserted(&mut store, 2);
        inserted(&mut store, 3);
        assert!(store.is_open(&key(1)) && store.is_open(&key(3)) && !store.is_open(&key(2)));
    }

    #[test]
    fn a_file_that_is_opened_anew_is_open_once() {
        let mut store = FileStore::new(8);
        inserted(&mut store, 1);
        inserted(&mut store, 1);
        assert_eq!(store.len(), 1);
        assert!(store.take_closed().is_empty(), "it is open");
    }

    #[test]
    fn other_bytes_are_another_file_and_a_number_of_two_is_not_taken() {
        let mut store = FileStore::new(8);
        let number = inserted(&mut store, 1);
        let written = FileKey { written: 2, ..key(1) };
        assert_ne!(written.number(), number);
        assert!(!store.is_open(&written));
        store.known.get_mut(&number).unwrap().key = key(99);
        assert!(!store.insert(&key(1), b"/y", BY, some_file()));
        assert_eq!(store.counters().not_tried, 1);
    }

    #[test]
    fn a_file_that_is_not_to_be_read_has_its_name() {
        let mut store = FileStore::new(8);
        assert!(store.insert(&key(7), b"/mnt/fuse/program (deleted)", BY, None));
        let known = store.get(key(7).number()).unwrap();
        assert_eq!((known.base_name(), known.open.is_none()), (&b"program"[..], true));
    }

    #[test]
    fn names_of_closed_files_are_bounded() {
        let mut store = FileStore::new(4);
        for inode in 0..2 * MAX_KNOWN as u64 {
            assert!(store.insert(&key(inode), b"/x", BY, None));
        }
        assert!(store.known.len() <= MAX_KNOWN, "{}", store.known.len());
        assert!(store.get(key(2 * MAX_KNOWN as u64 - 1).number()).is_some());
    }

    #[test]
    fn a_file_that_was_written_to_has_another_version() {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before = FileVersion::of(file.as_file()).unwrap();
        assert_eq!(FileVersion::of(&file.reopen().unwrap()).unwrap(), before);
        file.write_all(b"other code").unwrap();
        assert_ne!(FileVersion::of(file.as_file()).unwrap(), before);
    }
}
