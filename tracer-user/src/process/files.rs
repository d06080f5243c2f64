//! Opened files of mappings, kept so that symbols can be read after the process, its container and its mounts are gone.
//!
//! A bounded, least-recently-used store; opening is done by [`super::opener`]. An open file pins its inode, so that an inode number
//! cannot come to mean another file while it is here, and also its file system, which cannot be unmounted then. So a file is let go when
//! no running program maps it any more ([`FileStore::idle`], [`FileStore::let_go`]); whoever wants its names learns them before, and finds
//! them again by the id that the store remembers.

use super::identity::FileIdentity;
use super::image::MappedFile;
use super::sys;
use crate::host::clock::monotonic_ns;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::SystemTime;

/// Descriptors used at most, and never more than a quarter of what the process may have.
const MAX_FILES: usize = 512;
/// Files that could not be opened are not tried again until this many others failed.
const MAX_REFUSED: usize = 4096;

/// Files that are closed and whose ids are remembered.
const MAX_CLOSED: usize = 4096;

/// Least time between two looks whether a file is as it was, nanoseconds.
const CHECKED_EVERY_NS: u64 = 100_000_000;

/// An opened file.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// Unique within the store, never used again: what caches may be keyed by.
    pub id: u64,
    /// Which file.
    pub identity: FileIdentity,
    /// Bytes when it was opened.
    pub size: u64,
    /// What it was like then, as far as the file system says.
    pub version: Option<FileVersion>,
    /// When it was last written to before that, monotonic nanoseconds; 0 if that is not known, or was before the host began.
    pub written_ns: u64,
    /// The file, open for reading. Its owner can change or cut it at any time: never map it.
    pub file: Arc<File>,
}

/// What happened to files, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// Opened.
    pub opened: u64,
    /// Not reachable any more: the process and its mounts were gone.
    pub gone: u64,
    /// Not a regular file, or on a file system served by a user process, which could stop the reader for ever.
    pub refused: u64,
    /// Pushed out by others.
    pub evicted: u64,
    /// Closed because no running program mapped them any more.
    pub let_go: u64,
    /// Not tried, because too many waited to be opened.
    pub queue_full: u64,
}

#[derive(Debug)]
struct Kept {
    open: OpenFile,
    last_used: u64,
    /// When a program last mapped it, as far as the store was asked, monotonic nanoseconds.
    mapped_ns: u64,
    /// When it was last looked whether it is as it was, alike.
    checked_ns: u64,
}

/// What tells whether a file is as it was: its size, when it was last written to, and when anything of it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// That of now.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(file: &File) -> io::Result<FileVersion> {
        let metadata = file.metadata()?;
        let (written, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Ok(FileVersion { size: metadata.len(), written, changed })
    }

    /// Whether nothing was written in between: names and links may have changed.
    #[must_use]
    pub fn has_bytes_of(&self, other: &FileVersion) -> bool {
        (self.size, self.written) == (other.size, other.written)
    }

    /// When it was last written to, monotonic nanoseconds; 0 for what is before the host began, or in the future.
    fn written_ns(&self) -> u64 {
        let written =
            u64::try_from(self.written.0).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(self.written.1.unsigned_abs());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        now.checked_sub(written).and_then(|ago| monotonic_ns().checked_sub(ago)).unwrap_or(0)
    }
}

/// A file that was here.
#[derive(Clone, Copy, Debug)]
struct Closed {
    id: u64,
    identity: FileIdentity,
    version: Option<FileVersion>,
    written_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    capacity: usize,
    kept: HashMap<(u64, u64), Vec<Kept>>,
    count: usize,
    closed: HashMap<(u64, u64), Vec<Closed>>,
    /// Places of closed files, the first closed first.
    closed_order: VecDeque<((u64, u64), u64)>,
    refused: HashMap<(u64, u64), ()>,
    clock: u64,
    next_id: u64,
    counters: FileCounters,
}

impl Default for FileStore {
    fn default() -> FileStore {
        let limit = sys::open_files_limit().and_then(|n| usize::try_from(n / 4).ok());
        FileStore::new(limit.unwrap_or(MAX_FILES).clamp(16, MAX_FILES))
    }
}

impl FileStore {
    /// A store of at most that many files.
    #[must_use]
    pub fn new(capacity: usize) -> FileStore {
        FileStore {
            capacity,
            kept: HashMap::new(),
            count: 0,
            closed: HashMap::new(),
            closed_order: VecDeque::new(),
            refused: HashMap::new(),
            clock: 0,
            next_id: 1,
            counters: FileCounters::default(),
        }
    }

