//! Who made page cache dirty, and who was held up for it: the kernel half's sums by owner and file, as rows of files and cgroups show them.

use crate::{
    analyse::accounts,
    cgroup::CgroupId,
    kernel_half::probes::ProbeId,
    report::{Cgroup, FileRow, FileToucher, HeldRow, OTHER},
    snapshot::{DirtiedBefore, Snapshot},
};
use std::collections::{BTreeMap, HashMap};
use tracer_common::dirty::DirtyRecord;

/// Most processes named for a file.
const MOST: usize = 10;
/// A rate over less time than this says nothing, seconds.
const SHORTEST_S: f64 = 1.0;

/// A process that made pages dirty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Who {
    /// By its identity.
    Known(u64),
    /// One that left the kernel's tables: thread-group id and name.
    Left(Option<u32>, String),
}

/// What was dirtied of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    bytes: u64,
    variance: u64,
    first_ns: Option<u64>,
    /// Bytes by process and user stack; 0 for none.
    by: BTreeMap<Who, BTreeMap<u64, u64>>,
}

impl Part {
    fn add(&mut self, who: Who, stack: u64, record: &DirtyRecord) {
        self.bytes = self.bytes.saturating_add(record.bytes);
        self.variance = self.variance.saturating_add(record.variance);
        self.first_ns = Some(self.first_ns.map_or(record.first_ns, |first| first.min(record.first_ns)));
        let bytes = self.by.entry(who).or_default().entry(stack).or_default();
        *bytes = bytes.saturating_add(record.bytes);
    }

    /// Adds another file's.
    pub(super) fn merge(&mut self, other: &Part) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.first_ns = [self.first_ns, other.first_ns].into_iter().flatten().min();
    }

    /// Bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn per_second(&self, now_ns: u64) -> Option<f64> {
        let seconds = now_ns.saturating_sub(self.first_ns?) as f64 / 1e9;
        (seconds >= SHORTEST_S).then(|| self.bytes as f64 / seconds)
    }
}

/// By owner and file.
pub(super) struct Parts {
    owners: HashMap<u64, HashMap<u64, Part>>,
    /// Waits and their nanoseconds by owner and process.
    held: HashMap<u64, BTreeMap<Who, (u64, u64)>>,
    /// The probe is there.
    followed: bool,
    /// That of the waits is.
    holds_followed: bool,
}

impl Parts {
    /// Of every wanted owner. A file without a record is 0.
    pub(super) fn new(snapshot: &Snapshot) -> Parts {
        let mut owners: HashMap<u64, HashMap<u64, Part>> = HashMap::new();
        let mut held: HashMap<u64, BTreeMap<Who, (u64, u64)>> = HashMap::new();
        let mut part = |owner: u64, file: u64, who: Who, stack: u64, record: &DirtyRecord| {
            if !snapshot.cgroups.wanted(CgroupId(owner)) {
                return;
            }
            if record.holds > 0 {
                let (times, ns) = held.entry(owner).or_default().entry(who.clone()).or_default();
                (*times, *ns) = (times.saturating_add(record.holds), ns.saturating_add(record.held_ns));
            }
            if record.samples > 0 {
                let file = if snapshot.files.known.contains_key(&file) { file } else { 0 };
                owners.entry(owner).or_default().entry(file).or_default().add(who, stack, record);
            }
        };
        for (key, record) in &snapshot.files.dirtied {
            part(key.owner, key.file, Who::Known(key.process), key.user_stack, record);
        }
        for DirtiedBefore { owner, file, tgid, comm, record } in &snapshot.files.dirtied_before {
            part(*owner, *file, Who::Left(*tgid, comm.clone()), 0, record);
        }
        Parts { owners, held, followed: snapshot.tracing.has(ProbeId::Dirty), holds_followed: snapshot.tracing.has(ProbeId::Throttle) }
    }

