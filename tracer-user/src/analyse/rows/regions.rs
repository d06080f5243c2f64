//! The regions of each cgroup: rows by process and class, arenas, and what of each key is in which class.

use super::mappings::{self, Known};
use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    region::Class,
    report::{ArenaRow, RegionRow, Surveyed as Summary},
    snapshot::{Arenas, Snapshot, SurveyedProcess},
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
pub(super) fn by_key(snapshot: &Snapshot) -> HashMap<u64, BTreeMap<Class, Part>> {
    let mut parts: HashMap<u64, BTreeMap<Class, Part>> = HashMap::new();
    for (slot, sample) in snapshot.charges.samples.iter().filter(|(_, sample)| sample.key != 0) {
        let class = snapshot.surveys.class(*slot);
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

/// Owner, class and what told it.
type Place<'a> = (u64, Class, Option<&'a str>);

/// The rows of every wanted cgroup.
pub(super) fn by_owner(snapshot: &Snapshot) -> HashMap<u64, Shown> {
    let live = live_by_place(snapshot);
    let mut shown: HashMap<u64, Shown> = HashMap::new();
    for (process, live) in snapshot.surveys.processes.iter().zip(&live) {
        let mut owners: Vec<u64> = live.keys().map(|(owner, ..)| *owner).collect();
        owners.extend(process.owner.map(|id| id.0));
        owners.sort_unstable();
        owners.dedup();
        let known = mappings::of_process(snapshot, process);
        for owner in owners.into_iter().filter(|owner| snapshot.cgroups.wanted(CgroupId(*owner))) {
            let part = |class, by| live.get(&(owner, class, by)).copied().unwrap_or_default();
            let at_home = process.owner == Some(CgroupId(owner));
            let shown = shown.entry(owner).or_default();
            shown.regions.extend(rows(process, at_home, &known, part));
            if let Some(arenas) = process.malloc.arenas.filter(|_| at_home) {
                let known = live.iter().filter(|((of, class, _), _)| (*of, *class) == (owner, Class::GlibcArena));
                let live = known.fold(0, |sum: u64, (_, part)| sum.saturating_add(part.live));
                shown.arenas.push(arena_row(snapshot, process, arenas, live));
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

/// Of each surveyed process, by its place among them.
fn live_by_place(snapshot: &Snapshot) -> Vec<HashMap<Place<'_>, Part>> {
    let mut live: Vec<HashMap<Place<'_>, Part>> = vec![HashMap::new(); snapshot.surveys.processes.len()];
    for (slot, place) in &snapshot.surveys.places {
        let Some(sample) = snapshot.charges.samples.get(slot) else { continue };
        let Some(record) = snapshot.charges.keys.get(&sample.key) else { continue };
        let (Some(region), Some(of_process)) = (snapshot.surveys.region(*place), live.get_mut(place.process)) else { continue };
        of_process.entry((record.key.owner, region.class, region.by.as_deref())).or_default().add(sample);
    }
    live
}

/// The classes of one process. Those that never hold anonymous memory are left out.
fn rows<'a>(
    process: &'a SurveyedProcess,
    at_home: bool,
    known: &Known<'a>,
    live: impl Fn(Class, Option<&'a str>) -> Part,
) -> Vec<RegionRow> {
    #[derive(Default)]
    struct Sum {
        count: u64,
        reserved: u64,
        resident: Option<u64>,
    }
    let mut sums: BTreeMap<(Class, Option<&'a str>), Sum> = BTreeMap::new();
    for region in process.regions.iter().filter(|region| region.private) {
        let place = (region.class, region.by.as_deref());
        let sum = sums.entry(place).or_insert_with(|| Sum { resident: Some(0), ..Sum::default() });
        sum.count += u64::from(region.accessible);
        sum.reserved = sum.reserved.saturating_add(region.end - region.start);
        // Unknown as soon as one is.
        sum.resident = sum.resident.zip(region.resident).map(|(sum, bytes)| sum.saturating_add(bytes));
    }
    let heaps = process.malloc.arenas.map_or(0, |arenas| arenas.heaps);
    let count = |class, count| if class == Class::GlibcArena && heaps > 0 { heaps } else { count };
    sums.into_iter()
        .map(|((class, by), sum)| {
            let part = live(class, by);
            RegionRow {
                pid: Some(process.tgid),
                comm: process.comm.clone(),
                class: class.name().to_owned(),
                recognised_by: by.map(str::to_owned),
                count: at_home.then(|| count(class, sum.count)),
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

fn arena_row(snapshot: &Snapshot, process: &SurveyedProcess, arenas: Arenas, live: u64) -> ArenaRow {
    let malloc = &process.malloc;
    let a_cpu = if malloc.word == 4 { ARENAS_A_CPU_NARROW } else { ARENAS_A_CPU };
    ArenaRow {
        pid: process.tgid,
        comm: process.comm.clone(),
        arenas: arenas.arenas.map(|others| others + 1),
        heaps: arenas.heaps,
        reserved: arenas.reserved,
        committed: arenas.committed,
        resident: arenas.resident,
        free: malloc.free.map(|(free, _)| free),
        looked_through: malloc.free.map(|(_, looked_through)| looked_through),
        live,
        threads: process.threads,
        default_limit: u64::from(snapshot.host.cpus) * a_cpu,
        environment_limit: malloc.environment_limit,
        malloc_arena_max: malloc.malloc_arena_max.clone(),
        tunable_arena_max: malloc.tunable_arena_max.clone(),
    }
}

/// How much was looked at.
pub(super) fn surveyed(snapshot: &Snapshot) -> Summary {
    let is_traced = |sample: &Sample| {
        snapshot.charges.keys.get(&sample.key).is_some_and(|record| {
            record.key.kind == Kind::Anon as u32
                && record.key.flags & (KEY_BASELINE | KEY_OWN) == 0
                && snapshot.cgroups.wanted(CgroupId(record.key.owner))
        })
    };
    let unplaced =
        snapshot.charges.samples.iter().filter(|(slot, sample)| !snapshot.surveys.places.contains_key(slot) && is_traced(sample));
    Summary {
        processes: snapshot.surveys.processes.len() as u64,
        left_out: snapshot.surveys.left_out,
        unplaced_bytes: unplaced.fold(0, |sum: u64, (_, sample)| sum.saturating_add(accounts::left(sample).0)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::snapshot::Region;

    /// A program's text and data, its heap, a reservation, and shared memory.
    fn process() -> SurveyedProcess {
        let region = |start: u64, end: u64, class, accessible, private, resident| Region {
            start,
            end,
            class,
            by: None,
            accessible,
            private,
            resident,
        };
        let regions = vec![
            region(0x1000, 0x2000, Class::FilePrivate, true, false, Some(0)),
            region(0x2000, 0x4000, Class::FilePrivate, true, true, Some(4096)),
            region(0x5000, 0x9000, Class::BrkHeap, true, true, Some(12288)),
            region(0x9000, 0xa000, Class::Other, false, true, Some(0)),
            region(0xa000, 0xb000, Class::Memfd, true, false, None),
        ];
        SurveyedProcess { tgid: 7, comm: "x".into(), owner: Some(CgroupId(1)), regions, ..SurveyedProcess::default() }
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
