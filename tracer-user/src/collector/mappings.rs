//! Who mapped what, and when: the kernel half's events, kept as intervals of each process's address space. What exists is read from `/proc`
//! at the report; this adds its origin. Bounded, and what finds no room is counted.
//!
//! A thread of its own empties the ring, at a pace of its own: nobody has to be woken for a mapping.

use crate::{
    bpf::{BpfError, mappings},
    region::intervals::Intervals,
};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tracer_common::mapping::{Change, MappingEvent};

/// Most intervals of one process: as many as mappings are read of one.
const MOST_OF_ONE: usize = crate::region::maps::MOST_VMAS;
/// Most intervals of all, some 100 bytes each.
const MOST_OF_ALL: usize = 1 << 18;
/// Most intervals that one call adds: pieces at the ends of what it cuts, and its own, in both maps.
const MOST_NEW: usize = 4;
/// Most processes.
const MOST_PROCESSES: usize = 1 << 14;
/// Pause between two looks at the ring: in a storm of one process it fills in seconds.
const PACE: Duration = Duration::from_millis(50);

/// Who mapped a range, or made it writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Identity of the user stack; 0 for none.
    pub stack: u64,
    /// By which call.
    pub change: Change,
    /// Thread.
    pub tid: u32,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
}

/// The address space of one process image, as far as it changed since the start.
#[derive(Clone, Debug)]
pub struct Space {
    /// Identity of the process.
    pub process: u64,
    /// Who mapped it.
    pub mapped: Intervals<Origin>,
    /// Who made it accessible afterwards: brk, mprotect, mmap over a reservation.
    pub opened: Intervals<Origin>,
}

impl Space {
    fn new(process: u64) -> Space {
        Space { process, mapped: Intervals::new(MOST_OF_ONE), opened: Intervals::new(MOST_OF_ONE) }
    }

    fn len(&self) -> usize {
        self.mapped.len() + self.opened.len()
    }

    fn dropped(&self) -> u64 {
        self.mapped.dropped() + self.opened.dropped()
    }

    /// Takes in one call.
    fn apply(&mut self, event: &MappingEvent, change: Change) {
        let (start, end) = (event.start, event.start.saturating_add(event.length));
        let origin = Origin { stack: event.user_stack, change, tid: event.tid, at_ns: event.at_ns };
        match change {
            // Where the kernel put it is not known.
            _ if start == 0 => {}
            // What was reserved keeps its origin; this is who took it into use.
            Change::Placed if self.mapped.covers(start, end) => self.opened.put(start, end, origin),
            Change::Mapped | Change::Placed => {
                self.opened.cut(start, end);
                self.mapped.put(start, end, origin);
            }
            Change::Grown => {
                self.mapped.put(start, end, origin);
                self.opened.put(start, end, origin);
            }
            Change::Unmapped => {
                self.mapped.cut(start, end);
                self.opened.cut(start, end);
            }
            Change::Opened => self.opened.put(start, end, origin),
            Change::Moved => self.moved(event, origin),
        }
    }

    fn moved(&mut self, event: &MappingEvent, origin: Origin) {
        let kept = event.from_length.min(event.length);
        for intervals in [&mut self.mapped, &mut self.opened] {
            intervals.cut(event.from.saturating_add(kept), event.from.saturating_add(event.from_length));
            if event.start != event.from {
                intervals.shift(event.from, kept, event.start);
            }
        }
        let (grown, end) = (event.start.saturating_add(kept), event.start.saturating_add(event.length));
        self.opened.cut(grown, end);
        self.mapped.put(grown, end, origin);
    }
}

/// The address spaces of all processes.
#[derive(Debug, Default)]
pub struct Spaces {
    spaces: HashMap<u32, Space>,
    /// Intervals of all as of the last count: counting them is no work for each event.
    held: usize,
    since_count: usize,
    /// Of processes that were forgotten.
    dropped: u64,
}

impl Spaces {
    /// Takes in one event.
    pub fn apply(&mut self, event: &MappingEvent) {
        let Some(change) = Change::from_number(event.change) else { return };
        if self.spaces.get(&event.tgid).is_none_or(|space| space.process != event.process) {
            if self.spaces.len() >= MOST_PROCESSES && !self.spaces.contains_key(&event.tgid) {
                self.dropped += 1;
                return;
            }
            // Another program, or another process with this id.
            self.dropped += self.spaces.get(&event.tgid).map_or(0, Space::dropped);
            self.spaces.insert(event.tgid, Space::new(event.process));
        }
        self.since_count += 1;
        if self.since_count > 4096 {
            self.count();
        }
        if self.held + MOST_NEW * self.since_count >= MOST_OF_ALL {
            self.dropped += 1;
        } else if let Some(space) = self.spaces.get_mut(&event.tgid) {
            space.apply(event, change);
        }
    }

    fn count(&mut self) {
        self.held = self.len();
        self.since_count = 0;
    }

    /// The address space of a process, if that very image is known.
    #[must_use]
    pub fn of(&self, tgid: u32) -> Option<&Space> {
        self.spaces.get(&tgid)
    }

