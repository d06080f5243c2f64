//! Surveys ahead of an OOM kill. A killed process takes its mappings with it, so the processes of a cgroup that comes close to its limit
//! are looked into before: rarely, a few at a time, on the thread that looks into processes. What is known is as old as it says.

use super::{
    LEAST_ANONYMOUS_BYTES, Place, Process, Reserved, Surveying, Surveys, Tables,
    worker::{Message, Reading, Work},
};
use crate::host::clock::monotonic_ns;
use crate::{
    cgroup::{CgroupId, StatReading, stat::Limit},
    region::{Survey, survey},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord},
    kind::Kind,
};

/// A cgroup is close when what the kernel cannot drop at once is this share of its limit.
const CLOSE: f64 = 0.7;
/// It is looked into again when that has grown by this share of the limit,
const GROWN: f64 = 0.05;
/// or after this long, nanoseconds.
const AGAIN_NS: u64 = 60_000_000_000;
/// Least time between two looks at anything, nanoseconds.
const APART_NS: u64 = 2_000_000_000;
/// And at least so many times as long as the last look took: looking ahead takes 1 % of a CPU at most.
const RARELY: u64 = 100;
/// Cgroups of one look, the closest first.
const MOST_CGROUPS: usize = 4;
/// Processes of one look, those with most anonymous memory first.
const MOST_AT_ONCE: usize = 16;
/// Processes of which something is kept, and mappings of all of them together.
const MOST_KNOWN: (usize, usize) = (64, 100_000);
/// What is older is of no use, nanoseconds.
const OLDEST_NS: u64 = 900_000_000_000;

/// What processes were like when they were last looked into.
#[derive(Default)]
pub struct Ahead {
    known: HashMap<u32, Known>,
    pending: Option<Pending>,
    looked: HashMap<CgroupId, Looked>,
    last_ns: u64,
    /// What the thread had spent reading when the last look began, nanoseconds.
    busy_ns: u64,
}

/// One process.
pub struct Known {
    /// Monotonic nanoseconds just before it was looked into.
    at_ns: u64,
    /// Its cgroup.
    pub owner: CgroupId,
    survey: Arc<Survey>,
}

/// When a cgroup was last looked into, and what it held then.
struct Looked {
    at_ns: u64,
    held: u64,
}

/// A look under way.
struct Pending {
    messages: Receiver<Message>,
    reading: Reading,
    members: HashMap<u32, CgroupId>,
    began_ns: u64,
}

impl Ahead {
    /// Which cgroups are to be looked into now, with what they hold. `readings` are those of the last interval; `busy_ns` is what the thread
    /// has spent reading.
    pub(in crate::trace) fn due(&self, readings: &[(CgroupId, StatReading)], now_ns: u64, busy_ns: u64) -> Vec<(CgroupId, u64)> {
        let apart_ns = busy_ns.saturating_sub(self.busy_ns).saturating_mul(RARELY).max(APART_NS);
        if self.pending.is_some() || now_ns.saturating_sub(self.last_ns) < apart_ns {
            return Vec::new();
        }
        let is_due = |id: &CgroupId, held: u64, limit: u64| match self.looked.get(id) {
            Some(last) => held as f64 >= last.held as f64 + GROWN * limit as f64 || now_ns.saturating_sub(last.at_ns) >= AGAIN_NS,
            None => true,
        };
        let close = |(id, reading): &(CgroupId, StatReading)| {
            let limit = reading.limit.and_then(Limit::bytes)?;
            let held = held(reading);
            let share = held as f64 / limit.max(1) as f64;
            (share >= CLOSE && is_due(id, held, limit)).then_some((share, *id, held))
        };
        let mut due: Vec<(f64, CgroupId, u64)> = readings.iter().filter_map(close).collect();
        due.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        due.into_iter().take(MOST_CGROUPS).map(|(_, id, held)| (id, held)).collect()
    }

    /// Notes that the `due` cgroups are looked into now, and forgets those that are not `followed` any more.
    pub(in crate::trace) fn note(&mut self, due: Vec<(CgroupId, u64)>, followed: impl Fn(CgroupId) -> bool, now_ns: u64, busy_ns: u64) {
        self.looked.retain(|id, _| followed(*id));
        (self.last_ns, self.busy_ns) = (now_ns, busy_ns);
        self.looked.extend(due.into_iter().map(|(id, held)| (id, Looked { at_ns: now_ns, held })));
    }

