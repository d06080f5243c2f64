//! Address spaces as calls make them. Pure; bounded, and what finds no room is counted.
//!
//! Where a process's own list is asked for, the answer comes later: the process's calls wait until then, as if they were in the ring still.

use crate::region::{self, intervals::Intervals};
use std::collections::{HashMap, HashSet, VecDeque};
use tracer_common::mapping::{Change, MappingEvent};

/// Most intervals of one process: as many as mappings are read of one.
const MOST_OF_ONE: usize = region::maps::MOST_VMAS;
/// Most intervals of all, some 100 bytes each.
const MOST_OF_ALL: usize = 1 << 18;
/// Most intervals that one call adds: pieces at the ends of what it cuts, and its own, in both maps.
const MOST_NEW: usize = 4;
/// Most processes.
const MOST_PROCESSES: usize = 1 << 14;
/// Most calls of one process that wait for an answer. With more of them there is none to wait for.
const MOST_WAITING: usize = 4096;
/// Least time between two looks at the same process, nanoseconds.
const APART_NS: u64 = 1_000_000_000;

/// First address of a range, and the address after its last.
pub type Range = (u64, u64);

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

/// The address space of one process image.
#[derive(Clone, Debug)]
pub struct Space {
    /// Identity of the process.
    pub process: u64,
    /// Who mapped it; `None` for what was there before the process was followed, and where a call is missing.
    pub mapped: Intervals<Option<Origin>>,
    /// Who made it accessible afterwards: brk, mprotect, mmap over a reservation.
    pub opened: Intervals<Origin>,
    /// When it was last compared with the process's own list, monotonic nanoseconds.
    compared_ns: u64,
    /// Calls since the process's own list was asked for, until it comes.
    waiting: Option<Vec<MappingEvent>>,
    /// Calls were missing when that list was asked for.
    asked_in_doubt: bool,
}

impl Space {
    fn new(process: u64) -> Space {
        let (mapped, opened) = (Intervals::new(MOST_OF_ONE), Intervals::new(MOST_OF_ONE));
        Space { process, mapped, opened, compared_ns: 0, waiting: None, asked_in_doubt: false }
    }

    fn len(&self) -> usize {
        self.mapped.len() + self.opened.len() + self.waiting.as_ref().map_or(0, Vec::len)
    }

    fn dropped(&self) -> u64 {
        self.mapped.dropped() + self.opened.dropped()
    }

    /// Where the origin of what it has mapped is known: who, and how much.
    #[must_use]
    pub fn origins(&self) -> Intervals<Origin> {
        let mut origins = Intervals::new(MOST_OF_ONE);
        for piece in self.mapped.over(0, u64::MAX) {
            if let Some(origin) = piece.mark {
                origins.put(piece.start, piece.end, origin);
            }
        }
        origins
    }

