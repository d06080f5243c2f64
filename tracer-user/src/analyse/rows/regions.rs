//! The regions of each cgroup: rows by process and class, arenas, and what of each key is in which class.

use super::{
    Inputs, Symbols,
    mappings::{self, Known},
    wanted,
};
use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    region::{Class, survey::Arenas},
    report::{ArenaRow, RegionRow, Surveyed},
    trace::regions::Process,
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::{
    attribution::{KEY_BASELINE, KEY_OWN, Sample},
    kind::Kind,
};

/// glibc's limit on arenas, by CPU (NARENAS_FROM_NCORES).
const ARENAS_A_CPU: u64 = 8;
const ARENAS_A_CPU_NARROW: u64 = 2;

/// Sums over live samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Bytes still there.
    pub live: u64,
    /// Variance of `live`, in frames squared.
    pub live_variance: u64,
    /// Bytes that these samples stood for when they were taken.
    pub charged: u64,
    /// Samples.
    pub samples: u64,
    /// The oldest, monotonic nanoseconds.
    pub oldest_ns: Option<u64>,
}

impl Part {
    fn add(&mut self, sample: &Sample) {
        let (live, variance) = accounts::left(sample);
        self.live = self.live.saturating_add(live);
        self.live_variance += variance;
        self.charged = self.charged.saturating_add(sample.weight_per_frame << (sample.order & 31));
        self.samples += 1;
        self.oldest_ns = Some(self.oldest_ns.map_or(sample.charged_ns, |oldest| oldest.min(sample.charged_ns)));
    }
}

/// Live samples of each anonymous key, by the class of the region that they are in.
pub(super) fn by_key(inputs: &Inputs<'_>) -> HashMap<u64, BTreeMap<Class, Part>> {
    let mut parts: HashMap<u64, BTreeMap<Class, Part>> = HashMap::new();
    for (slot, sample) in inputs.samples.iter().filter(|(_, sample)| sample.key != 0) {
        let class = inputs.surveys.class(*slot);
        parts.entry(sample.key).or_default().entry(class).or_default().add(sample);
    }
    parts
}

/// What is shown of one cgroup.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Largest resident first.
    pub regions: Vec<RegionRow>,
    /// Largest resident first.
    pub arenas: Vec<ArenaRow>,
}