    /// Forgets those that `stays` does not hold for (process identity).
    pub fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        let mut dropped = 0;
        self.spaces.retain(|_, space| {
            let stays = stays(space.process);
            dropped += if stays { 0 } else { space.dropped() };
            stays
        });
        self.dropped += dropped;
        self.count();
    }

    /// Identities of the stacks and processes that are named.
    #[must_use]
    pub fn named(&self) -> (HashSet<u64>, HashSet<u64>) {
        let marks = self.spaces.values().flat_map(|space| space.mapped.marks().chain(space.opened.marks()));
        (marks.map(|origin| origin.stack).collect(), self.spaces.values().map(|space| space.process).collect())
    }

    /// Intervals held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spaces.values().map(Space::len).sum()
    }

    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spaces.values().all(|space| space.len() == 0)
    }

    /// Intervals and calls that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped + self.spaces.values().map(Space::dropped).sum::<u64>()
    }
}

struct Inner {
    ring: RingBuf<MapData>,
    spaces: Spaces,
}

impl Inner {
    fn drain(&mut self) {
        while let Some(item) = self.ring.next() {
            if let Some(event) = mappings::decode(&item) {
                self.spaces.apply(&event);
            }
        }
    }
}

/// The thread and what it keeps.
pub struct Mappings {
    inner: Arc<Mutex<Inner>>,
    stop: Arc<AtomicBool>,
}

impl Mappings {
    /// Takes the ring over.
    ///
    /// # Errors
    /// The object has no such ring, or no thread could be started.
    pub fn start(bpf: &mut Ebpf) -> Result<Mappings, BpfError> {
        let name = "MAPPING_EVENTS";
        let ring = RingBuf::try_from(bpf.take_map(name).ok_or(BpfError::Missing(name))?);
        let ring = ring.map_err(|source| BpfError::Map { name, source })?;
        let inner = Arc::new(Mutex::new(Inner { ring, spaces: Spaces::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&inner), Arc::clone(&stop));
        let run = move || {
            crate::privileges::keep_only_or_warn(&[]);
            while !stopped.load(Ordering::Acquire) {
                lock(&shared).drain();
                std::thread::sleep(PACE);
            }
        };
        std::thread::Builder::new().name("memtrail-maps".into()).spawn(run).map_err(BpfError::Thread)?;
        Ok(Mappings { inner, stop })
    }

    /// Calls `look` with the address spaces as of now.
    pub fn with<T>(&self, look: impl FnOnce(&mut Spaces) -> T) -> T {
        let mut inner = lock(&self.inner);
        inner.drain();
        look(&mut inner.spaces)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// A poisoned lock only says that some thread panicked: the intervals stay usable.
fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(change: Change, start: u64, length: u64, stack: u64) -> MappingEvent {
        MappingEvent { process: 1, user_stack: stack, start, length, tgid: 7, change: change as u32, weight: 1, ..MappingEvent::default() }
    }

    fn spaces(events: &[MappingEvent]) -> Spaces {
        let mut spaces = Spaces::default();
        events.iter().for_each(|event| spaces.apply(event));
        spaces
    }

    fn found(intervals: &Intervals<Origin>) -> Vec<(u64, u64, u64)> {
        intervals.over(0, u64::MAX).map(|piece| (piece.start, piece.end, piece.mark.stack)).collect()
    }

    #[test]
    fn a_reservation_keeps_its_origin_when_it_is_taken_into_use() {
        let spaces = spaces(&[
            event(Change::Mapped, 100, 100, 1),
            event(Change::Placed, 120, 10, 2),
            event(Change::Opened, 150, 10, 3),
            // Half of it lies outside: something else was put there.
            event(Change::Placed, 190, 20, 4),
        ]);
        let space = spaces.of(7).unwrap();
        assert_eq!(found(&space.mapped), [(100, 190, 1), (190, 210, 4)]);
        assert_eq!(found(&space.opened), [(120, 130, 2), (150, 160, 3)]);
    }

    #[test]
    fn unmapping_and_moving() {
        let moved = MappingEvent { from: 100, from_length: 50, ..event(Change::Moved, 500, 80, 9) };
        let spaces = spaces(&[
            event(Change::Mapped, 100, 50, 1),
            event(Change::Grown, 300, 50, 2),
            event(Change::Unmapped, 320, 10, 0),
            moved,
            event(Change::Mapped, 0, 50, 3),
        ]);
        assert_eq!(found(&spaces.of(7).unwrap().mapped), [(300, 320, 2), (330, 350, 2), (500, 550, 1), (550, 580, 9)]);
    }

    #[test]
    fn another_program_begins_anew_and_the_gone_are_forgotten() {
        let next = MappingEvent { process: 2, ..event(Change::Mapped, 500, 10, 3) };
        let mut spaces = spaces(&[event(Change::Mapped, 100, 50, 1), next]);
        assert_eq!(found(&spaces.of(7).unwrap().mapped), [(500, 510, 3)]);
        assert_eq!(spaces.named(), (HashSet::from([3]), HashSet::from([2])));
        spaces.retain(|process| process != 2);
        assert!(spaces.of(7).is_none() && spaces.is_empty());
    }

    #[test]
    fn intervals_are_bounded_and_counted() {
        let mut spaces = Spaces::default();
        for n in 0..2 * MOST_OF_ALL as u64 {
            let event = MappingEvent { tgid: (n % 5) as u32, ..event(Change::Mapped, n * 10 + 1, 5, 1) };
            spaces.apply(&event);
        }
        assert!(spaces.len() <= MOST_OF_ALL, "{}", spaces.len());
        assert!(spaces.dropped() >= MOST_OF_ALL as u64 / 2, "{}", spaces.dropped());
        let strange = MappingEvent { change: 99, ..event(Change::Mapped, u64::MAX, u64::MAX, 1) };
        spaces.apply(&strange);
        spaces.apply(&event(Change::Mapped, u64::MAX - 5, u64::MAX, 1));
    }
}
