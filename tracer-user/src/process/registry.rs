//! Every program that ran, as intervals of time: which image a thread group had at a moment, also after it is gone.
//!
//! Pure: events in, answers out; no clock, no `/proc`. Events may come late or twice, beginnings and ends may be missing. Bounded:
//! each bound drops the least useful thing and counts it.
//!
//! An image is closed by the exit of the thread-group leader, but a leader can end before its threads: any later sign of life
//! opens it again. A question about a moment after the end gets the last image, since tasks still touch memory while they die.

use super::event::{Change, Comm, Listed, MapEvent, ProcessEvent};
use super::image::{Image, MappedFile, Mapping};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Ended images kept without a pin; the oldest is dropped first.
    pub dead_images: usize,
    /// Ended images kept with a pin: beyond it pins do not help.
    pub pinned_images: usize,
    /// Executable mappings of one image.
    pub mappings: usize,
    /// Images of one thread group (a program that execs itself for ever).
    pub images_per_process: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { dead_images: 8192, pinned_images: 24_576, mappings: 4096, images_per_process: 64 }
    }
}

/// What the registry holds and what it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounters {
    /// Records that the kernel had no room for.
    pub lost_records: u64,
    /// Ended images dropped to stay in bounds.
    pub dropped_images: u64,
    /// Of these, images that were pinned.
    pub dropped_pinned: u64,
    /// Mappings not kept because an image had too many.
    pub dropped_mappings: u64,
    /// Mappings of data seen. They are not kept.
    pub data_mappings: u64,
    /// Images whose beginning was not seen.
    pub incomplete_images: u64,
    /// Images closed because a listing did not show the process any more.
    pub lost_exits: u64,
}

/// A difference of start times beyond which two processes of one id are two, nanoseconds: `/proc` tells clock ticks of 10 ms.
const SAME_START_NS: u64 = 30_000_000;

#[derive(Debug)]
struct Entry {
    id: u64,
    pinned: bool,
    image: Image,
    /// Start of the process, where it is known: a fork or a listing.
    start_ns: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    bounds: Bounds,
    /// By thread group, in the order of time.
    processes: HashMap<u32, Vec<Entry>>,
    /// Ended images, without and with a pin: (end, id, thread group).
    dead: [BTreeSet<(u64, u64, u32)>; 2],
    next_id: u64,
    files: HashSet<Arc<MappedFile>>,
    files_sweep_at: usize,
    counters: RegistryCounters,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new(Bounds::default())
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(bounds: Bounds) -> Registry {
        Registry {
            bounds,
            processes: HashMap::new(),
            dead: Default::default(),
            next_id: 1,
            files: HashSet::new(),
            files_sweep_at: 1024,
            counters: RegistryCounters::default(),
        }
    }

    /// The image that a thread group had at a moment: the youngest that began by then.
    #[must_use]
    pub fn image_at(&self, tgid: u32, monotonic_ns: u64) -> Option<&Image> {
        let entries = self.processes.get(&tgid)?;
        let after = entries.partition_point(|e| e.image.from_ns <= monotonic_ns);
        entries[..after].last().map(|e| &e.image)
    }

    /// Keeps the image of a moment although its process is gone, because live bytes are its. False if there is none.
    pub fn pin(&mut self, tgid: u32, monotonic_ns: u64) -> bool {
        let Some(entries) = self.processes.get_mut(&tgid) else { return false };
        let after = entries.partition_point(|e| e.image.from_ns <= monotonic_ns);
        let Some(entry) = entries[..after].last_mut() else { return false };
        entry.pinned = true;
        if let Some(end) = entry.image.to_ns
            && self.dead[0].remove(&(end, entry.id, tgid))
        {
            self.dead[1].insert((end, entry.id, tgid));
        }
        true
    }

    /// Takes back all pins; whoever needs some sets them again before the next event is applied.
    pub fn clear_pins(&mut self) {
        for entry in self.processes.values_mut().flatten() {
            entry.pinned = false;
        }
        let [dead, pinned] = &mut self.dead;
        dead.append(pinned);
    }

