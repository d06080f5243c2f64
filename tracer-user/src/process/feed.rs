//! Keeps the registry and the opened files in step with the host, on threads of its own.
//!
//! - *reader*: drains the rings, asks for files at once (a process may live a few milliseconds), puts the records of all CPUs in
//!   order after a short delay, and applies them to the registry. It never waits for anything but the rings.
//! - *opener*: opens files (see [`super::opener`]).
//! - *lister*: reads `/proc` once after the records are on, and again after a loss; it lives for one listing.
//!
//! Queues between them are bounded; what does not fit is counted. The kernel never waits for any of this: a full ring drops
//! records and counts them.

use super::event::{Change, ProcessEvent};
use super::files::{FileStore, OpenFile};
use super::identity::FileIdentity;
use super::listing;
use super::merge::Merge;
use super::opener::{self, OpenRequest};
use super::registry::Registry;
use super::rings::{Rings, RingsError};
use crate::host::clock::monotonic_ns;
use crate::host::privileges;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Sizes and times of a feed.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// Bytes of the ring of each CPU.
    pub ring_bytes: usize,
    /// Bytes of all rings together: on many CPUs each gets less.
    pub total_ring_bytes: usize,
    /// A ring wakes the reader when it holds more than this. An exec writes some 2 KiB.
    pub watermark_bytes: usize,
    /// How long an event waits for earlier ones of other CPUs.
    pub merge_window: Duration,
    /// Least time between two listings of `/proc` after losses.
    pub repair_interval: Duration,
}

impl Default for FeedOptions {
    fn default() -> FeedOptions {
        FeedOptions {
            ring_bytes: 512 << 10,
            total_ring_bytes: 32 << 20,
            watermark_bytes: 1 << 10,
            merge_window: Duration::from_millis(20),
            repair_interval: Duration::from_secs(2),
        }
    }
}

/// Why process records cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The records themselves.
    #[error(transparent)]
    Rings(#[from] RingsError),
    /// A thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// How the feed does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounters {
    /// Events applied.
    pub events: u64,
    /// Records that came after later ones had been applied.
    pub late: u64,
    /// Records applied early because too many waited.
    pub early: u64,
    /// Listings of `/proc` completed.
    pub listings: u64,
    /// The reader stopped because of an error: nothing new is learnt.
    pub failed: bool,
}

#[derive(Default)]
struct Shared {
    registry: Mutex<Registry>,
    files: Mutex<FileStore>,
    counters: Mutex<FeedCounters>,
    /// Everything up to this moment is applied.
    applied_ns: AtomicU64,
    stop: AtomicBool,
}

/// How long no program must have mapped a file before it is let go, nanoseconds: one that is run again and again stays open.
const UNMAPPED_FOR_NS: u64 = 1_000_000_000;

/// Opened files that no running program maps.
#[derive(Debug, Default)]
pub struct IdleFiles {
    /// Their ids.
    pub ids: HashSet<u64>,
    /// Devices and inodes of all such files: at least those of `ids`.
    pub places: HashSet<(u64, u64)>,
    before_ns: u64,
}

/// Gives the opened file of a mapping.
pub type OpenedFiles = Arc<dyn Fn(&FileIdentity) -> Option<Arc<File>> + Send + Sync>;

/// Gives the files of mappings that were opened since it was last called, the smallest first.
pub type NewFiles = Box<dyn FnMut() -> Vec<Arc<File>> + Send>;

/// A running feed. Dropping it stops its threads and closes the rings.
pub struct Feed {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    ring_bytes: usize,
}

impl Feed {
    /// Turns the records on, then begins to list `/proc`.
    pub fn start(options: FeedOptions) -> Result<Feed, FeedError> {
        let rings = Rings::open(options.ring_bytes, options.total_ring_bytes, options.watermark_bytes)?;
        let ring_bytes = rings.total_bytes();
        let shared = Arc::new(Shared::default());
        let (requests, opener_queue) = sync_channel(4096);
        let opener_shared = Arc::clone(&shared);
        // Not joined: it may hang in a lookup that never ends; it ends by itself when the queue is closed.
        std::thread::Builder::new()
            .name("memtrail-open".into())
            .spawn(move || {
                privileges::keep_only_or_warn(&[privileges::PROCESSES]);
                run_opener(&opener_queue, &opener_shared);
            })
            .map_err(FeedError::Thread)?;
        let reader_shared = Arc::clone(&shared);
        let reader =
            Reader { rings, options, shared: reader_shared, requests, merge: Merge::default(), parents: HashMap::new(), lister: None };
        let reader = std::thread::Builder::new().name("memtrail-procs".into()).spawn(move || reader.run()).map_err(FeedError::Thread)?;
        Ok(Feed { shared, reader: Some(reader), ring_bytes })
    }

