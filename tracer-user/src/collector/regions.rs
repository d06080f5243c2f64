//! Surveys of the processes that matter, and the place of each live anonymous sample in them. Reads `/proc`; everything is bounded, and
//! what is left out is counted.

use crate::{
    cgroup::CgroupId,
    ledger,
    output::text,
    process::{listing, sys},
    region::{
        Class, Region, Survey,
        memory::ProcessMemory,
        place::{self, Sampled},
        survey,
    },
};
use std::collections::HashMap;
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, KeyRecord, Sample},
    kind::Kind,
    process::ProcessRecord,
};

/// Most processes read for one report, those with most memory first.
const MOST_PROCESSES: usize = 128;
/// Processes without live samples are read from this size on.
const LEAST_ANONYMOUS_BYTES: u64 = 4 << 20;
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
pub fn read(tables: &Tables<'_>, members: &HashMap<u32, CgroupId>) -> Surveys {
    let began_ns = sys::monotonic_ns();
    let mut samples = samples_by_process(tables);
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
    let mut surveys = Surveys { left_out: tgids.len().saturating_sub(MOST_PROCESSES) as u64, ..Surveys::default() };
    for (_, tgid) in tgids.into_iter().take(MOST_PROCESSES) {
        let found = samples.remove(&tgid).map(|(found, _)| found).unwrap_or_default();
        match Survey::of_process(tgid) {
            Ok((survey, memory)) => add(&mut surveys, tgid, members.get(&tgid).copied(), survey, memory, found),
            Err(error) => {
                log::debug!("process {tgid} cannot be surveyed: {error}");
                // One that ended meanwhile is not left out.
                surveys.left_out += u64::from(error.kind() == std::io::ErrorKind::PermissionDenied);
            }
        }
    }
    let took_us = sys::monotonic_ns().saturating_sub(began_ns) / 1000;
    log::debug!("regions: {} processes, {} samples placed in {took_us} us", surveys.processes.len(), surveys.places.len());
    surveys
}

fn add(surveys: &mut Surveys, tgid: u32, owner: Option<CgroupId>, survey: Survey, mut memory: ProcessMemory, samples: Vec<Sampled>) {
    let process = surveys.processes.len();
    for (slot, address) in place::place(samples, &survey.maps.vmas, memory.pages()) {
        if let Some(region) = survey.classified.index_at(address) {
            surveys.places.insert(slot, Place { process, region });
        }
    }
    let comm = std::fs::read(format!("/proc/{tgid}/comm")).unwrap_or_default();
    let comm = text::escape_bytes(comm.strip_suffix(b"\n").unwrap_or(&comm));
    surveys.processes.push(Process { tgid, comm, owner, survey });
}

/// Live anonymous samples of each process that still runs, and their bytes.
fn samples_by_process(tables: &Tables<'_>) -> HashMap<u32, (Vec<Sampled>, u64)> {
    let mut living: HashMap<u64, Option<u32>> = HashMap::new();
    let mut samples: HashMap<u32, (Vec<Sampled>, u64)> = HashMap::new();
    for (slot, sample) in tables.samples {
        let Some(record) = tables.keys.get(&sample.key) else { continue };
        if record.key.kind != Kind::Anon as u32 || record.key.flags & (KEY_BASELINE | KEY_OWN) != 0 || ledger::live(record) <= 0 {
            continue;
        }
        let tgid = living
            .entry(record.key.process)
            .or_insert_with(|| tables.processes.get(&record.key.process).filter(|process| is_running(process)).map(|process| process.tgid));
        if let Some(tgid) = *tgid {
            let (found, live) = samples.entry(tgid).or_default();
            found.push(Sampled { slot: *slot, address: sample.address });
            *live = live.saturating_add(sample_bytes(sample));
        }
    }
    samples
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
