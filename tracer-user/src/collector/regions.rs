//! Surveys of the processes that matter, and the place of each live anonymous sample in them. Reads `/proc`; everything is bounded, and
//! what is left out is counted.

use crate::{
    cgroup::CgroupId,
    ledger,
    output::text,
    process::{FileIdentity, FileStore, listing, sys},
    region::{
        Class, Region, Survey,
        place::{self, Sampled},
        survey,
    },
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, Sample},
    kind::Kind,
    process::ProcessRecord,
};

/// Most processes read for one report, those with most memory first.
const MOST_PROCESSES: usize = 128;
/// Processes without live samples are read from this size on.
const LEAST_ANONYMOUS_BYTES: u64 = 4 << 20;
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
    pub survey: Survey,
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
    /// Living processes that were not read.
    pub left_out: u64,
}

impl Surveys {
    fn add(&mut self, tgid: u32, owner: Option<CgroupId>, survey: Survey, found: Vec<(u64, u64)>) {
        let comm = std::fs::read(format!("/proc/{tgid}/comm")).unwrap_or_default();
        let comm = text::escape_bytes(comm.strip_suffix(b"\n").unwrap_or(&comm));
        self.processes.push(Process { tgid, comm, owner, survey });
        self.put(self.processes.len() - 1, found);
    }

    /// Takes slots and addresses in as places.
    fn put(&mut self, process: usize, found: Vec<(u64, u64)>) {
        let classified = &self.processes[process].survey.classified;
        let place = |(slot, address)| Some((slot, Place { process, region: classified.index_at(address)? }));
        self.places.extend(found.into_iter().filter_map(place));
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

/// Tables that the samples are joined with.
pub struct Tables<'a> {
    /// Keys by identity.
    pub keys: &'a HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: &'a HashMap<u64, Sample>,
    /// Processes by identity.
    pub processes: &'a HashMap<u64, ProcessRecord>,
}

/// Reads the processes that have live anonymous samples, and the large ones of `members`: processes of wanted cgroups.
/// `files` are those that are open already, for their symbols.
pub fn read(tables: &Tables<'_>, members: &HashMap<u32, CgroupId>, files: Option<&Mutex<FileStore>>) -> Surveys {
    let began_ns = sys::monotonic_ns();
    let (mut samples, mut elsewhere) = samples_by_process(tables);
    let mut sizes: HashMap<u32, u64> = HashMap::new();
    for tgid in members.keys().take(MOST_MEMBERS) {
        if let Some(bytes) = survey::anonymous_bytes(*tgid).filter(|bytes| *bytes >= LEAST_ANONYMOUS_BYTES) {
            sizes.insert(*tgid, bytes);
        }
    }
    for (tgid, (_, live)) in &samples {
        let size = sizes.entry(*tgid).or_default();
        *size = (*size).max(*live);
    }
    sizes.remove(&std::process::id());
    let mut tgids: Vec<(u64, u32)> = sizes.into_iter().map(|(tgid, bytes)| (bytes, tgid)).collect();
    tgids.sort_unstable_by(|a, b| b.cmp(a));
    let mut opened = |identity: &FileIdentity| {
        let file = files?.lock().unwrap_or_else(PoisonError::into_inner).get(identity)?;
        Some(file.file)
    };
    let mut memories = Vec::new();
    let mut surveys = Surveys { left_out: tgids.len().saturating_sub(MOST_PROCESSES) as u64, ..Surveys::default() };
    for (_, tgid) in tgids.into_iter().take(MOST_PROCESSES) {
        let touched = samples.remove(&tgid).map(|(touched, _)| touched).unwrap_or_default();
        match Survey::of_process(tgid, &mut opened) {
            Ok((survey, mut memory)) => {
                let placing = place::place(touched, &survey.maps.vmas, memory.pages());
                elsewhere.extend(placing.missing);
                surveys.add(tgid, members.get(&tgid).copied(), survey, placing.found);
                memories.push(memory);
            }
            Err(error) => {
                log::debug!("process {tgid} cannot be surveyed: {error}");
                // One that ended meanwhile is not left out.
                surveys.left_out += u64::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                elsewhere.extend(touched);
            }
        }
    }
    // A child has what its parent touched, at the same address, also when the parent is gone.
    elsewhere.truncate(MOST_ELSEWHERE);
    elsewhere.sort_unstable_by_key(|sample| sample.address);
    for (process, memory) in memories.iter_mut().enumerate() {
        let found = place::take_shared(&mut elsewhere, &surveys.processes[process].survey.maps.vmas, memory.pages());
        surveys.put(process, found);
    }
    let took_us = sys::monotonic_ns().saturating_sub(began_ns) / 1000;
    log::debug!("regions: {} processes, {} samples placed in {took_us} us", surveys.processes.len(), surveys.places.len());
    surveys
}

/// Live anonymous samples of each process that still runs, with their bytes, and those of processes that are gone.
fn samples_by_process(tables: &Tables<'_>) -> (HashMap<u32, (Vec<Sampled>, u64)>, Vec<Sampled>) {
    let mut living: HashMap<u64, Option<u32>> = HashMap::new();
    let mut samples: HashMap<u32, (Vec<Sampled>, u64)> = HashMap::new();
    let mut left_behind = Vec::new();
    for (slot, sample) in tables.samples {
        let Some(record) = tables.keys.get(&sample.key) else { continue };
        if record.key.kind != Kind::Anon as u32 || record.key.flags & (KEY_BASELINE | KEY_OWN) != 0 || ledger::live(record) <= 0 {
            continue;
        }
        let tgid = living
            .entry(record.key.process)
            .or_insert_with(|| tables.processes.get(&record.key.process).filter(|process| is_running(process)).map(|process| process.tgid));
        let sampled = Sampled { slot: *slot, address: sample.address };
        match *tgid {
            Some(tgid) => {
                let (found, live) = samples.entry(tgid).or_default();
                found.push(sampled);
                *live = live.saturating_add(sample_bytes(sample));
            }
            None => left_behind.push(sampled),
        }
    }
    (samples, left_behind)
}

/// Bytes that a sample still stands for.
#[must_use]
pub fn sample_bytes(sample: &Sample) -> u64 {
    sample.weight_per_frame.saturating_mul(u64::try_from(sample.frames_left).unwrap_or(0))
}

/// Whether that very process runs: ids are used again.
fn is_running(process: &ProcessRecord) -> bool {
    const TICKS_APART: u64 = 2;
    if process.kernel_thread != 0 {
        return false;
    }
    let Ok(stat) = std::fs::read(format!("/proc/{}/stat", process.tgid)) else { return false };
    let per_second = u128::from(sys::ticks_per_second());
    let ticks = u64::try_from(u128::from(process.start_ns) * per_second / 1_000_000_000).unwrap_or(0);
    listing::parse_stat(&stat).is_some_and(|stat| stat.start_ticks.abs_diff(ticks) <= TICKS_APART)
}