    /// The processes. Hold the lock shortly: the reader waits for it while the rings fill.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.shared.registry)
    }

    /// The store of opened files, for the symboliser, which locks it for single look-ups.
    pub fn file_store(&self) -> &Mutex<FileStore> {
        &self.shared.files
    }

    /// The opened files.
    pub fn files(&self) -> MutexGuard<'_, FileStore> {
        lock(&self.shared.files)
    }

    /// Opened files that no running program maps any more, `most` of them at most. To be asked before that is read which may name them:
    /// what is told is older than the answer.
    pub fn idle_files(&self, most: usize) -> IdleFiles {
        // A program that mapped one since is not in the registry yet.
        let applied_ns = self.shared.applied_ns.load(Ordering::Acquire);
        let before_ns = monotonic_ns().saturating_sub(UNMAPPED_FOR_NS).min(applied_ns);
        let files: Vec<OpenFile> = self.files().idle(before_ns).cloned().collect();
        let places = self.registry().unmapped(files.iter().map(|open| open.identity.place()).collect());
        let ids = files.iter().filter(|open| places.contains(&open.identity.place())).map(|open| open.id).take(most).collect();
        IdleFiles { ids, places, before_ns }
    }

    /// Closes such files, but for those that a program has mapped since.
    pub fn let_go(&self, idle: &IdleFiles) {
        self.files().let_go(&idle.ids, idle.before_ns);
    }

    /// Looks opened files up, from any thread.
    pub fn opened_files(&self) -> OpenedFiles {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |identity: &FileIdentity| lock(&shared.files).get(identity).map(|open| open.file))
    }

    /// Gives the files that were opened since, from any thread.
    pub fn newly_opened(&self) -> NewFiles {
        let shared = Arc::clone(&self.shared);
        let mut last = 0;
        Box::new(move || {
            let (files, id) = lock(&shared.files).opened_after(last);
            last = id;
            files.into_iter().map(|open| open.file).collect()
        })
    }

    /// How the feed does.
    pub fn counters(&self) -> FeedCounters {
        *lock(&self.shared.counters)
    }

    /// Bytes of all rings.
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }

    /// Waits until everything that happened before this call is applied, including the first listing. False if it is not by then.
    pub fn settle(&self, timeout: Duration) -> bool {
        let (now, deadline) = (monotonic_ns(), Instant::now() + timeout);
        loop {
            let counters = self.counters();
            if self.shared.applied_ns.load(Ordering::Acquire) > now && counters.listings > 0 {
                return true;
            }
            if counters.failed || Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            log::error!("the reader of process records panicked");
        }
    }
}

/// A poisoned lock only says that some thread panicked: the data are counters and caches, which stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_opener(requests: &Receiver<OpenRequest>, shared: &Shared) {
    while let Ok(request) = requests.recv() {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        opener::open(&request, &shared.files);
    }
}

/// Parents remembered for the opener, ahead of the registry.
const MAX_PARENTS: usize = 16_384;
/// How often the reader looks at the rings when none is past its watermark.
const IDLE: Duration = Duration::from_millis(50);
/// Pause between two rounds, so that a storm of records costs a bounded number of wakeups.
const PACE: Duration = Duration::from_millis(1);

struct Lister {
    events: Receiver<ProcessEvent>,
    began: Instant,
}

struct Reader {
    rings: Rings,
    options: FeedOptions,
    shared: Arc<Shared>,
    requests: SyncSender<OpenRequest>,
    merge: Merge,
    parents: HashMap<u32, u32>,
    lister: Option<Lister>,
}

