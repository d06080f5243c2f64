//! Surveys of the processes that matter, and the place of each live anonymous sample in them. Reads `/proc`; everything is bounded, and
//! what is left out is counted.

pub mod ahead;

use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    host::{privileges, proc},
    process::{FileIdentity, feed::OpenedFiles},
    region::{
        Class, Region, Survey,
        classify::Claim,
        place::{self, Sampled},
        survey,
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, Sample},
    kind::Kind,
    mapping::MappingRecord,
    process::ProcessRecord,
};

/// Most processes read for one report, those with most memory first.
const MOST_PROCESSES: usize = 128;
/// Processes without live samples are read from this size on, or if they asked for so much address space since the start.
const LEAST_ANONYMOUS_BYTES: u64 = 4 << 20;
/// Longest wait for one process. One of 60,000 mappings takes a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most samples looked for in processes that did not touch them.
const MOST_ELSEWHERE: usize = 65_536;
/// Most processes whose size is asked for.
const MOST_MEMBERS: usize = 32_768;

/// One process that was read.
#[derive(Debug)]
pub struct Process {
    /// Thread-group id.
    pub tgid: u32,
    /// Name of its leader, escaped.
    pub comm: String,
    /// The cgroup that it is in; `None` if that is not a wanted one.
    pub owner: Option<CgroupId>,
    /// Its regions.
    pub survey: Arc<Survey>,
}

/// Where a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in [`Surveys::processes`].
    pub process: usize,
    /// Index in the regions of that process.
    pub region: usize,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Surveys {
    /// Processes.
    pub processes: Vec<Process>,
    /// Where live anonymous samples are, by slot.
    pub places: HashMap<u64, Place>,
    /// Living processes that were not read: too many, not readable, or one before them did not answer.
    pub left_out: u64,
}

impl Surveys {
    fn add(&mut self, tgid: u32, owner: Option<CgroupId>, survey: Arc<Survey>, found: Vec<(u64, u64)>) {
        self.processes.push(Process { tgid, comm: survey.comm.clone(), owner, survey });
        self.put(self.processes.len() - 1, found);
    }

    /// Takes slots and addresses in as places.
    fn put(&mut self, process: usize, found: Vec<(u64, u64)>) {
        let classified = &self.processes[process].survey.classified;
        let place = |(slot, address)| Some((slot, Place { process, region: classified.index_at(address)? }));
        self.places.extend(found.into_iter().filter_map(place));
    }

    /// Processes of which not all regions could be looked at, because too many reads of their memory were needed.
    #[must_use]
    pub fn cut_short(&self) -> u64 {
        self.processes.iter().filter(|process| process.survey.is_cut_short).count() as u64
    }

    /// The class of the region that a sample is in.
    #[must_use]
    pub fn class(&self, slot: u64) -> Class {
        self.places.get(&slot).map_or(Class::Other, |place| self.region(*place).class)
    }

    /// The region of a place.
    #[must_use]
    pub fn region(&self, place: Place) -> &Region {
        &self.processes[place.process].survey.classified.regions[place.region]
    }
}

/// Ranges whose class is told by who reserved them, by thread-group id.
pub type Reserved = HashMap<u32, Vec<Claim>>;

/// Tables that the samples are joined with.
pub struct Tables<'a> {
    /// Keys by identity.
    pub keys: &'a HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: &'a HashMap<u64, Sample>,
    /// Processes by identity.
    pub processes: &'a HashMap<u64, ProcessRecord>,
    /// Address space asked for; empty where that is not followed.
    pub mappings: &'a HashMap<u64, MappingRecord>,
}

/// The thread that looks into processes. It is started before the others give up their privileges, and outlives each reading: a process
/// may keep it waiting, and nothing else then.
#[derive(Debug)]
pub struct Surveying(SyncSender<Job>, Arc<AtomicU64>);

/// One reading, and what it is of.
type Job = (Surveyor, Vec<u32>);