    /// Those of these files, by device and inode, that no running program maps.
    #[must_use]
    pub fn unmapped(&self, mut files: HashSet<(u64, u64)>) -> HashSet<(u64, u64)> {
        // Forked processes share the list until one of them maps something.
        let mut seen: HashSet<*const Vec<Mapping>> = HashSet::new();
        for image in self.processes.values().flatten().map(|entry| &entry.image).filter(|image| image.to_ns.is_none()) {
            if files.is_empty() {
                break;
            }
            if seen.insert(Arc::as_ptr(&image.mappings)) {
                for mapping in image.mappings.iter() {
                    files.remove(&mapping.file.identity.place());
                }
            }
        }
        files
    }

    /// Images held, running and ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.values().map(Vec::len).sum()
    }

    /// No image is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// What is held and what was not.
    #[must_use]
    pub fn counters(&self) -> RegistryCounters {
        self.counters
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: ProcessEvent) {
        let at_ns = event.at_ns;
        match event.change {
            Change::Fork { tgid, parent_tgid, .. } if tgid == parent_tgid => self.alive(tgid, at_ns),
            Change::Fork { tgid, parent_tgid, .. } => self.fork(tgid, parent_tgid, at_ns),
            Change::Exit { tgid, tid } => self.exit(tgid, tid, at_ns),
            Change::Comm { tgid, comm, exec: true, .. } => self.exec(tgid, comm, at_ns),
            Change::Comm { tgid, tid, comm, exec: false } => {
                let index = self.index_at(tgid, at_ns);
                if let Some(entry) = self.entry_mut(tgid, index)
                    && tid == tgid
                {
                    entry.image.comm = comm;
                }
            }
            Change::Mmap(map) => self.map(&map, at_ns),
            Change::Listed(listed) => self.listed(&listed, at_ns),
            Change::ListingDone { started_ns, tgids } => self.listing_done(started_ns, &tgids),
            Change::Lost { records } => self.counters.lost_records += records,
        }
        self.trim();
    }

    fn fork(&mut self, tgid: u32, parent_tgid: u32, at_ns: u64) {
        let parent = self.image_at(parent_tgid, at_ns).cloned();
        let mut image = parent.unwrap_or_else(|| empty_image(parent_tgid, true));
        image.incomplete |= image.mappings.is_empty();
        image.tgid = tgid;
        image.parent_tgid = parent_tgid;
        image.from_ns = at_ns;
        image.to_ns = None;
        // Records of the child can come before the fork's: what began without a beginning is then this process. An exec of it
        // already seen is the end of the forked image, not its replacement.
        if let Some(entry) = self.processes.get_mut(&tgid).and_then(|entries| entries.last_mut())
            && entry.image.incomplete
            && entry.start_ns.is_none()
            && entry.image.from_ns >= at_ns
        {
            let young = std::mem::replace(&mut entry.image.mappings, image.mappings);
            let mappings = Arc::make_mut(&mut entry.image.mappings);
            mappings.retain(|m| !young.iter().any(|y| y.start < m.end && m.start < y.end));
            mappings.extend(young.iter().cloned());
            mappings.sort_by_key(|m| m.start);
            (entry.image.from_ns, entry.image.parent_tgid, entry.start_ns) = (at_ns, parent_tgid, Some(at_ns));
            entry.image.incomplete = image.incomplete;
            if entry.image.comm[0] == 0 {
                entry.image.comm = image.comm;
            }
            return;
        }
        self.insert(image, Some(at_ns));
    }

    fn exec(&mut self, tgid: u32, comm: Comm, at_ns: u64) {
        let before = self.processes.get(&tgid).and_then(|e| e[..e.partition_point(|e| e.image.from_ns <= at_ns)].last());
        let start_ns = before.and_then(|e| e.start_ns);
        let mut image = empty_image(before.map_or(0, |e| e.image.parent_tgid), false);
        (image.tgid, image.from_ns, image.comm) = (tgid, at_ns, comm);
        self.insert(image, start_ns);
    }

    /// Puts an image in its place; the one before it ends where it begins, it ends where the next begins.
    fn insert(&mut self, mut image: Image, start_ns: Option<u64>) {
        let (tgid, from_ns) = (image.tgid, image.from_ns);
        self.counters.incomplete_images += u64::from(image.incomplete);
        let entries = self.processes.entry(tgid).or_default();
        let at = entries.partition_point(|e| e.image.from_ns <= from_ns);
        let next = entries.get(at).map(|e| e.image.from_ns);
        image.to_ns = next;
        let id = self.next_id;
        self.next_id += 1;
        entries.insert(at, Entry { id, pinned: false, image, start_ns });
        let surplus = if entries.len() > self.bounds.images_per_process { Some((entries[0].id, entries[0].image.to_ns)) } else { None };
        if let Some(end) = next {
            self.dead[0].insert((end, id, tgid));
        }
        if at > 0 {
            self.close(tgid, at - 1, from_ns, false);
        }
        if let Some((id, end)) = surplus {
            self.drop_image(end.unwrap_or(from_ns), id, tgid);
        }
    }

    /// Ends an image at a moment. An earlier end moves only if `later` says so.
    fn close(&mut self, tgid: u32, index: usize, end_ns: u64, later: bool) {
        let Some(entry) = self.processes.get_mut(&tgid).and_then(|e| e.get_mut(index)) else { return };
        if let Some(old) = entry.image.to_ns {
            if !later || old >= end_ns {
                return;
            }
            self.dead[usize::from(entry.pinned)].remove(&(old, entry.id, tgid));
        }
        let end_ns = end_ns.max(entry.image.from_ns);
        entry.image.to_ns = Some(end_ns);
        self.dead[usize::from(entry.pinned)].insert((end_ns, entry.id, tgid));
    }

    fn exit(&mut self, tgid: u32, tid: u32, at_ns: u64) {
        let Some(index) = self.index_at(tgid, at_ns) else { return };
        let is_last = self.processes.get(&tgid).is_some_and(|e| index + 1 == e.len());
        let ended = self.entry_mut(tgid, Some(index)).is_some_and(|e| e.image.to_ns.is_some());
        // A thread's end closes nothing by itself; after the leader's it moves the end. An image ended by a later exec stays.
        if is_last && (tid == tgid || ended) {
            self.close(tgid, index, at_ns, true);
        }
    }

    /// A sign of life at a moment: an image that its leader's exit closed before goes on.
    fn alive(&mut self, tgid: u32, at_ns: u64) {
        let Some(entry) = self.processes.get_mut(&tgid).and_then(|e| e.last_mut()) else { return };
        if let Some(end) = entry.image.to_ns
            && end < at_ns
        {
            entry.image.to_ns = None;
            self.dead[usize::from(entry.pinned)].remove(&(end, entry.id, tgid));
        }
    }

    fn map(&mut self, map: &MapEvent, at_ns: u64) {
        if !map.executable {
            self.counters.data_mappings += 1;
        }
        self.alive(map.tgid, at_ns);
        let mut index = self.index_at(map.tgid, at_ns);
        if index.is_none() {
            if !map.executable {
                return;
            }
            let mut image = empty_image(0, true);
            (image.tgid, image.from_ns) = (map.tgid, at_ns);
            self.insert(image, None);
            index = self.index_at(map.tgid, at_ns);
        }
        let most = self.bounds.mappings;
        let file = map.executable.then(|| self.intern(map));
        let Some(entry) = self.entry_mut(map.tgid, index) else { return };
        let kept = match &file {
            Some(file) => entry.image.map(map, at_ns, file, most),
            None => entry.image.unmap(map.start, map.end, most),
        };
        self.counters.dropped_mappings += u64::from(!kept);
    }

    fn listed(&mut self, listed: &Listed, at_ns: u64) {
        let tgid = listed.tgid;
        let bounds = |entry: &Entry| entry.image.from_ns > at_ns && entry.image.from_ns <= listed.until_ns;
        let entries = self.processes.get(&tgid).map_or(&[][..], Vec::as_slice);
        if entries.iter().any(bounds) {
            // It forked or exec'd while it was read: the records say it better.
            return;
        }
        let current = entries[..entries.partition_point(|e| e.image.from_ns <= at_ns)].last();
        let same_start = current.is_some_and(|e| e.start_ns.is_none_or(|start| start.abs_diff(listed.start_ns) < SAME_START_NS));
        let known = current.is_some_and(|entry| {
            // After a loss, an image that shares no file with what is mapped now was replaced by an exec.
            let shares = entry.image.mappings.is_empty()
                || listed.mappings.is_empty()
                || listed.mappings.iter().any(|m| m.file.inode != 0 && entry.image.maps_file(&m.file));
            same_start && shares
        });
        if !known {
            let mut image = empty_image(listed.parent_tgid, false);
            (image.tgid, image.comm) = (tgid, listed.comm);
            // A lost exec happened at an unknown time: the new image is sure from the listing on.
            image.from_ns = match current {
                Some(_) if same_start => at_ns,
                Some(entry) => listed.start_ns.max(entry.image.from_ns + 1).min(at_ns),
                None => listed.start_ns.saturating_sub(SAME_START_NS),
            };
            self.insert(image, Some(listed.start_ns));
        }
        self.alive(tgid, at_ns);
        let index = self.index_at(tgid, at_ns);
        let most = self.bounds.mappings;
        let files: Vec<_> = listed.mappings.iter().map(|map| self.intern(map)).collect();
        let mut dropped = 0;
        let Some(entry) = self.entry_mut(tgid, index) else { return };
        entry.start_ns.get_or_insert(listed.start_ns);
        (entry.image.comm, entry.image.parent_tgid, entry.image.incomplete) = (listed.comm, listed.parent_tgid, false);
        for (map, file) in listed.mappings.iter().zip(&files) {
            if !entry.image.newer_overlap(map.start, map.end, at_ns) {
                dropped += u64::from(!entry.image.map(map, at_ns, file, most));
            }
        }
        self.counters.dropped_mappings += dropped;
    }

    /// Ends what a complete listing did not show and what did not begin after it.
    fn listing_done(&mut self, started_ns: u64, tgids: &[u32]) {
        let seen: HashSet<u32> = tgids.iter().copied().collect();
        let gone: Vec<(u32, usize)> = self
            .processes
            .iter()
            .filter(|(tgid, _)| !seen.contains(tgid))
            .filter_map(|(&tgid, e)| {
                let last = e.last()?;
                (last.image.to_ns.is_none() && last.image.from_ns < started_ns).then_some((tgid, e.len() - 1))
            })
            .collect();
        for (tgid, index) in gone {
            self.counters.lost_exits += 1;
            self.close(tgid, index, started_ns, false);
        }
    }

    fn index_at(&self, tgid: u32, at_ns: u64) -> Option<usize> {
        self.processes.get(&tgid)?.partition_point(|e| e.image.from_ns <= at_ns).checked_sub(1)
    }

    fn entry_mut(&mut self, tgid: u32, index: Option<usize>) -> Option<&mut Entry> {
        self.processes.get_mut(&tgid)?.get_mut(index?)
    }

    /// One record of each file, however many map it.
    fn intern(&mut self, map: &MapEvent) -> Arc<MappedFile> {
        let file = MappedFile { identity: map.file, path: map.path.as_slice().into() };
        if let Some(known) = self.files.get(&file) {
            return Arc::clone(known);
        }
        if self.files.len() >= self.files_sweep_at {
            self.files.retain(|file| Arc::strong_count(file) > 1);
            self.files_sweep_at = (self.files.len() * 2).max(1024);
        }
        let file = Arc::new(file);
        self.files.insert(Arc::clone(&file));
        file
    }

    fn trim(&mut self) {
        for (shelf, most) in [(0, self.bounds.dead_images), (1, self.bounds.pinned_images)] {
            while self.dead[shelf].len() > most {
                let Some(&(end, id, tgid)) = self.dead[shelf].first() else { break };
                self.counters.dropped_pinned += shelf as u64;
                self.drop_image(end, id, tgid);
            }
        }
    }

    fn drop_image(&mut self, end: u64, id: u64, tgid: u32) {
        for shelf in &mut self.dead {
            shelf.remove(&(end, id, tgid));
        }
        self.counters.dropped_images += 1;
        if let Some(entries) = self.processes.get_mut(&tgid) {
            entries.retain(|e| e.id != id);
            if entries.is_empty() {
                self.processes.remove(&tgid);
            }
        }
    }
}

fn empty_image(parent_tgid: u32, incomplete: bool) -> Image {
    Image { tgid: 0, parent_tgid, from_ns: 0, to_ns: None, comm: [0; 16], mappings: Arc::default(), incomplete }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