    /// Stacks that are named.
    pub fn stacks(&self) -> impl Iterator<Item = u64> + '_ {
        let waiting = self.waiting.iter().flatten().map(|event| event.user_stack);
        self.mapped.marks().flatten().chain(self.opened.marks()).map(|origin| origin.stack).chain(waiting)
    }

    /// Takes in one call, or lets it wait.
    fn take(&mut self, event: &MappingEvent, change: Change) {
        match &mut self.waiting {
            Some(waiting) if waiting.len() < MOST_WAITING => waiting.push(*event),
            Some(_) => {
                self.settle();
                self.apply(event, change);
            }
            None => self.apply(event, change),
        }
    }

    /// Takes in the calls that wait.
    fn settle(&mut self) {
        for event in self.waiting.take().into_iter().flatten() {
            if let Some(change) = Change::from_number(event.change) {
                self.apply(&event, change);
            }
        }
    }

    /// Takes in those that had ended at a time, monotonic nanoseconds: what they did, later calls may have undone that are missing.
    fn settle_before(&mut self, ns: u64) {
        let (before, since) = self.waiting.take().into_iter().flatten().partition(|event: &MappingEvent| event.at_ns < ns);
        self.waiting = Some(before);
        self.settle();
        self.waiting = Some(since);
    }

    /// The same with the calls that wait taken in.
    #[must_use]
    pub fn settled(&self) -> Space {
        let mut settled = self.clone();
        settled.settle();
        settled
    }

    /// Takes in one call at once.
    fn apply(&mut self, event: &MappingEvent, change: Change) {
        let (start, end) = (event.start, event.start.saturating_add(event.length));
        let origin = Origin { stack: event.user_stack, change, tid: event.tid, at_ns: event.at_ns };
        match change {
            // Where the kernel put it is not known.
            _ if start == 0 => {}
            // What was reserved keeps its origin; this is who took it into use.
            Change::Placed if self.was_reserved(start, end, event.at_ns) => self.opened.put(start, end, origin),
            Change::Mapped | Change::Placed => {
                self.opened.cut(start, end);
                self.mapped.put(start, end, Some(origin));
            }
            Change::Grown => {
                self.mapped.put(start, end, Some(origin));
                self.opened.put(start, end, origin);
            }
            Change::Unmapped => {
                self.mapped.cut(start, end);
                self.opened.cut(start, end);
            }
            Change::Opened => self.opened.put(start, end, origin),
            Change::Moved => self.moved(event, origin),
            Change::Forked => {}
        }
    }

    /// Whether a range was mapped already when a call was made, at `at_ns`. If the process's own list was read after the call, a range
    /// without an origin does not count: the list may have found there what this call mapped.
    fn was_reserved(&self, start: u64, end: u64, at_ns: u64) -> bool {
        self.mapped.covers(start, end) && (at_ns > self.compared_ns || self.mapped.over(start, end).all(|piece| piece.mark.is_some()))
    }

    fn moved(&mut self, event: &MappingEvent, origin: Origin) {
        let kept = event.from_length.min(event.length);
        let (given_back, old_end) = (event.from.saturating_add(kept), event.from.saturating_add(event.from_length));
        self.mapped.cut(given_back, old_end);
        self.opened.cut(given_back, old_end);
        if event.start != event.from {
            self.mapped.shift(event.from, kept, event.start);
            self.opened.shift(event.from, kept, event.start);
            // Something was moved there, known or not.
            for (start, end) in self.mapped.gaps(event.start, event.start.saturating_add(kept)) {
                self.mapped.put(start, end, None);
            }
        }
        let (grown, end) = (event.start.saturating_add(kept), event.start.saturating_add(event.length));
        self.opened.cut(grown, end);
        self.mapped.put(grown, end, Some(origin));
    }

    /// Bytes that are mapped here or in these ranges (sorted, disjoint), and not in both.
    #[must_use]
    pub fn differs(&self, ranges: &[Range]) -> u64 {
        let bytes = |(start, end): Range| end - start;
        let missing = ranges.iter().flat_map(|&(start, end)| self.mapped.gaps(start, end)).map(bytes);
        let over = outside(ranges).flat_map(|(start, end)| self.mapped.over(start, end)).map(|piece| piece.end - piece.start);
        missing.chain(over).fold(0, u64::saturating_add)
    }

    /// Makes it cover exactly these ranges: what is not in them is gone, and what was missing has no origin.
    fn agree(&mut self, look: &Look) {
        self.compared_ns = look.at_ns;
        let ranges = &look.ranges;
        for (start, end) in outside(ranges) {
            self.mapped.cut(start, end);
            self.opened.cut(start, end);
        }
        for &(start, end) in ranges {
            for (start, end) in self.mapped.gaps(start, end) {
                self.mapped.put(start, end, None);
            }
        }
    }
}

/// What lies between ranges, before the first and behind the last.
fn outside(ranges: &[Range]) -> impl Iterator<Item = Range> + '_ {
    let starts = ranges.iter().map(|range| range.0).chain([u64::MAX]);
    let ends = [0].into_iter().chain(ranges.iter().map(|range| range.1));
    ends.zip(starts)
}

