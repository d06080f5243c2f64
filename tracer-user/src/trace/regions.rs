//! Surveys of the processes that matter, and the place of each live anonymous sample in them. Reads `/proc`; everything is bounded, also the
//! time, and what is left out is counted.

pub mod ahead;
mod worker;

use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    host::{clock::monotonic_ns, proc},
    region::{Survey, classify::Claim, place::Sampled, survey},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    time::Duration,
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, Sample},
    kind::Kind,
    mapping::MappingRecord,
    process::ProcessRecord,
};
pub use worker::Surveying;
use worker::{Message, Work};

/// Most processes read for one report, those with most memory first.
const MOST_PROCESSES: usize = 128;
/// Processes without live samples are read from this size on, or if they asked for so much address space since the start.
const LEAST_ANONYMOUS_BYTES: u64 = 4 << 20;
/// Longest that one reading of all of them takes, nanoseconds. One of 60,000 mappings takes a second.
const MOST_NS: u64 = 30_000_000_000;
/// Between two looks at how the reading goes on.
const WATCH: Duration = Duration::from_millis(50);
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

/// Reads the processes that have live anonymous samples, and the large ones of `members`: processes of wanted cgroups.
/// `reserved` are ranges of processes whose class is told by who reserved them.
pub fn read(thread: &Surveying, tables: &Tables<'_>, members: &HashMap<u32, CgroupId>, reserved: Reserved) -> Surveys {
    let began_ns = monotonic_ns();
    let (samples, elsewhere) = samples_by_process(tables);
    let tgids = most_memory_first(&samples, members, tables);
    let mut surveys = Surveys { left_out: tgids.len() as u64, ..Surveys::default() };
    let (sender, messages) = sync_channel(1);
    let mut work = Work::of(tgids.into_iter().take(MOST_PROCESSES), sender);
    (work.reserved, work.samples, work.elsewhere) = (reserved, samples, elsewhere);
    let Some(mut reading) = thread.begin(work) else {
        log::warn!("regions stay unknown: processes that do not let their memory be read hold up the others");
        return surveys;
    };
    // Workers number the processes as they read them.
    let mut indexes: HashMap<usize, usize> = HashMap::new();
    loop {
        match messages.recv_timeout(WATCH) {
            Ok(Message::Read { number, tgid, survey, found }) => {
                surveys.left_out -= 1;
                indexes.insert(number, surveys.processes.len());
                surveys.add(tgid, members.get(&tgid).copied(), survey, found);
            }
            // It ended meanwhile.
            Ok(Message::Gone) => surveys.left_out -= 1,
            Ok(Message::Shared(number, found)) => {
                if let Some(process) = indexes.get(&number) {
                    surveys.put(*process, found);
                }
            }
            Ok(Message::Done) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now_ns = monotonic_ns();
        if !reading.goes_on(now_ns) || now_ns.saturating_sub(began_ns) > MOST_NS {
            log::warn!("reading processes takes too long: regions are not known of {} processes", surveys.left_out);
            break;
        }
    }
    let took_us = monotonic_ns().saturating_sub(began_ns) / 1000;
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

/// What a process touched: samples, and their bytes.
#[derive(Default)]
struct Touched {
    samples: Vec<Sampled>,
    live: u64,
    /// When the process began that touched them, on the boot clock.
    start_ns: Option<u64>,
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