/// What of a process's memory is live, by owner, class and what told it.
type Live = BTreeMap<(u64, Class, Option<&'static str>), Part>;

/// The rows of every wanted cgroup.
pub(super) fn by_owner(inputs: &Inputs<'_>, symbols: &mut dyn Symbols) -> HashMap<u64, Shown> {
    let live_by_process = live_by_process(inputs);
    let mut shown: HashMap<u64, Shown> = HashMap::new();
    for (process, live) in inputs.surveys.processes.iter().zip(&live_by_process) {
        let mut owners: Vec<u64> = live.keys().map(|(owner, ..)| *owner).collect();
        owners.extend(process.owner.map(|id| id.0));
        owners.sort_unstable();
        owners.dedup();
        let known = mappings::of_process(inputs, symbols, process);
        for owner in owners.into_iter().filter(|owner| wanted(inputs, CgroupId(*owner))) {
            let part = |class, by| live.get(&(owner, class, by)).copied().unwrap_or_default();
            let at_home = process.owner == Some(CgroupId(owner));
            let shown = shown.entry(owner).or_default();
            shown.regions.extend(rows(process, at_home, &known, part));
            if let Some(arenas) = process.survey.arenas().filter(|_| at_home) {
                let in_arenas = live.iter().filter(|((of, class, _), _)| (*of, *class) == (owner, Class::GlibcArena));
                let live = in_arenas.fold(0, |sum: u64, (_, part)| sum.saturating_add(part.live));
                shown.arenas.push(arena_row(inputs, process, arenas, live));
            }
        }
    }
    for one in shown.values_mut() {
        one.regions.sort_by(|a, b| {
            let size = |row: &RegionRow| (row.resident.unwrap_or(row.live), row.reserved);
            size(b).cmp(&size(a)).then_with(|| (a.pid, &a.class, &a.recognised_by).cmp(&(b.pid, &b.class, &b.recognised_by)))
        });
        one.arenas.sort_by_key(|row| (std::cmp::Reverse(row.resident), row.pid));
    }
    shown
}

/// What is live in each of the processes that were read.
fn live_by_process(inputs: &Inputs<'_>) -> Vec<Live> {
    let mut live: Vec<Live> = inputs.surveys.processes.iter().map(|_| Live::new()).collect();
    for (slot, place) in &inputs.surveys.places {
        let Some(sample) = inputs.samples.get(slot) else { continue };
        let Some(record) = inputs.keys.get(&sample.key) else { continue };
        let region = inputs.surveys.region(*place);
        live[place.process].entry((record.key.owner, region.class, region.by)).or_default().add(sample);
    }
    live
}

/// The classes of one process. Those that never hold anonymous memory are left out, and what holds none and is not writable.
fn rows(process: &Process, at_home: bool, known: &Known, live: impl Fn(Class, Option<&'static str>) -> Part) -> Vec<RegionRow> {
    #[derive(Default)]
    struct Sum {
        count: u64,
        reserved: u64,
        resident: Option<u64>,
    }
    let survey = &process.survey;
    let mut sums: BTreeMap<(Class, Option<&'static str>), Sum> = BTreeMap::new();
    for (region, resident) in survey.classified.regions.iter().zip(&survey.resident) {
        let vma = &survey.maps.vmas[region.vma];
        let is_text = vma.inode != 0 && !vma.write && *resident == Some(0);
        if vma.shared || is_text || region.class == Class::Vdso {
            continue;
        }
        let sum = sums.entry((region.class, region.by)).or_insert_with(|| Sum { resident: Some(0), ..Sum::default() });
        sum.count += u64::from(!vma.is_inaccessible());
        sum.reserved = sum.reserved.saturating_add(region.end - region.start);
        // Unknown as soon as one is.
        sum.resident = sum.resident.zip(*resident).map(|(sum, bytes)| sum.saturating_add(bytes));
    }
    let heaps = |class, count| {
        if class == Class::GlibcArena && !survey.classified.heaps.is_empty() { survey.classified.heaps.len() as u64 } else { count }
    };
    sums.into_iter()
        .map(|((class, by), sum)| {
            let part = live(class, by);
            RegionRow {
                pid: Some(process.tgid),
                comm: process.comm.clone(),
                class: class.name().to_owned(),
                recognised_by: by.map(str::to_owned),
                count: at_home.then(|| heaps(class, sum.count)),
                reserved: at_home.then_some(sum.reserved),
                resident: sum.resident.filter(|_| at_home),
                live: part.live,
                live_stderr: accounts::standard_error(part.live_variance),
                origin: known.origins(class, by).first().map(|row| row.frames.clone()),
                origins: known.origins(class, by).to_vec(),
                growers: known.growers(class, by).to_vec(),
            }
        })
        .filter(|row| at_home || row.live > 0)
        .collect()
}

fn arena_row(inputs: &Inputs<'_>, process: &Process, arenas: Arenas, live: u64) -> ArenaRow {
    let survey = &process.survey;
    let environment = survey.environment.as_ref();
    let a_cpu = if survey.layout.word == 4 { ARENAS_A_CPU_NARROW } else { ARENAS_A_CPU };
    ArenaRow {
        pid: process.tgid,
        comm: process.comm.clone(),
        arenas: arenas.arenas.map(|others| others + 1),
        heaps: arenas.heaps,
        reserved: arenas.reserved,
        committed: arenas.committed,
        resident: arenas.resident,
        free: survey.free.map(|free| free.free),
        looked_through: survey.free.map(|free| free.looked_through),
        live,
        threads: survey.threads,
        default_limit: u64::from(inputs.facts.cpus_online) * a_cpu,
        environment_limit: environment.and_then(|environment| environment.arena_max()),
        malloc_arena_max: environment.and_then(|environment| environment.malloc_arena_max.clone()),
        tunable_arena_max: environment.and_then(|environment| environment.tunable_arena_max.clone()),
    }
}

/// How much was looked at.
pub(super) fn surveyed(inputs: &Inputs<'_>) -> Surveyed {
    let is_traced = |sample: &Sample| {
        inputs.keys.get(&sample.key).is_some_and(|record| {
            record.key.kind == Kind::Anon as u32
                && record.key.flags & (KEY_BASELINE | KEY_OWN) == 0
                && wanted(inputs, CgroupId(record.key.owner))
        })
    };
    let unplaced = inputs.samples.iter().filter(|(slot, sample)| !inputs.surveys.places.contains_key(slot) && is_traced(sample));
    Surveyed {
        processes: inputs.surveys.processes.len() as u64,
        left_out: inputs.surveys.left_out,
        unplaced_bytes: unplaced.fold(0, |sum: u64, (_, sample)| sum.saturating_add(accounts::left(sample).0)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::region::{Survey, maps::Maps};
    use std::sync::Arc;

    fn process() -> Process {
        let text = "1000-2000 r-xp 0 08:01 9 /bin/x\nAnonymous: 0 kB\n2000-4000 rw-p 0 08:01 9 /bin/x\nAnonymous: 4 kB\n\
            5000-9000 rw-p 0 0:0 0 [heap]\nAnonymous: 12 kB\n9000-a000 ---p 0 0:0 0 \nAnonymous: 0 kB\na000-b000 rw-s 0 0:1 7 /memfd:x\n";
        let mut survey = Survey::of_maps(Maps::parse(text.as_bytes()).unwrap(), &[]);
        survey.resident = survey.classified.regions.iter().map(|region| survey.maps.vmas[region.vma].anonymous).collect();
        Process { tgid: 7, comm: "x".into(), owner: Some(CgroupId(1)), survey: Arc::new(survey) }
    }

    /// Class, and count, reserved, resident, live.
    fn found(rows: &[RegionRow]) -> Vec<(&str, [Option<u64>; 4])> {
        rows.iter().map(|row| (row.class.as_str(), [row.count, row.reserved, row.resident, Some(row.live)])).collect()
    }

    #[test]
    fn rows_by_class_without_text_and_shared_memory() {
        let live = |class, _| Part { live: if class == Class::BrkHeap { 8192 } else { 0 }, ..Part::default() };
        let rows = rows(&process(), true, &Known::default(), live);
        let expected = [
            ("brk-heap", [1, 0x4000, 12288, 8192].map(Some)),
            ("file-private", [1, 0x2000, 4096, 0].map(Some)),
            ("other", [0, 0x1000, 0, 0].map(Some)),
        ];
        assert_eq!(found(&rows), expected);
    }

    #[test]
    fn of_a_process_in_another_cgroup_only_live_bytes_are_known() {
        let live = |class, _| Part { live: if class == Class::BrkHeap { 8192 } else { 0 }, ..Part::default() };
        assert_eq!(found(&rows(&process(), false, &Known::default(), live)), [("brk-heap", [None, None, None, Some(8192)])]);
    }
}