/// The address spaces of all processes.
#[derive(Debug, Default)]
pub struct Spaces {
    spaces: HashMap<u32, Space>,
    /// Those of which calls are missing.
    doubtful: HashSet<u32>,
    /// New ones that were never looked at, in the order in which they came.
    fresh: VecDeque<u32>,
    /// Intervals of all as of the last count: counting them is no work for each event.
    held: usize,
    since_count: usize,
    /// Of processes that were forgotten.
    dropped: u64,
    /// Processes that were looked at anew, and bytes that differed.
    repaired: u64,
    repaired_bytes: u64,
}

impl Spaces {
    /// Takes in one event. So many new processes may wait for a first look at them; the others are looked at as those of which calls are
    /// missing.
    pub fn apply(&mut self, event: &MappingEvent, first_looks: usize) {
        let Some(change) = Change::from_number(event.change) else { return };
        if self.spaces.get(&event.tgid).is_none_or(|space| space.process != event.process) && !self.begin(event, change, first_looks) {
            return;
        }
        if event.weight > 1 {
            // Others like it were passed over.
            self.doubtful.insert(event.tgid);
        }
        self.since_count += 1;
        if self.since_count > 4096 {
            self.count();
        }
        if self.held + MOST_NEW * self.since_count >= MOST_OF_ALL {
            self.dropped += 1;
        } else if let Some(space) = self.spaces.get_mut(&event.tgid) {
            space.take(event, change);
        }
    }

    /// Another program, or another process with this id.
    fn begin(&mut self, event: &MappingEvent, change: Change, first_looks: usize) -> bool {
        if self.spaces.len() >= MOST_PROCESSES && !self.spaces.contains_key(&event.tgid) {
            self.dropped += 1;
            return false;
        }
        self.dropped += self.spaces.get(&event.tgid).map_or(0, Space::dropped);
        let parent = u32::try_from(event.from_length).ok().filter(|_| change == Change::Forked);
        let parents = parent.and_then(|parent| self.spaces.get(&parent)).filter(|space| space.process == event.from);
        let doubtful = parent.is_some_and(|parent| self.doubtful.contains(&parent));
        let (space, doubtful) = match parents {
            // The parent may wait for a look at it; the child has one of its own then.
            Some(parents) => (Space { process: event.process, ..parents.settled() }, doubtful || parents.waiting.is_some()),
            None if self.fresh.len() < first_looks => {
                self.fresh.push_back(event.tgid);
                (Space { waiting: Some(Vec::new()), ..Space::new(event.process) }, false)
            }
            None => (Space::new(event.process), true),
        };
        if self.held + space.len() >= MOST_OF_ALL {
            self.dropped += 1;
            self.spaces.remove(&event.tgid);
            return false;
        }
        self.held += space.len();
        self.spaces.insert(event.tgid, space);
        if doubtful {
            self.doubtful.insert(event.tgid);
        } else {
            self.doubtful.remove(&event.tgid);
        }
        true
    }

    /// Calls are missing, and it is not known whose.
    pub fn doubt_all(&mut self) {
        self.doubtful.extend(self.spaces.keys());
    }

    /// A process that is to be looked at anew, and is not `silent`: the one whose last look is longest ago.
    #[must_use]
    pub fn next_doubtful(&self, now_ns: u64, silent: &HashSet<u32>) -> Option<u32> {
        let looked = |tgid: &u32| Some((self.spaces.get(tgid)?.compared_ns, *tgid)).filter(|_| !silent.contains(tgid));
        let due = self.doubtful.iter().filter_map(looked).filter(|(at_ns, _)| now_ns.saturating_sub(*at_ns) >= APART_NS);
        due.min().map(|(_, tgid)| tgid)
    }

