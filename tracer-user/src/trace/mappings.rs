//! Who mapped what, and when: the kernel half's events, kept as intervals of each process's address space. What exists is read from `/proc`
//! at the report; this adds its origin.
//!
//! A process's intervals begin with what `/proc/PID/maps` lists when its first event comes, or with its parent's when it is forked. Where calls
//! are missing (a full ring, a storm that is thinned) that list is read again. It overrules the events of calls that had ended before; those
//! of later calls lead from it to the same state whether it shows them already or not, since for each page the last one says what it is.
//!
//! A thread of its own empties the ring, at a pace of its own: nobody has to be woken for a mapping. Another one reads the lists: a process
//! that waits for a file server that never answers can keep its list from being read, and then only that thread waits with it. It is given
//! up after [`PATIENCE`], and another one goes on with the other processes. Nobody reads a list with the lock held, so whoever asks for the
//! address spaces waits for work in memory only.

mod spaces;

pub use spaces::{Origin, Space, Spaces};

use crate::{
    host::clock::monotonic_ns,
    host::lock,
    host::privileges,
    host::proc::Process,
    kernel_half::{BpfError, KernelHalf, events::mapping::MappingEvents},
};
use spaces::Look;
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Pause between two looks at the ring: in a storm of one process it fills in seconds.
const PACE: Duration = Duration::from_millis(50);
/// Most first looks at processes between two such looks: a list is read in a tenth of a millisecond. The others are looked at later.
const FIRST_LOOKS: usize = 64;
/// Longest wait for the list of one process: one of 60,000 mappings takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most processes that did not answer, each of which keeps a thread. With more of them no lists are read.
const MOST_SILENT: usize = 16;
/// Longest that a report waits for all lists that it asks for.
const SETTLE: Duration = Duration::from_secs(1);
/// After a look at a process of which calls are missing there is none for so many times as long: they take 1 % of a CPU at most.
const RARELY: u64 = 100;

struct Inner {
    events: MappingEvents,
    lost_before: u64,
    spaces: Spaces,
    looks: Looks,
}

/// Whose list is to be read next, and who does not answer. Pure but for the clock values that come in.
#[derive(Default)]
struct Looks {
    /// Those that a report waits for.
    urgent: VecDeque<u32>,
    /// First looks that may begin before the ring is looked at again.
    first: usize,
    /// No second looks before, monotonic nanoseconds.
    rests_until_ns: u64,
    under_way: Option<Begun>,
    /// Number of the thread that reads lists; those before it were given up.
    thread: u64,
    /// Whether there is one.
    served: bool,
    silent: HashSet<u32>,
}

/// A look under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    tgid: u32,
    /// Identity of the process.
    process: u64,
    /// Monotonic nanoseconds.
    at_ns: u64,
    /// It is a second look that nobody waits for.
    rare: bool,
}

impl Looks {
    /// Begins the next look, if one is due.
    fn begin(&mut self, spaces: &mut Spaces, now_ns: u64) -> Option<Begun> {
        let (tgid, rare) = self.next(spaces, now_ns)?;
        let process = spaces.begin_look(tgid)?;
        self.under_way = Some(Begun { tgid, process, at_ns: now_ns, rare });
        self.under_way
    }

    fn next(&mut self, spaces: &mut Spaces, now_ns: u64) -> Option<(u32, bool)> {
        while let Some(tgid) = self.urgent.pop_front() {
            if spaces.is_doubtful(tgid) && !self.silent.contains(&tgid) {
                return Some((tgid, false));
            }
        }
        while self.first > 0
            && let Some(tgid) = spaces.next_fresh()
        {
            if self.silent.contains(&tgid) {
                spaces.give_up(tgid);
                continue;
            }
            self.first -= 1;
            return Some((tgid, false));
        }
        if now_ns < self.rests_until_ns {
            return None;
        }
        spaces.next_doubtful(now_ns, &self.silent).map(|tgid| (tgid, true))
    }

    /// Takes in what was found by the thread of that number. False if it was given up: it is not needed any more.
    fn end(&mut self, spaces: &mut Spaces, thread: u64, begun: Begun, look: Option<Look>, now_ns: u64) -> bool {
        if thread != self.thread {
            // It answers again.
            self.silent.remove(&begun.tgid);
            return false;
        }
        self.under_way = None;
        spaces.end_look(begun.tgid, begun.process, look);
        if begun.rare {
            self.rests_until_ns = now_ns + RARELY * now_ns.saturating_sub(begun.at_ns);
        }
        true
    }