    /// Owners with their files.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &HashMap<u64, Part>)> {
        self.owners.iter().map(|(owner, files)| (*owner, files))
    }

    /// Fills in a file's row; the `stacks` largest processes have their stack.
    pub(super) fn describe_file(&self, snapshot: &Snapshot, part: &Part, stacks: usize, row: &mut FileRow) {
        self.figures(snapshot, part, row);
        if self.followed {
            row.dirtiers = dirtiers(snapshot, part, stacks);
        }
    }

    /// Fills in the figures alone.
    pub(super) fn figures(&self, snapshot: &Snapshot, part: &Part, row: &mut FileRow) {
        if self.followed {
            row.dirtied = Some(part.bytes);
            row.dirtied_stderr = Some(accounts::standard_error(part.variance));
            row.dirtied_bytes_per_s = part.per_second(snapshot.taken.now_ns);
        }
    }

    /// Fills in a cgroup's row.
    pub(super) fn describe_cgroup(&self, snapshot: &Snapshot, id: CgroupId, row: &mut Cgroup) {
        if self.holds_followed {
            let held = self.held.get(&id.0);
            row.dirty_held_ns = Some(held.into_iter().flat_map(BTreeMap::values).fold(0, |sum, (_, ns)| sum.saturating_add(*ns)));
            row.dirty_held = Some(held.map(|held| held_rows(snapshot, held)).unwrap_or_default());
        }
        if !self.followed {
            return;
        }
        let mut sum = Part::default();
        self.owners.get(&id.0).into_iter().flat_map(HashMap::values).for_each(|part| sum.merge(part));
        row.dirtied_bytes = Some(sum.bytes);
        row.dirtied_stderr = Some(accounts::standard_error(sum.variance));
        row.dirtied_bytes_per_s = sum.per_second(snapshot.taken.now_ns);
        let waiting = row.dirty_bytes.zip(row.writeback_bytes).map(|(dirty, writeback)| dirty.saturating_add(writeback));
        let before = snapshot.cgroups.unwritten_first.get(&id).copied();
        row.cleaned_bytes_per_s = waiting.zip(before).zip(row.dirtied_bytes_per_s).map(|((waiting, before), per_s)| {
            let cleaned = sum.bytes.saturating_add(before).saturating_sub(waiting);
            if sum.bytes == 0 { 0.0 } else { cleaned as f64 * per_s / sum.bytes as f64 }
        });
    }
}

/// The longest first; those beyond the bound in one row.
fn held_rows(snapshot: &Snapshot, held: &BTreeMap<Who, (u64, u64)>) -> Vec<HeldRow> {
    let mut by: Vec<(&Who, &(u64, u64))> = held.iter().collect();
    by.sort_by_key(|(who, (_, ns))| (std::cmp::Reverse(*ns), *who));
    let rest = by.split_off(by.len().min(MOST));
    let named = by.into_iter().map(|(who, (times, ns))| {
        let (pid, comm) = name(snapshot, who);
        HeldRow { pid, comm, times: *times, ns: *ns }
    });
    let mut rows: Vec<HeldRow> = named.collect();
    if !rest.is_empty() {
        let sum = |figure: fn(&(u64, u64)) -> u64| rest.iter().fold(0_u64, |sum, (_, held)| sum.saturating_add(figure(held)));
        rows.push(HeldRow { pid: None, comm: OTHER.to_owned(), times: sum(|held| held.0), ns: sum(|held| held.1) });
    }
    rows
}

/// Thread-group id and name.
fn name(snapshot: &Snapshot, who: &Who) -> (Option<u32>, String) {
    match who {
        Who::Known(process) => (snapshot.names.processes.get(process).map(|process| process.tgid), snapshot.names.comm(*process)),
        Who::Left(tgid, comm) => (*tgid, comm.clone()),
    }
}

fn dirtiers(snapshot: &Snapshot, part: &Part, stacks: usize) -> Vec<FileToucher> {
    let sum = |stacks: &BTreeMap<u64, u64>| stacks.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let mut by: Vec<(&Who, &BTreeMap<u64, u64>)> = part.by.iter().collect();
    by.sort_by_key(|(who, stacks)| (std::cmp::Reverse(sum(stacks)), *who));
    let mut rows = Vec::new();
    for (n, (who, of_stacks)) in by.iter().enumerate().take(MOST) {
        let (pid, comm) = name(snapshot, who);
        let mut row = FileToucher { pid, comm, bytes: sum(of_stacks), ..FileToucher::default() };
        let largest = of_stacks.iter().max_by_key(|(stack, bytes)| (**bytes, **stack)).map_or(0, |(stack, _)| *stack);
        if let Who::Known(process) = who
            && n < stacks
            && largest != 0
        {
            row.frames =
                snapshot.names.stacks.get(&(*process, largest)).map(|words| snapshot.names.in_words(&words.frames)).unwrap_or_default();
        }
        rows.push(row);
    }
    let rest: u64 = by.iter().skip(MOST).map(|(_, stacks)| sum(stacks)).fold(0, u64::saturating_add);
    if rest > 0 {
        rows.push(FileToucher { comm: OTHER.to_owned(), bytes: rest, ..FileToucher::default() });
    }
    rows
}