    /// A new process that waits for a first look at it, longest of all.
    pub fn next_fresh(&mut self) -> Option<u32> {
        std::iter::from_fn(|| self.fresh.pop_front()).find(|tgid| self.spaces.get(tgid).is_some_and(|space| space.waiting.is_some()))
    }

    /// Whether calls of that process are missing, or it was never looked at.
    #[must_use]
    pub fn is_doubtful(&self, tgid: u32) -> bool {
        self.doubtful.contains(&tgid) || self.spaces.get(&tgid).is_some_and(|space| space.waiting.is_some())
    }

    /// A look at that process begins: its calls wait for the answer from now on. Its identity; `None` if nothing is known of it.
    pub fn begin_look(&mut self, tgid: u32) -> Option<u64> {
        let space = self.spaces.get_mut(&tgid)?;
        space.waiting.get_or_insert_default();
        // The list answers for all calls before it. One that is missed from now on may be younger: whoever notes that meanwhile is not overruled.
        space.asked_in_doubt = self.doubtful.remove(&tgid);
        Some(space.process)
    }

    /// Takes in what a process was found to have mapped; `None` if it could not be looked at. Another process that has this id by now was
    /// not looked at.
    pub fn end_look(&mut self, tgid: u32, process: u64, look: Option<Look>) {
        let Some(space) = self.spaces.get_mut(&tgid).filter(|space| space.process == process) else { return };
        // With too many calls since, what was found is older than what is known.
        if space.waiting.is_none() {
            self.doubtful.insert(tgid);
        } else if let Some(look) = look {
            space.settle_before(look.begun_ns);
            if space.asked_in_doubt {
                self.repaired += 1;
                self.repaired_bytes = self.repaired_bytes.saturating_add(space.differs(&look.ranges));
            }
            space.agree(&look);
        }
        space.settle();
        self.count();
    }