    /// Gives a look up that takes too long. Whose it was.
    fn give_up(&mut self, spaces: &mut Spaces, now_ns: u64) -> Option<u32> {
        let late = |begun: &mut Begun| u128::from(now_ns.saturating_sub(begun.at_ns)) > PATIENCE.as_nanos();
        let Begun { tgid, .. } = self.under_way.take_if(late)?;
        spaces.give_up(tgid);
        self.silent.insert(tgid);
        (self.thread, self.served) = (self.thread + 1, false);
        Some(tgid)
    }

    /// Whether one of these is waited for.
    fn awaits(&self, tgids: &HashSet<u32>) -> bool {
        tgids.iter().any(|tgid| self.awaits_one(*tgid))
    }

    fn awaits_one(&self, tgid: u32) -> bool {
        self.urgent.contains(&tgid) || self.under_way.is_some_and(|begun| begun.tgid == tgid)
    }
}

impl Inner {
    fn drain(&mut self) {
        // Before the ring: whoever is found by what is in it is younger than that loss, or is looked at in vain.
        let lost = self.events.lost().unwrap_or(self.lost_before);
        // Without anybody to look at them new processes wait for nothing.
        let first_looks = if self.looks.served { FIRST_LOOKS } else { 0 };
        for event in self.events.by_ref() {
            self.spaces.apply(&event, first_looks);
        }
        if lost != self.lost_before {
            self.lost_before = lost;
            self.spaces.doubt_all();
        }
    }
}

/// What a process has mapped. Of one whose first thread has ended the kernel lists nothing.
fn look(tgid: u32) -> Option<Look> {
    let begun_ns = monotonic_ns();
    let maps = Process::open(tgid).ok()?.maps().ok()?;
    (!maps.vmas.is_empty() && !maps.cut).then(|| Look { begun_ns, at_ns: monotonic_ns(), ranges: maps.asked_for() })
}

/// What the threads share.
struct Shared {
    inner: Mutex<Inner>,
    stop: AtomicBool,
    /// There may be a look to begin.
    due: Condvar,
    /// A look has ended, or was given up.
    ended: Condvar,
}

/// The threads and what they keep.
pub struct Mappings(Arc<Shared>);

impl Mappings {
    /// Takes the ring over.
    ///
    /// # Errors
    /// The object has no such ring, or no thread could be started.
    pub fn start(bpf: &mut KernelHalf) -> Result<Mappings, BpfError> {
        let events = MappingEvents::take(bpf)?;
        let inner = Inner { events, lost_before: 0, spaces: Spaces::default(), looks: Looks::default() };
        let inner = Mutex::new(inner);
        let shared = Arc::new(Shared { inner, stop: AtomicBool::new(false), due: Condvar::new(), ended: Condvar::new() });
        let mappings = Mappings(Arc::clone(&shared));
        let run = move || {
            privileges::keep_only_or_warn(&[privileges::PROCESSES]);
            run(&shared);
        };
        std::thread::Builder::new().name("memtrail-maps".into()).spawn(run).map_err(BpfError::Thread)?;
        Ok(mappings)
    }

    /// Looks at those of these processes of which calls are missing. Waits for them, and no longer than [`SETTLE`]: the others stay as they are.
    pub fn settle(&self, tgids: impl Iterator<Item = u32>) {
        let mut inner = self.0.lock();
        inner.drain();
        let Inner { spaces, looks, .. } = &mut *inner;
        let wanted: HashSet<u32> = tgids.filter(|tgid| spaces.is_doubtful(*tgid) && !looks.silent.contains(tgid)).collect();
        looks.urgent.extend(&wanted);
        self.0.due.notify_all();
        let waited = self.0.ended.wait_timeout_while(inner, SETTLE, |inner| inner.looks.awaits(&wanted));
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let missing = wanted.iter().filter(|tgid| inner.looks.awaits_one(**tgid)).count();
        inner.looks.urgent.clear();
        if missing > 0 {
            log::warn!("the mappings of {missing} processes were not read in time: who made them may be unknown");
        }
    }

    /// Calls `look` with the address spaces as of now. It waits for nothing but the other threads' work in memory.
    pub fn with<T>(&self, look: impl FnOnce(&mut Spaces) -> T) -> T {
        let mut inner = self.0.lock();
        inner.drain();
        look(&mut inner.spaces)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.due.notify_all();
    }
}