impl Surveying {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> std::io::Result<Surveying> {
        let (sender, jobs) = sync_channel::<Job>(1);
        let busy_ns = Arc::new(AtomicU64::new(0));
        let busy = Arc::clone(&busy_ns);
        std::thread::Builder::new().name("memtrail-survey".into()).spawn(move || {
            privileges::keep_only_or_warn(&[privileges::PROCESSES, privileges::SURVEY]);
            for (surveyor, tgids) in jobs {
                let began_ns = crate::host::clock::monotonic_ns();
                surveyor.run(tgids);
                busy.fetch_add(crate::host::clock::monotonic_ns().saturating_sub(began_ns), Ordering::Relaxed);
            }
        })?;
        Ok(Surveying(sender, busy_ns))
    }

    /// Nanoseconds that it has spent reading so far.
    fn busy_ns(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }
}

/// Reads the processes that have live anonymous samples, and the large ones of `members`: processes of wanted cgroups.
/// `opened` gives files that are open already, for their symbols; `reserved` ranges of processes whose class is told by who reserved them.
pub fn read(
    thread: &Surveying,
    tables: &Tables<'_>,
    members: &HashMap<u32, CgroupId>,
    opened: Option<OpenedFiles>,
    reserved: Reserved,
) -> Surveys {
    let began_ns = crate::host::clock::monotonic_ns();
    let (samples, elsewhere) = samples_by_process(tables);
    let tgids = most_memory_first(&samples, members, tables);
    let mut surveys = Surveys { left_out: tgids.len() as u64, ..Surveys::default() };
    let (sender, messages) = sync_channel(1);
    let surveyor = Surveyor { sender, opened, reserved, samples, elsewhere };
    // A process that did not let go of the thread at the last reading may still hold it.
    if thread.0.try_send((surveyor, tgids)).is_err() {
        log::warn!("regions stay unknown: a process that does not let its memory be read holds up the others");
        return surveys;
    }
    loop {
        match messages.recv_timeout(PATIENCE) {
            Ok(Message::Read(tgid, survey, found)) => {
                surveys.left_out -= 1;
                surveys.add(tgid, members.get(&tgid).copied(), survey, found);
            }
            // It ended meanwhile.
            Ok(Message::Gone) => surveys.left_out -= 1,
            Ok(Message::Shared(process, found)) => surveys.put(process, found),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                log::warn!("a process does not let its memory be read: regions are not known of {} processes", surveys.left_out);
                break;
            }
        }
    }
    let took_us = crate::host::clock::monotonic_ns().saturating_sub(began_ns) / 1000;
    log::debug!("regions: {} processes, {} samples placed in {took_us} us", surveys.processes.len(), surveys.places.len());
    surveys
}

/// Processes with live samples, and those that are large or have asked for much.
fn most_memory_first(samples: &HashMap<u32, Touched>, members: &HashMap<u32, CgroupId>, tables: &Tables<'_>) -> Vec<u32> {
    let mut sizes: HashMap<u32, u64> = HashMap::new();
    for tgid in members.keys().take(MOST_MEMBERS) {
        if let Some(bytes) = survey::anonymous_bytes(*tgid).filter(|bytes| *bytes >= LEAST_ANONYMOUS_BYTES) {
            sizes.insert(*tgid, bytes);
        }
    }
    for record in tables.mappings.values().filter(|record| record.bytes >= LEAST_ANONYMOUS_BYTES) {
        if let Some(process) = tables.processes.get(&record.key.process).filter(|process| members.contains_key(&process.tgid)) {
            sizes.entry(process.tgid).or_default();
        }
    }
    for (tgid, touched) in samples {
        let size = sizes.entry(*tgid).or_default();
        *size = (*size).max(touched.live);
    }
    sizes.remove(&std::process::id());
    let mut tgids: Vec<(u64, u32)> = sizes.into_iter().map(|(tgid, bytes)| (bytes, tgid)).collect();
    tgids.sort_unstable_by(|a, b| b.cmp(a));
    tgids.into_iter().map(|(_, tgid)| tgid).collect()
}

/// What the surveyor found, as it finds it.
enum Message {
    /// A process, and the slots and addresses of its samples.
    Read(u32, Arc<Survey>, Vec<(u64, u64)>),
    /// A process that is gone.
    Gone,
    /// Of what others touched: what the process of that index maps.
    Shared(usize, Vec<(u64, u64)>),
}

