//! Who mapped what, and when: the kernel half's events, kept as intervals of each process's address space. What exists is read from `/proc`
//! at the report; this adds its origin.
//!
//! A process's intervals begin with what `/proc/PID/maps` lists when its first event comes, or with its parent's when it is forked. Where calls
//! are missing (a full ring, a storm that is thinned) that list is read again. It is younger than the events that still wait in the ring;
//! they lead to the same state, since for each page the last one of them says what it is, or none does.
//!
//! A thread of its own empties the ring, at a pace of its own: nobody has to be woken for a mapping.

mod spaces;

pub use spaces::{Origin, Space, Spaces};

use crate::{
    host::clock::monotonic_ns,
    host::privileges,
    kernel_half::{BpfError, KernelHalf, events::mapping::MappingEvents},
    region::maps::Maps,
};
use spaces::Look;
use std::{
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Pause between two looks at the ring: in a storm of one process it fills in seconds.
const PACE: Duration = Duration::from_millis(50);
/// Most first looks at processes between two such looks: a list is read in a tenth of a millisecond. The others are looked at later.
const FIRST_LOOKS: u32 = 64;
/// After a look at a process of which calls are missing there is none for so many times as long: they take 1 % of a CPU at most.
const RARELY: u64 = 100;

struct Inner {
    events: MappingEvents,
    lost_before: u64,
    spaces: Spaces,
    /// No second looks before, monotonic nanoseconds.
    rests_until_ns: u64,
}

impl Inner {
    fn drain(&mut self) {
        // Before the ring: whoever is found by what is in it is younger than that loss, or is looked at in vain.
        let lost = self.events.lost().unwrap_or(self.lost_before);
        let mut first_looks = FIRST_LOOKS;
        let mut first_look = |tgid| {
            first_looks = first_looks.checked_sub(1)?;
            look(tgid)
        };
        for event in self.events.by_ref() {
            self.spaces.apply(&event, &mut first_look);
        }
        if lost != self.lost_before {
            self.lost_before = lost;
            self.spaces.doubt_all();
        }
    }

    /// Looks again at one process of which calls are missing.
    fn repair(&mut self) {
        let began_ns = monotonic_ns();
        if began_ns < self.rests_until_ns {
            return;
        }
        if let Some(tgid) = self.spaces.next_doubtful(began_ns) {
            self.spaces.repair(tgid, look(tgid));
            let now_ns = monotonic_ns();
            self.rests_until_ns = now_ns + RARELY * (now_ns - began_ns);
        }
    }
}

/// What a process has mapped. Of one whose first thread has ended the kernel lists nothing.
fn look(tgid: u32) -> Option<Look> {
    let maps = Maps::parse(File::open(format!("/proc/{tgid}/maps")).ok()?).ok()?;
    (!maps.vmas.is_empty() && !maps.cut).then(|| Look { at_ns: monotonic_ns(), ranges: maps.asked_for() })
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
    pub fn start(bpf: &mut KernelHalf) -> Result<Mappings, BpfError> {
        let events = MappingEvents::take(bpf)?;
        let inner = Inner { events, lost_before: 0, spaces: Spaces::default(), rests_until_ns: 0 };
        let inner = Arc::new(Mutex::new(inner));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&inner), Arc::clone(&stop));
        let run = move || {
            privileges::keep_only_or_warn(&[privileges::PROCESSES]);
            while !stopped.load(Ordering::Acquire) {
                let mut inner = lock(&shared);
                inner.drain();
                inner.repair();
                drop(inner);
                std::thread::sleep(PACE);
            }
        };
        std::thread::Builder::new().name("memtrail-maps".into()).spawn(run).map_err(BpfError::Thread)?;
        Ok(Mappings { inner, stop })
    }

    /// Looks at once at those of these processes of which calls are missing.
    pub fn settle(&self, tgids: impl Iterator<Item = u32>) {
        let mut inner = lock(&self.inner);
        inner.drain();
        for tgid in tgids {
            if inner.spaces.is_doubtful(tgid) {
                inner.spaces.repair(tgid, look(tgid));
            }
        }
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