impl Shared {
    /// A poisoned lock only says that some thread panicked: the intervals stay usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Empties the ring, and sees to it that somebody reads lists.
fn run(shared: &Arc<Shared>) {
    while !shared.stopped() {
        let mut inner = shared.lock();
        inner.drain();
        let Inner { spaces, looks, .. } = &mut *inner;
        looks.first = FIRST_LOOKS;
        if let Some(tgid) = looks.give_up(spaces, monotonic_ns()) {
            log::warn!("process {tgid} does not let its mappings be read: who made them may be unknown");
            shared.ended.notify_all();
        }
        if !looks.served && looks.silent.len() < MOST_SILENT {
            let (thread, of_thread) = (looks.thread, Arc::clone(shared));
            // It begins with what this thread has left of its privileges.
            match std::thread::Builder::new().name("memtrail-look".into()).spawn(move || read_lists(&of_thread, thread)) {
                Ok(_) => looks.served = true,
                Err(error) => log::debug!("no thread to read mappings yet: {error}"),
            }
        }
        if !looks.served {
            std::iter::from_fn(|| spaces.next_fresh()).collect::<Vec<u32>>().into_iter().for_each(|tgid| spaces.give_up(tgid));
        }
        drop(inner);
        shared.due.notify_all();
        std::thread::sleep(PACE);
    }
}

/// Reads the lists of processes, one after the other, until it is given up.
fn read_lists(shared: &Shared, thread: u64) {
    loop {
        let mut inner = shared.lock();
        let begun = loop {
            if shared.stopped() || inner.looks.thread != thread {
                return;
            }
            let Inner { spaces, looks, .. } = &mut *inner;
            if let Some(begun) = looks.begin(spaces, monotonic_ns()) {
                break begun;
            }
            inner = shared.due.wait(inner).unwrap_or_else(PoisonError::into_inner);
        };
        drop(inner);
        let look = look(begun.tgid);
        let mut inner = shared.lock();
        let Inner { spaces, looks, .. } = &mut *inner;
        let goes_on = looks.end(spaces, thread, begun, look, monotonic_ns());
        shared.ended.notify_all();
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tracer_common::mapping::{Change, MappingEvent};

    const SECOND: u64 = 1_000_000_000;

    fn mapped(tgid: u32) -> MappingEvent {
        let change = Change::Mapped as u32;
        MappingEvent { process: u64::from(tgid), user_stack: 1, start: 100, length: 50, tgid, change, weight: 1, ..MappingEvent::default() }
    }

    /// What was a frozen collector: one process never answers, and the next one is looked at all the same.
    #[test]
    fn a_process_that_does_not_answer_is_given_up_and_the_others_are_looked_at() {
        let (mut spaces, mut looks) = (Spaces::default(), Looks { first: FIRST_LOOKS, ..Looks::default() });
        for tgid in [7, 8] {
            spaces.apply(&mapped(tgid), FIRST_LOOKS);
        }
        let begun = looks.begin(&mut spaces, SECOND).unwrap();
        assert_eq!((begun.tgid, looks.give_up(&mut spaces, 2 * SECOND)), (7, None), "a second is not too long");
        assert_eq!((looks.give_up(&mut spaces, 2 * SECOND + 1), looks.thread, looks.served), (Some(7), 1, false));
        let next = looks.begin(&mut spaces, 3 * SECOND).unwrap();
        assert!(looks.end(&mut spaces, 1, next, Some(Look::default()), 3 * SECOND));
        assert_eq!((next.tgid, spaces.is_doubtful(8), spaces.is_doubtful(7)), (8, false, true));
        // Nobody asks it again, not even a report, until the first question is answered after all.
        looks.urgent.push_back(7);
        assert_eq!(looks.begin(&mut spaces, 100 * SECOND), None);
        assert!(!looks.end(&mut spaces, 0, begun, Some(Look::default()), 100 * SECOND), "its thread is not needed any more");
        assert_eq!(looks.begin(&mut spaces, 101 * SECOND).map(|begun| (begun.tgid, begun.rare)), Some((7, true)));
    }

    #[test]
    fn a_report_waits_for_its_own_processes_and_second_looks_are_rare() {
        let (mut spaces, mut looks) = (Spaces::default(), Looks::default());
        for tgid in [7, 8, 9] {
            spaces.apply(&mapped(tgid), 0);
        }
        let first = looks.begin(&mut spaces, 10 * SECOND).unwrap();
        assert!(first.rare && looks.awaits(&HashSet::from([first.tgid])) && !looks.awaits(&HashSet::from([9])));
        looks.end(&mut spaces, 0, first, Some(Look::default()), 11 * SECOND);
        assert_eq!(looks.begin(&mut spaces, 12 * SECOND), None, "it took a second");
        looks.urgent.push_back(9);
        assert!(looks.awaits(&HashSet::from([9])));
        assert_eq!(looks.begin(&mut spaces, 12 * SECOND).map(|begun| (begun.tgid, begun.rare)), Some((9, false)));
    }
}