    /// A program has mapped the file: whether an attempt to open it would tell anything new. Of a file that is here it may, from time to time:
    /// that it was written to.
    pub fn wants(&mut self, identity: &FileIdentity) -> bool {
        if identity.inode == 0 || self.refused.contains_key(&identity.place()) {
            return false;
        }
        match self.find(identity) {
            Some(kept) => {
                kept.mapped_ns = monotonic_ns();
                let is_due = kept.mapped_ns.saturating_sub(kept.checked_ns) >= CHECKED_EVERY_NS;
                if is_due {
                    kept.checked_ns = kept.mapped_ns;
                }
                is_due
            }
            None => true,
        }
    }

    fn find(&mut self, identity: &FileIdentity) -> Option<&mut Kept> {
        self.clock += 1;
        let clock = self.clock;
        let found = self.kept.get_mut(&identity.place())?.iter_mut().find(|kept| kept.open.identity.agrees_with(identity))?;
        found.last_used = clock;
        Some(found)
    }

    /// The opened file, if it is here.
    pub fn get(&mut self, identity: &FileIdentity) -> Option<OpenFile> {
        self.find(identity).map(|kept| kept.open.clone())
    }

    /// Closes a file that was written to since: what is read of it from now on belongs to another id.
    pub fn let_go_of_changed(&mut self, identity: &FileIdentity) {
        self.close(|kept| kept.open.identity.agrees_with(identity));
    }

    /// Files that were opened after the one with that id, the smallest first, and the id of the last of them.
    #[must_use]
    pub fn opened_after(&self, id: u64) -> (Vec<OpenFile>, u64) {
        let last = self.next_id - 1;
        if last <= id {
            return (Vec::new(), last);
        }
        let mut opened: Vec<OpenFile> = self.kept.values().flatten().map(|kept| &kept.open).filter(|open| open.id > id).cloned().collect();
        opened.sort_by_key(|open| open.size);
        (opened, last)
    }

    /// The opened file, if it is here with the bytes that were mapped at that moment.
    pub fn get_mapped(&mut self, identity: &FileIdentity, mapped_ns: u64) -> Option<OpenFile> {
        self.get(identity).filter(|open| open.written_ns <= mapped_ns)
    }

    /// The id of a file that was here and is closed: the last one of that identity with the bytes that were mapped at that moment.
    #[must_use]
    pub fn closed_id(&self, identity: &FileIdentity, mapped_ns: u64) -> Option<u64> {
        let closed = self.closed.get(&identity.place())?;
        closed.iter().rev().find(|closed| closed.identity.agrees_with(identity) && closed.written_ns <= mapped_ns).map(|closed| closed.id)
    }