    /// Begins a look at the largest of the `members`, processes with their cgroups.
    pub(in crate::trace) fn begin(&mut self, thread: &Surveying, members: HashMap<u32, CgroupId>, reserved: Reserved, now_ns: u64) {
        let mut sizes: Vec<(u64, u32)> = members
            .keys()
            .filter_map(|tgid| Some((survey::anonymous_bytes(*tgid)?, *tgid)))
            .filter(|(bytes, _)| *bytes >= LEAST_ANONYMOUS_BYTES)
            .collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let tgids: Vec<u32> = sizes.into_iter().map(|(_, tgid)| tgid).take(MOST_AT_ONCE).collect();
        if tgids.is_empty() {
            return;
        }
        // Two messages a process at most, and one at the end: the thread never waits for the next interval.
        let (sender, messages) = sync_channel(2 * MOST_AT_ONCE + 1);
        let mut work = Work::of(tgids.into_iter(), sender);
        work.reserved = reserved;
        self.pending = thread.begin(work).map(|reading| Pending { messages, reading, members, began_ns: now_ns });
    }

    /// Takes in what was found meanwhile.
    pub(in crate::trace) fn poll(&mut self, now_ns: u64) {
        let Some(pending) = &mut self.pending else { return };
        // A process that does not answer holds up none of the others.
        let mut ended = !pending.reading.goes_on(now_ns);
        loop {
            match pending.messages.try_recv() {
                Ok(Message::Read { tgid, survey, .. }) => {
                    let Some(owner) = pending.members.get(&tgid) else { continue };
                    self.known.insert(tgid, Known { at_ns: pending.began_ns, owner: *owner, survey });
                }
                Ok(Message::Gone | Message::Shared(..)) => {}
                Err(TryRecvError::Empty) => break,
                Ok(Message::Done) | Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        if ended {
            self.pending = None;
        }
        self.bound(now_ns);
    }

    /// Ends a look that is under way: a report needs the thread.
    pub(in crate::trace) fn stop(&mut self) {
        self.poll(monotonic_ns());
        // The thread ends early when nobody listens.
        self.pending = None;
    }

    /// Forgets what is old, and the oldest beyond the bounds.
    fn bound(&mut self, now_ns: u64) {
        self.known.retain(|_, known| now_ns.saturating_sub(known.at_ns) < OLDEST_NS);
        let mappings = |known: &HashMap<u32, Known>| known.values().map(|known| known.survey.maps.vmas.len()).sum::<usize>();
        while self.known.len() > MOST_KNOWN.0 || mappings(&self.known) > MOST_KNOWN.1 {
            let Some(oldest) = self.known.iter().min_by_key(|(tgid, known)| (known.at_ns, **tgid)).map(|(tgid, _)| *tgid) else { break };
            self.known.remove(&oldest);
        }
    }

    /// What was known at that moment (monotonic nanoseconds) of the `wanted` processes, and where the samples were in them, by their
    /// addresses; with it, by cgroup, how many seconds before the oldest look at one of its processes was.
    pub(in crate::trace) fn at(&self, at_ns: u64, tables: &Tables<'_>, wanted: impl Fn(&Known) -> bool) -> (Surveys, HashMap<u64, f64>) {
        let mut surveys = Surveys::default();
        let mut ages: HashMap<u64, f64> = HashMap::new();
        let mut index: HashMap<u32, (usize, u64)> = HashMap::new();
        for (tgid, known) in self.known.iter().filter(|(_, known)| known.at_ns < at_ns && wanted(known)) {
            index.insert(*tgid, (surveys.processes.len(), known.at_ns));
            let age = at_ns.saturating_sub(known.at_ns) as f64 / 1e9;
            ages.entry(known.owner.0).and_modify(|oldest| *oldest = oldest.max(age)).or_insert(age);
            let process =
                Process { tgid: *tgid, comm: known.survey.comm.clone(), owner: Some(known.owner), survey: Arc::clone(&known.survey) };
            surveys.processes.push(process);
        }
        for (slot, sample) in tables.samples {
            let Some(record) = tables.keys.get(&sample.key).filter(|record| has_address(record)) else { continue };
            let Some(process) = tables.processes.get(&record.key.process) else { continue };
            // A process that was first seen later is another one with that id, or has executed another program since.
            let of_it = index.get(&process.tgid).filter(|(_, looked_ns)| process.first_seen_ns <= *looked_ns);
            let Some((process, _)) = of_it.copied() else { continue };
            if let Some(region) = surveys.processes[process].survey.classified.index_at(sample.address) {
                surveys.places.insert(*slot, Place { process, region });
            }
        }
        (surveys, ages)
    }
}

/// Whether the key's samples are of anonymous memory that a process touched since the start: only such have an address in it.
fn has_address(record: &KeyRecord) -> bool {
    record.key.kind == Kind::Anon as u32 && record.key.flags & (KEY_BASELINE | KEY_OWN) == 0
}

/// What the kernel cannot drop at once: all that is no clean page cache.
fn held(reading: &StatReading) -> u64 {
    let kind = |kind: &str| reading.subtree.kinds.get(kind).map_or(0, |figure| figure.bytes);
    let waiting = reading.subtree.dirty.unwrap_or(0).saturating_add(reading.subtree.writeback.unwrap_or(0));
    [kind("anon"), kind("shmem"), kind("kernel"), waiting].into_iter().fold(0, u64::saturating_add)
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
