//! Opened files of mappings, kept so that symbols can be read after the process, its container and its mounts are gone.
//!
//! A bounded, least-recently-used store; opening is done by [`super::opener`]. An open file pins its inode, so that an inode number
//! cannot come to mean another file while it is here, and also its file system: an unmounted device stays busy until the file is
//! pushed out or [`FileStore::expire`]d.

use super::identity::FileIdentity;
use super::image::MappedFile;
use super::sys;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

/// Descriptors used at most, and never more than a quarter of what the process may have.
const MAX_FILES: usize = 512;
/// Files that could not be opened are not tried again until this many others failed.
const MAX_REFUSED: usize = 4096;

/// An opened file.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// Unique within the store, never used again: what caches may be keyed by.
    pub id: u64,
    /// Which file.
    pub identity: FileIdentity,
    /// Bytes when it was opened.
    pub size: u64,
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
    /// Not tried, because too many waited to be opened.
    pub queue_full: u64,
}

#[derive(Debug)]
struct Kept {
    open: OpenFile,
    last_used: u64,
    last_used_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    capacity: usize,
    kept: HashMap<(u64, u64), Vec<Kept>>,
    count: usize,
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
            refused: HashMap::new(),
            clock: 0,
            next_id: 1,
            counters: FileCounters::default(),
        }
    }

    /// Whether an attempt to open the file would tell anything new. Marks it as used.
    pub fn wants(&mut self, identity: &FileIdentity) -> bool {
        identity.inode != 0 && !self.refused.contains_key(&(identity.device, identity.inode)) && self.get(identity).is_none()
    }

    /// The opened file, if it is here.
    pub fn get(&mut self, identity: &FileIdentity) -> Option<OpenFile> {
        self.clock += 1;
        let kept = self.kept.get_mut(&(identity.device, identity.inode))?;
        let found = kept.iter_mut().find(|k| k.open.identity.agrees_with(identity))?;
        (found.last_used, found.last_used_ns) = (self.clock, crate::host::clock::monotonic_ns());
        Some(found.open.clone())
    }

    /// Keeps an opened file, in the place of the one that was not used longest.
    pub fn insert(&mut self, mapped: &MappedFile, file: File, size: u64) {
        if self.get(&mapped.identity).is_some() {
            return;
        }
        while self.count >= self.capacity && self.evict() {}
        let mut identity = mapped.identity;
        identity.generation = identity.generation.or_else(|| sys::inode_generation(&file));
        let open = OpenFile { id: self.next_id, identity, size, file: Arc::new(file) };
        self.next_id += 1;
        self.clock += 1;
        let kept = Kept { open, last_used: self.clock, last_used_ns: crate::host::clock::monotonic_ns() };
        self.kept.entry((identity.device, identity.inode)).or_default().push(kept);
        self.count += 1;
        self.counters.opened += 1;
    }

    /// Closes files that nobody asked for since a moment, so that no file system is kept busy for ever.
    pub fn expire(&mut self, before_ns: u64) {
        for kept in self.kept.values_mut() {
            kept.retain(|k| k.last_used_ns >= before_ns);
        }
        self.kept.retain(|_, kept| !kept.is_empty());
        self.count = self.kept.values().map(Vec::len).sum();
    }

    /// A file was found and is not to be read.
    pub fn refuse(&mut self, identity: &FileIdentity) {
        self.counters.refused += 1;
        if self.refused.len() >= MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.insert((identity.device, identity.inode), ());
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
        let oldest = self.kept.iter().flat_map(|(key, kept)| kept.iter().map(|k| (k.last_used, *key))).min();
        let Some((last_used, key)) = oldest else { return false };
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.retain(|k| k.last_used != last_used);
            if kept.is_empty() {
                self.kept.remove(&key);
            }
        }
        self.count -= 1;
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

    #[test]
    fn expired_files_are_closed() {
        let mut store = FileStore::new(4);
        store.insert(&mapped(1, Some(0)), some_file(), 1);
        store.expire(crate::host::clock::monotonic_ns() + 1);
        assert!(store.is_empty() && store.get(&mapped(1, Some(0)).identity).is_none());
    }
}
