//! Who reads processes: where a file's server never answers, a process that waits for it can keep its memory from being read, and then only
//! the thread waits that reads it. It is given up, another one goes on with the other processes, and that process is not asked again before
//! it has answered.

use super::{Reserved, Touched};
use crate::{
    host::{clock, lock, privileges, proc},
    region::{
        Survey,
        classify::Claim,
        memory::ProcessMemory,
        place::{self, Sampled},
    },
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, channel, sync_channel},
    },
};

/// A process during which the thread has used no CPU for so long, nanoseconds, does not answer.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Longest that one process may take, nanoseconds: it may answer by little and little. One of 60,000 mappings takes a second.
const MOST_OF_ONE_NS: u64 = 5_000_000_000;
/// Most processes that did not answer, each of which keeps a thread. With more of them none is read.
const MOST_SILENT: usize = 8;
/// Most samples looked for in processes that did not touch them.
const MOST_ELSEWHERE: usize = 65_536;

/// Reads one process, which began at that time on the boot clock, if that is known. It is given ranges whose class is told by
/// who reserved them.
type Reader = dyn Fn(u32, Option<u64>, &[Claim]) -> std::io::Result<(Survey, ProcessMemory)> + Send + Sync;

/// Starts the threads that look into processes, each for one reading. It is started before the others give up their privileges, which a
/// thread has from the one that starts it.
#[derive(Clone, Debug)]
pub struct Surveying {
    jobs: SyncSender<Job>,
    busy_ns: Arc<AtomicU64>,
    /// Processes that did not answer.
    silent: Arc<Mutex<HashSet<u32>>>,
}

/// One reading, and which attempt at it this is.
type Job = (Arc<Mutex<Work>>, u64);

/// What is to be read, and what was.
pub(super) struct Work {
    pub(super) reserved: Reserved,
    pub(super) samples: HashMap<u32, Touched>,
    /// Samples that are not where they were touched.
    pub(super) elsewhere: Vec<Sampled>,
    sender: SyncSender<Message>,
    tgids: VecDeque<u32>,
    /// Those that were read, with their numbers.
    read: VecDeque<(usize, u32, Arc<Survey>, ProcessMemory)>,
    number: usize,
    /// The threads before this one were given up.
    attempt: u64,
    /// Its id, once it has begun.
    thread: Option<i32>,
    /// The process that it is at, and since when, monotonic nanoseconds.
    at: Option<(u32, u64)>,
    /// All are read: it looks for what they share.
    sharing: bool,
}

/// What is found, as it is found.
pub(super) enum Message {
    /// A process.
    Read {
        /// By which [`Message::Shared`] names it.
        number: usize,
        tgid: u32,
        survey: Arc<Survey>,
        /// Slots and addresses of its samples.
        found: Vec<(u64, u64)>,
    },
    /// A process that is gone.
    Gone,
    /// Samples that other processes touched and that the process of that number maps: their slots, and their addresses in it. This is
    /// looked for once all processes are read.
    Shared(usize, Vec<(u64, u64)>),
    /// There is no more.
    Done,
}

impl Surveying {
    /// Starts the thread that starts the others.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> std::io::Result<Surveying> {
        Surveying::start_with(Arc::new(survey))
    }

    fn start_with(reader: Arc<Reader>) -> std::io::Result<Surveying> {
        let (sender, jobs) = sync_channel::<Job>(1);
        let surveying = Surveying { jobs: sender, busy_ns: Arc::default(), silent: Arc::default() };
        let (busy_ns, silent) = (Arc::clone(&surveying.busy_ns), Arc::clone(&surveying.silent));
        let (beginning, begun) = channel::<()>();
        std::thread::Builder::new().name("memtrail-survey".into()).spawn(move || {
            privileges::keep_only_or_warn(&[privileges::PROCESSES, privileges::SURVEY]);
            drop(beginning);
            for (work, attempt) in jobs {
                let worker =
                    Worker { work, attempt, reader: Arc::clone(&reader), busy_ns: Arc::clone(&busy_ns), silent: Arc::clone(&silent) };
                if let Err(error) = std::thread::Builder::new().name("memtrail-survey".into()).spawn(move || worker.run()) {
                    log::warn!("no thread to read processes: {error}");
                }
            }
        })?;
        // Until it has only the privileges that it keeps: an error says that it dropped its end.
        let _ = begun.recv();
        Ok(surveying)
    }

    /// Nanoseconds that were spent reading so far, but for processes that did not answer.
    pub(in crate::trace) fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed)
    }

    /// Begins a reading; `None` if too many threads wait for processes that do not answer. Those are left out.
    pub(super) fn begin(&self, mut work: Work) -> Option<Reading> {
        let silent = lock(&self.silent);
        work.tgids.retain(|tgid| !silent.contains(tgid));
        let full = silent.len() >= MOST_SILENT;
        drop(silent);
        let work = Arc::new(Mutex::new(work));
        let begun = !full && self.jobs.try_send((Arc::clone(&work), 0)).is_ok();
        begun.then(|| Reading { work, surveying: self.clone(), seen: (None, None), since_ns: clock::monotonic_ns() })
    }
}

impl Work {
    /// Reads these processes, in this order.
    pub(super) fn of(tgids: impl Iterator<Item = u32>, sender: SyncSender<Message>) -> Work {
        Work {
            reserved: Reserved::new(),
            samples: HashMap::new(),
            elsewhere: Vec::new(),
            sender,
            tgids: tgids.collect(),
            read: VecDeque::new(),
            number: 0,
            attempt: 0,
            thread: None,
            at: None,
            sharing: false,
        }
    }
}