/// Reads processes on a thread of its own: where a file's server never answers, a process that waits for it can keep its memory from
/// being read, and then only this thread waits with it.
struct Surveyor {
    sender: SyncSender<Message>,
    opened: Option<OpenedFiles>,
    reserved: Reserved,
    samples: HashMap<u32, Touched>,
    elsewhere: Vec<Sampled>,
}

impl Surveyor {
    /// Ends early when nobody listens any more.
    fn run(mut self, tgids: Vec<u32>) {
        let mut opened = |identity: &FileIdentity| self.opened.as_ref().and_then(|opened| opened(identity));
        let mut read = Vec::new();
        for tgid in tgids.into_iter().take(MOST_PROCESSES) {
            let touched = self.samples.remove(&tgid).unwrap_or_default();
            let reserved = self.reserved.remove(&tgid).unwrap_or_default();
            let looked = touched.process(tgid).and_then(|process| Survey::of_process(&process, &mut opened, &reserved));
            let touched = touched.samples;
            let message = match looked {
                Ok((survey, mut memory)) => {
                    let placing = place::place(touched, &survey.maps.vmas, memory.pages());
                    self.elsewhere.extend(placing.missing);
                    let survey = Arc::new(survey);
                    read.push((Arc::clone(&survey), memory));
                    Message::Read(tgid, survey, placing.found)
                }
                Err(error) => {
                    log::debug!("process {tgid} cannot be surveyed: {error}");
                    self.elsewhere.extend(touched);
                    if error.kind() == std::io::ErrorKind::PermissionDenied {
                        continue;
                    }
                    Message::Gone
                }
            };
            if self.sender.send(message).is_err() {
                return;
            }
        }
        // A child has what its parent touched, at the same address, also when the parent is gone.
        self.elsewhere.truncate(MOST_ELSEWHERE);
        self.elsewhere.sort_unstable_by_key(|sample| sample.address);
        for (process, (survey, memory)) in read.iter_mut().enumerate() {
            let found = place::take_shared(&mut self.elsewhere, &survey.maps.vmas, memory.pages());
            if self.sender.send(Message::Shared(process, found)).is_err() {
                return;
            }
        }
    }
}

/// What a process touched: samples, and their bytes.
#[derive(Default)]
struct Touched {
    samples: Vec<Sampled>,
    live: u64,
    /// When the process began that touched them, on the boot clock.
    start_ns: Option<u64>,
}

impl Touched {
    /// The process of that id, if it is the one that touched them.
    fn process(&self, tgid: u32) -> std::io::Result<proc::Process> {
        let process = proc::Process::open(tgid)?;
        if self.start_ns.is_some_and(|start_ns| !process.began_at(start_ns)) {
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "another process has its id now"));
        }
        Ok(process)
    }
}

/// Live anonymous samples of each process that still runs, and those of processes that are gone.
fn samples_by_process(tables: &Tables<'_>) -> (HashMap<u32, Touched>, Vec<Sampled>) {
    let mut living: HashMap<u64, Option<(u32, u64)>> = HashMap::new();
    let mut samples: HashMap<u32, Touched> = HashMap::new();
    let mut left_behind = Vec::new();
    for (slot, sample) in tables.samples {
        let Some(record) = tables.keys.get(&sample.key) else { continue };
        if record.key.kind != Kind::Anon as u32 || record.key.flags & (KEY_BASELINE | KEY_OWN) != 0 || accounts::live(record) <= 0 {
            continue;
        }
        let tgid = living.entry(record.key.process).or_insert_with(|| {
            tables.processes.get(&record.key.process).filter(|process| is_running(process)).map(|process| (process.tgid, process.start_ns))
        });
        let sampled = Sampled { slot: *slot, address: sample.address };
        match *tgid {
            Some((tgid, start_ns)) => {
                let touched = samples.entry(tgid).or_default();
                touched.start_ns = Some(start_ns);
                touched.samples.push(sampled);
                touched.live = touched.live.saturating_add(accounts::left(sample).0);
            }
            None => left_behind.push(sampled),
        }
    }
    (samples, left_behind)
}

/// Whether that very process runs: ids are used again.
fn is_running(process: &ProcessRecord) -> bool {
    process.kernel_thread == 0 && proc::runs_since(process.tgid, process.start_ns)
}