impl Reader {
    fn run(mut self) {
        // The lister begins as this thread is.
        privileges::keep_only_or_warn(&[privileges::PROCESSES]);
        let mut repair = true;
        let mut last_listing: Option<Instant> = None;
        while !self.shared.stop.load(Ordering::Acquire) {
            let due = last_listing.is_none_or(|at| at.elapsed() >= self.options.repair_interval);
            if repair && self.lister.is_none() && due {
                self.start_listing();
                (repair, last_listing) = (false, Some(Instant::now()));
            }
            let busy = !self.merge.is_empty() || self.lister.is_some();
            let timeout = if busy { self.options.merge_window.min(IDLE) / 2 } else { IDLE };
            if let Err(error) = self.rings.wait(timeout) {
                log::error!("process records: {error}");
                lock(&self.shared.counters).failed = true;
                return;
            }
            repair |= self.round();
            std::thread::sleep(PACE);
        }
    }

    /// Takes in what is there. True if the kernel lost records.
    fn round(&mut self) -> bool {
        // Records with an earlier time are in a ring by now, or will be within the window.
        let now = monotonic_ns();
        let mut fresh = Vec::new();
        self.rings.drain(|event| fresh.push(event));
        let mut lost = false;
        for event in fresh {
            lost |= matches!(event.change, Change::Lost { .. });
            self.look_ahead(&event);
            self.merge.push(event);
        }
        // What a listing saw fills gaps and may come late: it does not have to wait in line.
        let (mut events, listing_done) = self.listed();
        let window = u64::try_from(self.options.merge_window.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_sub(window);
        self.merge.release(until, |event| events.push(event));
        if !events.is_empty() {
            let mut registry = lock(&self.shared.registry);
            let count = events.len() as u64;
            events.into_iter().for_each(|event| registry.apply(event));
            drop(registry);
            let mut counters = lock(&self.shared.counters);
            counters.events += count;
            (counters.late, counters.early) = (self.merge.late(), self.merge.early());
        }
        if listing_done {
            lock(&self.shared.counters).listings += 1;
        }
        self.shared.applied_ns.store(until, Ordering::Release);
        lost
    }

    /// What cannot wait for the order: opening files while the process lives.
    fn look_ahead(&mut self, event: &ProcessEvent) {
        match &event.change {
            Change::Fork { tgid, parent_tgid, .. } if tgid != parent_tgid => {
                if self.parents.len() >= MAX_PARENTS {
                    self.parents.clear();
                }
                self.parents.insert(*tgid, *parent_tgid);
            }
            Change::Mmap(map) if map.executable && lock(&self.shared.files).wants(&map.file) => {
                let mut ancestors = Vec::new();
                let mut tgid = map.tgid;
                while let Some(&parent) = self.parents.get(&tgid)
                    && ancestors.len() < 3
                {
                    ancestors.push(parent);
                    tgid = parent;
                }
                if self.requests.try_send(OpenRequest { map: map.clone(), ancestors }).is_err() {
                    lock(&self.shared.files).note_queue_full();
                }
            }
            _ => {}
        }
    }

    fn start_listing(&mut self) {
        let (sender, events) = sync_channel(1024);
        let (shared, requests) = (Arc::clone(&self.shared), self.requests.clone());
        let spawned = std::thread::Builder::new().name("memtrail-list".into()).spawn(move || {
            let listed = listing::list(|event| {
                if let Change::Listed(listed) = &event.change {
                    for map in &listed.mappings {
                        let wanted = lock(&shared.files).wants(&map.file);
                        // Here waiting is fine: nothing but this listing waits for it.
                        if wanted && requests.send(OpenRequest { map: map.clone(), ancestors: vec![] }).is_err() {
                            return false;
                        }
                    }
                }
                sender.send(event).is_ok()
            });
            if let Err(error) = listed {
                log::warn!("cannot list /proc: {error}");
            }
        });
        match spawned {
            Ok(_) => self.lister = Some(Lister { events, began: Instant::now() }),
            Err(error) => log::warn!("cannot list /proc: {error}"),
        }
    }

    /// What the lister found by now, and whether that was all.
    fn listed(&mut self) -> (Vec<ProcessEvent>, bool) {
        let Some(lister) = &self.lister else { return (vec![], false) };
        let mut events = Vec::new();
        loop {
            match lister.events.try_recv() {
                Ok(event) => events.push(event),
                Err(TryRecvError::Empty) => return (events, false),
                Err(TryRecvError::Disconnected) => break,
            }
        }
        log::debug!("listed /proc in {:?}", lister.began.elapsed());
        self.lister = None;
        (events, true)
    }
}