/// A reading under way.
pub(super) struct Reading {
    work: Arc<Mutex<Work>>,
    surveying: Surveying,
    /// What the thread was at and which CPU time it had used when that changed last,
    seen: (Option<u32>, Option<u64>),
    /// and when that was, monotonic nanoseconds.
    since_ns: u64,
}

impl Reading {
    /// Looks how it goes on. A process that does not answer is left behind. False if nothing more is to be expected.
    pub(super) fn goes_on(&mut self, now_ns: u64) -> bool {
        let mut work = lock(&self.work);
        let seen = (work.at.map(|(tgid, _)| tgid), work.thread.and_then(clock::thread_cpu_ns));
        if seen != self.seen {
            (self.seen, self.since_ns) = (seen, now_ns);
        }
        let took_ns = work.at.map_or(0, |(_, began_ns)| now_ns.saturating_sub(began_ns));
        if now_ns.saturating_sub(self.since_ns) <= PATIENCE_NS && took_ns <= MOST_OF_ONE_NS {
            return true;
        }
        // With none the thread has not begun, or is no more.
        let Some((tgid, _)) = work.at.take() else { return false };
        log::warn!("process {tgid} does not let its memory be read: its regions stay unknown");
        lock(&self.surveying.silent).insert(tgid);
        (work.attempt, work.thread) = (work.attempt + 1, None);
        let attempt = work.attempt;
        // What is shared is looked for in all of them or in none.
        let more = !work.sharing && lock(&self.surveying.silent).len() < MOST_SILENT;
        drop(work);
        (self.seen, self.since_ns) = ((None, None), now_ns);
        more && self.surveying.jobs.try_send((Arc::clone(&self.work), attempt)).is_ok()
    }
}

/// A thread that reads.
struct Worker {
    work: Arc<Mutex<Work>>,
    attempt: u64,
    reader: Arc<Reader>,
    busy_ns: Arc<AtomicU64>,
    silent: Arc<Mutex<HashSet<u32>>>,
}

impl Worker {
    /// Ends early when nobody listens any more, or when it was given up.
    fn run(self) {
        let began_ns = clock::monotonic_ns();
        {
            let mut work = lock(&self.work);
            if work.attempt != self.attempt {
                return;
            }
            work.thread = Some(clock::this_thread());
        }
        while let Some(message) = self.next() {
            let done = matches!(message, Message::Done);
            let sender = lock(&self.work).sender.clone();
            if sender.send(message).is_err() || done {
                break;
            }
        }
        if lock(&self.work).attempt == self.attempt {
            self.busy_ns.fetch_add(clock::monotonic_ns().saturating_sub(began_ns), Ordering::Relaxed);
        }
    }

    /// What comes next; `None` if this thread was given up.
    fn next(&self) -> Option<Message> {
        loop {
            let mut work = lock(&self.work);
            let Some(tgid) = work.tgids.pop_front() else { break };
            work.at = Some((tgid, clock::monotonic_ns()));
            let Touched { samples: touched, start_ns, .. } = work.samples.remove(&tgid).unwrap_or_default();
            let reserved = work.reserved.remove(&tgid);
            drop(work);
            let read = (self.reader)(tgid, start_ns, &reserved.unwrap_or_default());
            let placed = match read {
                Ok((survey, mut memory)) => {
                    let placing = place::place(touched, &survey.maps.vmas, memory.pages());
                    Ok((Arc::new(survey), memory, placing))
                }
                Err(error) => Err((error, touched)),
            };
            let mut work = self.answered(tgid)?;
            match placed {
                Ok((survey, memory, placing)) => {
                    let number = work.number;
                    work.number += 1;
                    work.elsewhere.extend(placing.missing);
                    work.read.push_back((number, tgid, Arc::clone(&survey), memory));
                    return Some(Message::Read { number, tgid, survey, found: placing.found });
                }
                Err((error, touched)) => {
                    log::debug!("process {tgid} cannot be surveyed: {error}");
                    work.elsewhere.extend(touched);
                    if error.kind() != std::io::ErrorKind::PermissionDenied {
                        return Some(Message::Gone);
                    }
                }
            }
        }
        self.next_shared()
    }

    /// A child has what its parent touched, at the same address, also when the parent is gone.
    fn next_shared(&self) -> Option<Message> {
        let mut work = lock(&self.work);
        if work.attempt != self.attempt {
            return None;
        }
        if !std::mem::replace(&mut work.sharing, true) {
            work.elsewhere.truncate(MOST_ELSEWHERE);
            work.elsewhere.sort_unstable_by_key(|sample| sample.address);
        }
        let Some((number, tgid, survey, mut memory)) = work.read.pop_front() else { return Some(Message::Done) };
        work.at = Some((tgid, clock::monotonic_ns()));
        let mut elsewhere = std::mem::take(&mut work.elsewhere);
        drop(work);
        let found = place::take_shared(&mut elsewhere, &survey.maps.vmas, memory.pages());
        self.answered(tgid)?.elsewhere = elsewhere;
        Some(Message::Shared(number, found))
    }

    /// The process has answered. `None` if this thread was given up meanwhile: then the process may be asked again.
    fn answered(&self, tgid: u32) -> Option<MutexGuard<'_, Work>> {
        let mut work = lock(&self.work);
        if work.attempt != self.attempt {
            lock(&self.silent).remove(&tgid);
            return None;
        }
        work.at = None;
        Some(work)
    }
}

/// Reads the process of that id, if it is the one that began then.
fn survey(tgid: u32, start_ns: Option<u64>, reserved: &[Claim]) -> std::io::Result<(Survey, ProcessMemory)> {
    let process = proc::Process::open(tgid)?;
    if start_ns.is_some_and(|start_ns| !process.began_at(start_ns)) {
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "another process has its id now"));
    }
    Survey::of_process(&process, reserved)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