    /// Keeps an opened file, in the place of the one that was not used longest. One that was here before, and did not change since, has
    /// the id that it had.
    pub fn insert(&mut self, mapped: &MappedFile, file: File, size: u64) {
        if self.get(&mapped.identity).is_some() {
            return;
        }
        while self.count >= self.capacity && self.evict() {}
        let mut identity = mapped.identity;
        identity.generation = identity.generation.or_else(|| sys::inode_generation(&file));
        let version = FileVersion::of(&file).ok().map(|version| FileVersion { size, ..version });
        let id = self.reopened(&identity, version).unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id - 1
        });
        let open =
            OpenFile { id, identity, size, version, written_ns: version.map_or(0, |version| version.written_ns()), file: Arc::new(file) };
        self.clock += 1;
        let now = monotonic_ns();
        let kept = Kept { open, last_used: self.clock, mapped_ns: now, checked_ns: now };
        self.kept.entry(identity.place()).or_default().push(kept);
        self.count += 1;
        self.counters.opened += 1;
    }

    /// The id that this very file had before it was closed.
    fn reopened(&mut self, identity: &FileIdentity, version: Option<FileVersion>) -> Option<u64> {
        let closed = self.closed.get_mut(&identity.place())?;
        let at = closed.iter().position(|closed| closed.identity == *identity && version.is_some() && closed.version == version)?;
        let id = closed.remove(at).id;
        self.closed_order.retain(|entry| *entry != (identity.place(), id));
        Some(id)
    }

    /// Files that no program has mapped since that moment, as far as the store was asked.
    pub fn idle(&self, before_ns: u64) -> impl Iterator<Item = &OpenFile> {
        self.kept.values().flatten().filter(move |kept| kept.mapped_ns < before_ns).map(|kept| &kept.open)
    }

    /// Closes those of these files that no program has mapped since that moment, so that no file system is kept busy for ever.
    pub fn let_go(&mut self, ids: &HashSet<u64>, before_ns: u64) {
        let count = self.count;
        self.close(|kept| ids.contains(&kept.open.id) && kept.mapped_ns < before_ns);
        self.counters.let_go += (count - self.count) as u64;
    }

    /// Closes files, and remembers their ids.
    fn close(&mut self, chosen: impl Fn(&Kept) -> bool) {
        for (place, kept) in &mut self.kept {
            for Kept { open, .. } in kept.extract_if(.., |kept| chosen(kept)) {
                self.closed.entry(*place).or_default().push(Closed {
                    id: open.id,
                    identity: open.identity,
                    version: open.version,
                    written_ns: open.written_ns,
                });
                self.closed_order.push_back((*place, open.id));
            }
        }
        self.kept.retain(|_, kept| !kept.is_empty());
        self.count = self.kept.values().map(Vec::len).sum();
        while self.closed_order.len() > MAX_CLOSED
            && let Some((place, id)) = self.closed_order.pop_front()
        {
            if let Some(closed) = self.closed.get_mut(&place) {
                closed.retain(|closed| closed.id != id);
                if closed.is_empty() {
                    self.closed.remove(&place);
                }
            }
        }
    }

    /// A file was found and is not to be read.
    pub fn refuse(&mut self, identity: &FileIdentity) {
        self.counters.refused += 1;
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.insert(identity.place(), ());
    }

    /// A file was not found.
    pub fn note_gone(&mut self) {
        self.counters.gone += 1;
    }

    /// A file was not looked for.
    pub fn note_queue_full(&mut self) {
        self.counters.queue_full += 1;
    }

    /// Counts by cause.
    #[must_use]
    pub fn counters(&self) -> FileCounters {
        self.counters
    }

    /// Files held open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// No file is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn evict(&mut self) -> bool {
        let Some(last_used) = self.kept.values().flatten().map(|kept| kept.last_used).min() else { return false };
        self.close(|kept| kept.last_used == last_used);
        self.counters.evicted += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(inode: u64, generation: Option<u64>) -> MappedFile {
        MappedFile { identity: FileIdentity { device: 1, inode, generation }, path: Box::from(*b"/x") }
    }

    fn some_file() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    #[test]
    fn files_are_given_once_after_they_were_opened_and_the_smallest_first() {
        let mut store = FileStore::new(8);
        let open = || File::open("/dev/null").unwrap();
        let sizes = |opened: &[OpenFile]| opened.iter().map(|open| open.size).collect::<Vec<_>>();
        assert_eq!(store.opened_after(0).1, 0);
        for (inode, size) in [(1, 30), (2, 10), (3, 20)] {
            store.insert(&mapped(inode, Some(1)), open(), size);
        }
        let (opened, last) = store.opened_after(0);
        assert_eq!((sizes(&opened), last), (vec![10, 20, 30], 3));
        assert!(store.opened_after(last).0.is_empty());
        store.insert(&mapped(4, Some(1)), open(), 5);
        assert_eq!(sizes(&store.opened_after(last).0), [5]);
    }

    #[test]
    fn a_file_that_was_written_to_has_another_id() {
        use std::io::Write as _;
        let mut store = FileStore::new(4);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let identity = mapped(1, Some(1)).identity;
        store.insert(&mapped(1, Some(1)), file.reopen().unwrap(), 0);
        let open = store.get(&identity).unwrap();
        let (before, version) = (open.id, open.version.unwrap());
        assert_eq!(FileVersion::of(&open.file).unwrap(), version);
        file.write_all(b"other code").unwrap();
        assert!(!FileVersion::of(&open.file).unwrap().has_bytes_of(&version));
        store.let_go_of_changed(&identity);
        assert!(store.wants(&identity));
        store.insert(&mapped(1, Some(1)), file.reopen().unwrap(), 10);
        let after = store.get(&identity).unwrap();
        assert_ne!(after.id, before);
        // Who mapped it before it was written to has what was learnt of it then, and nothing of what is there now.
        let earlier = after.written_ns - 1_000_000_000;
        assert!(store.get_mapped(&identity, earlier).is_none() && store.get_mapped(&identity, after.written_ns).is_some());
        assert_eq!(store.opened_after(before).0.len(), 1);
    }

    #[test]
    fn the_file_not_used_longest_goes_first() {
        let mut store = FileStore::new(2);
        for inode in 1..=2 {
            store.insert(&mapped(inode, Some(0)), some_file(), 1);
        }
        assert!(store.get(&mapped(1, None).identity).is_some());
        store.insert(&mapped(3, Some(0)), some_file(), 1);
        let has = |store: &mut FileStore, inode| store.get(&mapped(inode, Some(0)).identity).is_some();
        assert_eq!((has(&mut store, 1), has(&mut store, 2), has(&mut store, 3)), (true, false, true));
        assert_eq!((store.len(), store.counters().evicted), (2, 1));
    }

    #[test]
    fn another_generation_is_another_file() {
        let mut store = FileStore::new(4);
        store.insert(&mapped(1, Some(7)), some_file(), 1);
        assert!(store.wants(&mapped(1, Some(8)).identity));
        assert!(!store.wants(&mapped(1, Some(7)).identity) && !store.wants(&mapped(1, None).identity));
        store.insert(&mapped(1, Some(8)), some_file(), 1);
        let id = |store: &mut FileStore, generation| store.get(&mapped(1, Some(generation)).identity).unwrap().id;
        assert_ne!(id(&mut store, 7), id(&mut store, 8));
    }

    #[test]
    fn refused_files_are_not_tried_again_and_anonymous_memory_never() {
        let mut store = FileStore::new(4);
        store.refuse(&mapped(5, None).identity);
        assert!(!store.wants(&mapped(5, None).identity) && !store.wants(&FileIdentity::NONE));
        assert_eq!(store.counters().refused, 1);
    }

    fn idle(store: &FileStore, before_ns: u64) -> HashSet<u64> {
        store.idle(before_ns).map(|open| open.id).collect()
    }

    #[test]
    fn a_file_that_nobody_maps_is_closed_and_keeps_its_id() {
        let mut store = FileStore::new(4);
        store.insert(&mapped(1, Some(0)), some_file(), 1);
        let id = store.get(&mapped(1, None).identity).unwrap().id;
        let later = monotonic_ns() + 1;
        assert_eq!((idle(&store, 0), idle(&store, later)), (HashSet::new(), HashSet::from([id])));
        store.let_go(&HashSet::from([id]), 0);
        assert_eq!(store.len(), 1, "a program has mapped it since");
        store.let_go(&HashSet::from([id]), later);
        assert!(store.is_empty() && store.get(&mapped(1, Some(0)).identity).is_none());
        assert_eq!(
            (store.closed_id(&mapped(1, None).identity, u64::MAX), store.closed_id(&mapped(1, Some(9)).identity, u64::MAX)),
            (Some(id), None)
        );
        assert!(store.wants(&mapped(1, Some(0)).identity), "it is opened again where a program maps it again");
        assert_eq!((store.counters().let_go, store.counters().evicted), (1, 0));
    }

    #[test]
    fn a_file_that_is_opened_again_has_its_id_unless_it_changed() {
        let mut store = FileStore::new(4);
        let id = |store: &mut FileStore| store.get(&mapped(1, Some(0)).identity).unwrap().id;
        store.insert(&mapped(1, Some(0)), some_file(), 1);
        let first = id(&mut store);
        store.let_go(&HashSet::from([first]), u64::MAX);
        store.insert(&mapped(1, Some(0)), some_file(), 1);
        assert_eq!((id(&mut store), store.closed_id(&mapped(1, Some(0)).identity, u64::MAX)), (first, None));
        store.let_go(&HashSet::from([first]), u64::MAX);
        store.insert(&mapped(1, Some(0)), some_file(), 2);
        assert_ne!(id(&mut store), first, "its size is another");
    }

    #[test]
    fn ids_of_closed_files_are_bounded() {
        let mut store = FileStore::new(2);
        for inode in 0..MAX_CLOSED as u64 + 10 {
            store.insert(&mapped(inode + 1, Some(0)), some_file(), 1);
        }
        assert_eq!((store.closed.len(), store.closed_order.len(), store.len()), (MAX_CLOSED, MAX_CLOSED, 2));
        assert_eq!(store.closed_id(&mapped(1, Some(0)).identity, u64::MAX), None);
        assert!(store.closed_id(&mapped(MAX_CLOSED as u64, Some(0)).identity, u64::MAX).is_some());
    }

    #[test]
    fn a_file_that_is_opened_and_closed_again_and_again_pushes_out_no_other_id() {
        let mut store = FileStore::new(1);
        for inode in [1, 2, 3] {
            store.insert(&mapped(inode, Some(0)), some_file(), 1);
        }
        for round in 0..MAX_CLOSED as u64 + 10 {
            store.insert(&mapped(2 + round % 2, Some(0)), some_file(), 1);
        }
        assert!(store.closed_id(&mapped(1, Some(0)).identity, u64::MAX).is_some());
        assert_eq!((store.closed_order.len(), store.len()), (2, 1));
    }
}