    /// A look at that process is given up: its calls wait no longer, and it stays doubtful.
    pub fn give_up(&mut self, tgid: u32) {
        if let Some(space) = self.spaces.get_mut(&tgid) {
            space.settle();
            self.doubtful.insert(tgid);
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
        self.spaces.retain(|tgid, space| {
            let stays = stays(space.process);
            if !stays {
                dropped += space.dropped();
                self.doubtful.remove(tgid);
            }
            stays
        });
        self.dropped += dropped;
        self.count();
    }

    /// Identities of the stacks and processes that are named.
    #[must_use]
    pub fn named(&self) -> (HashSet<u64>, HashSet<u64>) {
        let spaces = self.spaces.values();
        (spaces.clone().flat_map(Space::stacks).collect(), spaces.map(|space| space.process).collect())
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

    /// Looks at processes of which calls were missing, and bytes that differed then.
    #[must_use]
    pub fn repaired(&self) -> (u64, u64) {
        (self.repaired, self.repaired_bytes)
    }
}

/// What a process has mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Monotonic nanoseconds, just before.
    pub begun_ns: u64,
    /// Monotonic nanoseconds, just after.
    pub at_ns: u64,
    /// Sorted, disjoint.
    pub ranges: Vec<Range>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tracer_common::mix64;

    fn event(change: Change, start: u64, length: u64, stack: u64) -> MappingEvent {
        MappingEvent { process: 1, user_stack: stack, start, length, tgid: 7, change: change as u32, weight: 1, ..MappingEvent::default() }
    }

    fn forked(tgid: u32, parent: u32) -> MappingEvent {
        let (process, from) = (u64::from(tgid), u64::from(parent));
        MappingEvent { process, tgid, from, from_length: from, change: Change::Forked as u32, weight: 1, ..MappingEvent::default() }
    }

    /// Takes in one event, and answers whoever waits for a look.
    fn apply(spaces: &mut Spaces, event: &MappingEvent, look: Option<Look>) {
        spaces.apply(event, 1);
        while let Some(tgid) = spaces.next_fresh() {
            let process = spaces.begin_look(tgid).unwrap();
            spaces.end_look(tgid, process, look.clone());
        }
    }

    fn empty() -> Option<Look> {
        Some(Look::default())
    }

    fn spaces(events: &[MappingEvent]) -> Spaces {
        let mut spaces = Spaces::default();
        events.iter().for_each(|event| apply(&mut spaces, event, empty()));
        spaces
    }

    /// A look at once.
    fn repair(spaces: &mut Spaces, tgid: u32, look: Option<Look>) {
        let process = spaces.begin_look(tgid).unwrap();
        spaces.end_look(tgid, process, look);
    }

    fn next_doubtful(spaces: &Spaces, now_ns: u64) -> Option<u32> {
        spaces.next_doubtful(now_ns, &HashSet::new())
    }

    fn found(intervals: &Intervals<Origin>) -> Vec<(u64, u64, u64)> {
        intervals.over(0, u64::MAX).map(|piece| (piece.start, piece.end, piece.mark.stack)).collect()
    }

    /// With 0 for what has no origin.
    fn mapped(space: &Space) -> Vec<(u64, u64, u64)> {
        space.mapped.over(0, u64::MAX).map(|piece| (piece.start, piece.end, piece.mark.map_or(0, |origin| origin.stack))).collect()
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
        assert_eq!(found(&space.origins()), [(100, 190, 1), (190, 210, 4)]);
        assert_eq!(found(&space.opened), [(120, 130, 2), (150, 160, 3)]);
    }

    #[test]
    fn a_list_overrules_calls_that_ended_before_it_was_read() {
        let mut spaces = Spaces::default();
        let at = |at_ns, event| MappingEvent { at_ns, ..event };
        spaces.apply(&at(1, event(Change::Mapped, 100, 50, 1)), 1);
        // What gave it back is lost.
        spaces.apply(&at(2, event(Change::Mapped, 200, 50, 2)), 1);
        spaces.apply(&at(6, event(Change::Mapped, 300, 50, 3)), 1);
        assert_eq!(spaces.next_fresh(), Some(7));
        let process = spaces.begin_look(7).unwrap();
        spaces.end_look(7, process, Some(Look { begun_ns: 5, at_ns: 9, ranges: vec![(200, 250)] }));
        assert_eq!(found(&spaces.of(7).unwrap().origins()), [(200, 250, 2), (300, 350, 3)]);
    }

    #[test]
    fn calls_that_are_missed_while_a_list_is_read_leave_the_process_in_doubt() {
        let mut spaces = spaces(&[event(Change::Mapped, 100, 50, 1)]);
        spaces.doubt_all();
        let process = spaces.begin_look(7).unwrap();
        // After the list was read, and before it is taken in: the call that mapped 200 to 250 is lost.
        spaces.doubt_all();
        spaces.end_look(7, process, Some(Look { at_ns: 9, ranges: vec![(100, 150)], ..Look::default() }));
        assert_eq!((spaces.repaired(), spaces.is_doubtful(7)), ((1, 0), true));
        repair(&mut spaces, 7, Some(Look { at_ns: 10, ranges: vec![(100, 150), (200, 250)], ..Look::default() }));
        assert_eq!((spaces.repaired(), spaces.is_doubtful(7)), ((2, 50), false));
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
        assert_eq!(found(&spaces.of(7).unwrap().origins()), [(300, 320, 2), (330, 350, 2), (500, 550, 1), (550, 580, 9)]);
    }

    #[test]
    fn what_is_older_has_no_origin_and_is_a_reservation_all_the_same() {
        let mut spaces = Spaces::default();
        let older = Some(Look { at_ns: 10, ranges: vec![(100, 200), (300, 400)], ..Look::default() });
        for (change, start, at_ns) in [(Change::Mapped, 500, 5), (Change::Placed, 320, 20), (Change::Placed, 120, 5)] {
            apply(&mut spaces, &MappingEvent { at_ns, ..event(change, start, 10, start) }, older.clone());
        }
        let space = spaces.of(7).unwrap();
        assert_eq!(found(&space.opened), [(320, 330, 320)]);
        // That call came before the look, which may have found what the call made.
        assert_eq!(mapped(space), [(100, 120, 0), (120, 130, 120), (130, 200, 0), (300, 400, 0), (500, 510, 500)]);
    }

    #[test]
    fn a_child_has_what_its_parent_mapped_until_it_runs_another_program() {
        let mut spaces = spaces(&[event(Change::Mapped, 100, 50, 1)]);
        spaces.apply(&MappingEvent { from: 1, ..forked(8, 7) }, 1);
        assert_eq!(spaces.next_fresh(), None, "the parent's is known");
        let child = |change, start, length| MappingEvent { tgid: 8, process: 8, ..event(change, start, length, 2) };
        apply(&mut spaces, &child(Change::Unmapped, 120, 10), empty());
        apply(&mut spaces, &forked(9, 8), empty());
        assert_eq!(found(&spaces.of(7).unwrap().origins()), [(100, 150, 1)]);
        assert_eq!(found(&spaces.of(9).unwrap().origins()), [(100, 120, 1), (130, 150, 1)]);
        // An unknown parent, and another one with that id.
        apply(&mut spaces, &forked(10, 99), empty());
        apply(&mut spaces, &MappingEvent { from: 4711, ..forked(11, 8) }, empty());
        assert!(spaces.of(10).unwrap().mapped.is_empty() && spaces.of(11).unwrap().mapped.is_empty());
        apply(&mut spaces, &MappingEvent { process: 80, ..child(Change::Mapped, 10, 5) }, empty());
        assert_eq!(found(&spaces.of(8).unwrap().origins()), [(10, 15, 2)]);
        assert_eq!(spaces.repaired(), (0, 0));
    }

    #[test]
    fn the_gone_are_forgotten() {
        let next = MappingEvent { process: 2, ..event(Change::Mapped, 500, 10, 3) };
        let mut spaces = spaces(&[event(Change::Mapped, 100, 50, 1), next]);
        assert_eq!(found(&spaces.of(7).unwrap().origins()), [(500, 510, 3)]);
        assert_eq!(spaces.named(), (HashSet::from([3]), HashSet::from([2])));
        spaces.doubt_all();
        spaces.retain(|process| process != 2);
        assert!(spaces.of(7).is_none() && spaces.is_empty() && next_doubtful(&spaces, u64::MAX).is_none());
    }

    #[test]
    fn a_process_is_looked_at_again_once_where_calls_are_missing() {
        let mut spaces = spaces(&[event(Change::Mapped, 100, 50, 1)]);
        assert_eq!(next_doubtful(&spaces, u64::MAX), None);
        apply(&mut spaces, &MappingEvent { weight: 64, ..event(Change::Mapped, 200, 50, 2) }, empty());
        assert_eq!((next_doubtful(&spaces, APART_NS - 1), next_doubtful(&spaces, APART_NS)), (None, Some(7)));
        let look = Look { at_ns: 5, ranges: vec![(90, 110), (240, 260)], ..Look::default() };
        repair(&mut spaces, 7, Some(look.clone()));
        assert_eq!(mapped(spaces.of(7).unwrap()), [(90, 100, 0), (100, 110, 1), (240, 250, 2), (250, 260, 0)]);
        assert_eq!((spaces.repaired(), next_doubtful(&spaces, u64::MAX)), ((1, 100), None));
        // One that is gone is not asked for again; a child of a doubtful one is doubtful.
        spaces.doubt_all();
        apply(&mut spaces, &MappingEvent { from: 1, ..forked(8, 7) }, empty());
        repair(&mut spaces, 7, None);
        assert_eq!(next_doubtful(&spaces, u64::MAX), Some(8));
        repair(&mut spaces, 8, Some(look));
        assert_eq!((spaces.repaired(), next_doubtful(&spaces, u64::MAX)), ((2, 100), None));
        // One that could not be looked at when it came is looked at later.
        spaces.apply(&MappingEvent { tgid: 12, process: 12, ..event(Change::Mapped, 200, 50, 2) }, 0);
        assert_eq!(next_doubtful(&spaces, u64::MAX), Some(12));
    }

    /// What was found may be older than calls that come before the answer: they wait for it.
    #[test]
    fn calls_wait_for_the_answer_of_a_look_and_their_stacks_are_named() {
        let mut spaces = Spaces::default();
        spaces.apply(&event(Change::Mapped, 100, 50, 1), 1);
        spaces.apply(&event(Change::Unmapped, 300, 50, 0), 1);
        assert!(spaces.is_doubtful(7) && spaces.of(7).unwrap().mapped.is_empty());
        assert_eq!(spaces.named().0, HashSet::from([0, 1]));
        assert_eq!(mapped(&spaces.of(7).unwrap().settled()), [(100, 150, 1)]);
        assert_eq!(spaces.next_fresh(), Some(7));
        let process = spaces.begin_look(7).unwrap();
        // A child begins before the answer; it has an answer of its own.
        spaces.apply(&MappingEvent { from: 1, ..forked(8, 7) }, 0);
        assert_eq!((mapped(spaces.of(8).unwrap()), next_doubtful(&spaces, u64::MAX)), (vec![(100, 150, 1)], Some(8)));
        // The list was read between the two calls.
        spaces.end_look(7, process, Some(Look { at_ns: 9, ranges: vec![(100, 150), (200, 250), (300, 350)], ..Look::default() }));
        assert_eq!(mapped(spaces.of(7).unwrap()), [(100, 150, 1), (200, 250, 0)]);
        assert!(!spaces.is_doubtful(7) && spaces.repaired() == (0, 0), "nothing of it was missing");
    }

    #[test]
    fn a_look_that_is_given_up_leaves_the_process_as_its_calls_make_it_and_doubtful() {
        let mut spaces = Spaces::default();
        spaces.apply(&event(Change::Mapped, 100, 50, 1), 1);
        let process = spaces.begin_look(7).unwrap();
        spaces.give_up(7);
        assert_eq!((mapped(spaces.of(7).unwrap()), spaces.is_doubtful(7)), (vec![(100, 150, 1)], true));
        assert_eq!(spaces.next_doubtful(u64::MAX, &HashSet::from([7])), None, "it does not answer");
        // A late answer is older than what came since.
        spaces.apply(&event(Change::Unmapped, 100, 50, 0), 1);
        spaces.end_look(7, process, Some(Look { at_ns: 9, ranges: vec![(100, 150)], ..Look::default() }));
        assert!(spaces.of(7).unwrap().mapped.is_empty() && spaces.is_doubtful(7));
        // With more calls than can wait there is no answer to wait for.
        spaces.begin_look(7).unwrap();
        for n in 0..=MOST_WAITING as u64 {
            spaces.apply(&event(Change::Mapped, 1000 + 10 * n, 5, n), 1);
        }
        assert_eq!(spaces.of(7).unwrap().mapped.len(), MOST_WAITING + 1);
        spaces.end_look(7, process, empty());
        assert!(spaces.is_doubtful(7) && !spaces.of(7).unwrap().mapped.is_empty());
        // Another process with that id was not looked at.
        spaces.begin_look(7).unwrap();
        spaces.apply(&MappingEvent { process: 2, ..event(Change::Mapped, 100, 50, 1) }, 1);
        spaces.end_look(7, process, empty());
        assert!(spaces.is_doubtful(7));
    }

    /// An address space that a seed stands for: by page the number of the call that mapped it, 0 for none.
    struct Model {
        pages: Vec<u64>,
        state: u64,
        calls: u64,
    }

    impl Model {
        const PAGES: u64 = 64;

        fn new(seed: u64) -> Model {
            Model { pages: vec![0; Model::PAGES as usize], state: seed, calls: 0 }
        }

        fn random(&mut self, below: u64) -> u64 {
            self.state = mix64(self.state, 1);
            (self.state >> 16) % below
        }

        fn call(&mut self) -> MappingEvent {
            self.calls += 1;
            let (start, length) = (self.random(Model::PAGES), 1 + self.random(Model::PAGES / 4));
            let end = (start + length).min(Model::PAGES);
            let pages = &self.pages[start as usize..end as usize];
            // A reservation keeps its origin: here it is asked for free places only.
            let is_free = pages.contains(&0);
            let change = match self.random(3) {
                0 => Change::Unmapped,
                1 if is_free => Change::Placed,
                _ => Change::Mapped,
            };
            self.pages[start as usize..end as usize].fill(if change == Change::Unmapped { 0 } else { self.calls });
            MappingEvent { at_ns: self.calls, ..event(change, start + 1, end - start, self.calls) }
        }

        fn look(&self) -> Look {
            let mapped = (0..Model::PAGES).filter(|page| self.pages[*page as usize] != 0);
            Look { begun_ns: self.calls, at_ns: self.calls, ranges: mapped.map(|page| (page + 1, page + 2)).collect() }
        }
    }

    /// A third of the calls is lost, or none. A look is younger than events that still wait, and leads to the same pages once they have come; where
    /// nothing was lost no page has another one's origin.
    #[test]
    fn as_a_plain_model_page_by_page_with_losses_and_looks_ahead_of_events() {
        for seed in 0..300 {
            let (mut model, loses) = (Model::new(seed), seed % 2 == 1);
            let mut spaces = spaces(&[event(Change::Mapped, 0, 1, 1)]);
            for _ in 0..50 {
                let mut lost = false;
                for _ in 0..model.random(4) {
                    let event = model.call();
                    if loses && model.random(3) == 0 {
                        lost = true;
                    } else {
                        apply(&mut spaces, &event, empty());
                    }
                }
                if lost || model.random(4) == 0 {
                    let waiting: Vec<MappingEvent> = (0..model.random(4)).map(|_| model.call()).collect();
                    repair(&mut spaces, 7, Some(model.look()));
                    waiting.iter().for_each(|event| apply(&mut spaces, event, empty()));
                }
                let space = spaces.of(7).unwrap();
                assert_eq!(space.differs(&model.look().ranges), 0, "seed {seed}");
                for (start, end, stack) in mapped(space) {
                    for page in start..end {
                        let truth = model.pages[page as usize - 1];
                        assert!(loses || stack == truth || stack == 0, "seed {seed}: page {page} is {truth}'s, not {stack}'s");
                    }
                }
            }
        }
    }

    #[test]
    fn intervals_are_bounded_and_counted() {
        let mut spaces = Spaces::default();
        for n in 0..2 * MOST_OF_ALL as u64 {
            let event = MappingEvent { tgid: (n % 5) as u32, ..event(Change::Mapped, n * 10 + 1, 5, 1) };
            apply(&mut spaces, &event, empty());
        }
        assert!(spaces.len() <= MOST_OF_ALL, "{}", spaces.len());
        assert!(spaces.dropped() >= MOST_OF_ALL as u64 / 2, "{}", spaces.dropped());
        let before = spaces.len();
        apply(&mut spaces, &MappingEvent { from: 1, ..forked(99, 1) }, empty());
        assert!(spaces.of(99).is_none() && spaces.len() == before, "no room for a child's");
        let strange = MappingEvent { change: 99, ..event(Change::Mapped, u64::MAX, u64::MAX, 1) };
        apply(&mut spaces, &strange, empty());
        apply(&mut spaces, &event(Change::Mapped, u64::MAX - 5, u64::MAX, 1), empty());
    }
}
