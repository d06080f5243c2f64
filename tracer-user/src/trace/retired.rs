//! Retirement: keys of processes that are gone, with nothing live, leave the kernel's tables for totals kept here, so that
//! occupancy stays flat however many processes come and go.
//!
//! A key is marked when it is first seen without live bytes, and leaves only if it still has none after a grace period, since
//! a folio may wait in a CPU's batch. A charge that comes later makes the key again. Stacks and processes leave when no key
//! has named them for as long. Pure but for the clock values that come in.

use crate::{cgroup::registry::REMOVED, kernel_half::stack::Stack};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tracer_common::{
    attribution::KeyRecord,
    dirty::{DirtyKey, DirtyRecord},
    process::ProcessRecord,
};

/// How long a key must have been without live bytes, nanoseconds. A CPU's batch is drained far sooner where anything happens at all.
const GRACE_NS: u64 = 3_000_000_000;
/// The same of what only keys name, nanoseconds, once no key does: the keys have waited.
const UNNAMED_GRACE_NS: u64 = 1_000_000_000;
/// Most rows kept for retired keys; the rest is summed in one row an owner and kind.
const MOST_ROWS: usize = 1 << 16;
/// Most memory of these rows and the names in them, bytes. The rows that sum the rest come on top, a few hundred bytes each.
const MOST_BYTES: usize = 32 << 20;
/// Memory of a row without its frames, and of a name without its text: what stands for them in tables, which may be half empty, and what the
/// allocator adds.
const ROW_BYTES: usize = 160;
const NAME_BYTES: usize = 144;

/// What may leave now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Identities of keys.
    pub keys: Vec<u64>,
    /// Identities of stacks.
    pub stacks: Vec<u64>,
    /// Identities of processes.
    pub processes: Vec<u64>,
}

/// Marks of one pass for the next.
#[derive(Debug, Default)]
pub struct Marks {
    /// Stacks and processes that something else than a key names.
    pub named: (HashSet<u64>, HashSet<u64>),
    keys: HashMap<u64, u64>,
    stacks: HashMap<u64, u64>,
    processes: HashMap<u64, u64>,
    files: HashMap<u64, u64>,
}

impl Marks {
    /// Decides what leaves, given the tables as of `now_ns` and which processes are gone.
    pub fn pass(
        &mut self,
        keys: &HashMap<u64, KeyRecord>,
        stacks: &HashMap<u64, Stack>,
        processes: &HashMap<u64, ProcessRecord>,
        dirtied: &HashMap<DirtyKey, DirtyRecord>,
        gone: impl Fn(&ProcessRecord) -> bool,
        now_ns: u64,
    ) -> Leaving {
        let idle = |record: &KeyRecord| {
            record.key.process != 0 && crate::analyse::accounts::live(record) == 0 && processes.get(&record.key.process).is_none_or(&gone)
        };
        let idle_keys = keys.iter().filter(|(_, record)| idle(record)).map(|(id, _)| *id);
        let mut leaving_keys = ripe(&mut self.keys, idle_keys, now_ns, GRACE_NS);
        // One that was charged since it was marked, and had nothing live again at this pass.
        leaving_keys.retain(|id| keys.get(id).is_some_and(|record| now_ns.saturating_sub(record.last_ns) > GRACE_NS));
        let (mut named_stacks, mut named_processes) = std::mem::take(&mut self.named);
        // Keys that leave in this pass are counted as well: whoever removes them puts their stacks and their process in words, so these
        // must stay until the next pass.
        for record in keys.values() {
            named_stacks.extend([record.key.user_stack, record.key.kernel_stack]);
            named_processes.insert(record.key.process);
        }
        for key in dirtied.keys() {
            named_stacks.insert(key.user_stack);
            named_processes.insert(key.process);
        }
        let idle_stacks = stacks.keys().copied().filter(|id| !named_stacks.contains(id));
        let idle_processes = processes.iter().filter(|(id, record)| !named_processes.contains(id) && gone(record)).map(|(id, _)| *id);
        Leaving {
            keys: leaving_keys,
            stacks: ripe(&mut self.stacks, idle_stacks, now_ns, UNNAMED_GRACE_NS),
            processes: ripe(&mut self.processes, idle_processes, now_ns, UNNAMED_GRACE_NS),
        }
    }
}

impl Marks {
    /// Which files leave: those that no live sample has named since a pass a grace period ago.
    pub fn files(&mut self, files: impl Iterator<Item = u64>, named: &HashSet<u64>, now_ns: u64) -> Vec<u64> {
        ripe(&mut self.files, files.filter(|file| !named.contains(file)), now_ns, GRACE_NS)
    }
}

/// Those that have been idle since a pass at least `grace_ns` ago; the others are marked, or their mark is lifted.
fn ripe(marks: &mut HashMap<u64, u64>, idle: impl Iterator<Item = u64>, now_ns: u64, grace_ns: u64) -> Vec<u64> {
    let mut next = HashMap::new();
    let mut ripe = Vec::new();
    for id in idle {
        let since = marks.get(&id).copied().unwrap_or(now_ns);
        // A mark stays until its bearer is gone from the table: not all that may leave do so at once.
        next.insert(id, since);
        if now_ns.saturating_sub(since) > grace_ns {
            ripe.push(id);
        }
    }
    *marks = next;
    ripe
}

/// What a retired key was charged for, in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Owner at charge.
    pub owner: u64,
    /// Number of the kind.
    pub kind: u32,
    /// Flags of the key.
    pub flags: u32,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Status of the stack.
    pub status: String,
    /// Outermost first.
    pub frames: Vec<String>,
}

/// Charged bytes of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Bytes.
    pub bytes: u64,
    /// Variance in frames squared.
    pub variance: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes live at the peak of the owner that was left as the one of this number.
    pub peak: u64,
    /// See `peak`.
    pub peak_mark: u64,
}

/// A row with numbers for its names: many rows have the same ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Numbered {
    owner: u64,
    kind: u32,
    flags: u32,
    comm: u32,
    status: u32,
    frames: Box<[u32]>,
}

impl Numbered {
    fn names(&self) -> impl Iterator<Item = u32> + '_ {
        [self.comm, self.status].into_iter().chain(self.frames.iter().copied())
    }

    fn bytes(&self) -> usize {
        row_bytes(self.frames.len())
    }
}

fn row_bytes(frames: usize) -> usize {
    ROW_BYTES + size_of::<u32>() * frames
}

/// Names by number, each as long as a row has it.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    /// With how many times a row has it. A number that is free has none.
    names: Vec<(Arc<str>, u32)>,
    free: Vec<u32>,
    bytes: usize,
}

impl Names {
    /// What a name takes that is not there yet.
    fn missing(&self, name: &str) -> usize {
        if self.numbers.contains_key(name) { 0 } else { NAME_BYTES + name.len() }
    }

    /// The number of a name in one more place; `None` if there are no more numbers.
    fn take(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            self.names[*number as usize].1 += 1;
            return Some(*number);
        }
        let named: Arc<str> = name.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize] = (Arc::clone(&named), 1);
                number
            }
            None => {
                let number = u32::try_from(self.names.len()).ok()?;
                self.names.push((Arc::clone(&named), 1));
                number
            }
        };
        self.bytes += NAME_BYTES + name.len();
        self.numbers.insert(named, number);
        Some(number)
    }

    /// It is in one place less.
    fn leave(&mut self, number: u32) {
        let (name, places) = &mut self.names[number as usize];
        *places -= 1;
        if *places == 0 {
            self.bytes -= NAME_BYTES + name.len();
            self.numbers.remove(name);
            *name = Arc::from("");
            self.free.push(number);
        }
    }

    fn text(&self, number: u32) -> String {
        self.names[number as usize].0.as_ref().to_owned()
    }
}

/// Totals of retired keys.
#[derive(Debug, Default)]
pub struct Retired {
    rows: HashMap<Numbered, Charged>,
    names: Names,
    /// Of the rows, without names.
    row_bytes: usize,
    /// Keys whose row was folded because there was no room for it.
    pub folded: u64,
}

impl Retired {
    /// Adds one key's totals.
    pub fn add(&mut self, mut row: Row, charged: Charged) {
        let texts = || [&row.comm, &row.status].into_iter().chain(&row.frames);
        let new: usize = texts().map(|name| self.names.missing(name)).sum();
        let full = self.rows.len() >= MOST_ROWS || self.bytes() + new + row_bytes(row.frames.len()) > MOST_BYTES;
        let numbered = if full && new > 0 { None } else { self.numbered(&row) };
        let numbered = match numbered {
            Some(numbered) if full && !self.rows.contains_key(&numbered) => {
                self.leave(&numbered);
                None
            }
            numbered => numbered,
        };
        match numbered {
            Some(numbered) => self.sum(numbered, charged),
            None => {
                self.folded += 1;
                row.comm = "[other]".to_owned();
                row.status = "none".to_owned();
                row.frames = vec!["[other]".to_owned()];
                if let Some(numbered) = self.numbered(&row) {
                    self.sum(numbered, charged);
                }
            }
        }
    }

    /// A row whose names are taken; `None` if there are no more numbers, which the bound on bytes prevents.
    fn numbered(&mut self, row: &Row) -> Option<Numbered> {
        let Row { owner, kind, flags, comm, status, frames } = row;
        let (comm, status) = (self.names.take(comm)?, self.names.take(status)?);
        let frames = frames.iter().map(|frame| self.names.take(frame)).collect::<Option<_>>()?;
        Some(Numbered { owner: *owner, kind: *kind, flags: *flags, comm, status, frames })
    }

    fn leave(&mut self, row: &Numbered) {
        row.names().for_each(|name| self.names.leave(name));
    }

    /// Adds to a row whose names are taken.
    fn sum(&mut self, row: Numbered, charged: Charged) {
        let sum = match self.rows.get_mut(&row) {
            Some(sum) => {
                row.names().for_each(|name| self.names.leave(name));
                sum
            }
            None => {
                self.row_bytes += row.bytes();
                self.rows.entry(row).or_default()
            }
        };
        sum.bytes += charged.bytes;
        sum.variance += charged.variance;
        sum.samples += charged.samples;
        // Of two peaks the later one is the higher.
        match sum.peak_mark.cmp(&charged.peak_mark) {
            std::cmp::Ordering::Less => (sum.peak, sum.peak_mark) = (charged.peak, charged.peak_mark),
            std::cmp::Ordering::Equal => sum.peak += charged.peak,
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Sums the rows of these owners by kind and code, whoever they were; only those of `wanted` ones.
    pub fn fold(&mut self, owners: &HashSet<u64>, wanted: impl Fn(u64) -> bool) {
        let leaving: Vec<(Numbered, Charged)> = self.rows.extract_if(|row, _| owners.contains(&row.owner)).collect();
        for (row, charged) in leaving {
            self.row_bytes -= row.bytes();
            if wanted(row.owner) {
                self.sum(Numbered { owner: REMOVED.0, ..row }, charged);
            } else {
                self.leave(&row);
            }
        }
        self.rows.shrink_to_fit();
    }

    /// The rows of these owners, in words.
    pub fn rows(&self, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = (Row, &Charged)> {
        self.rows.iter().filter(move |(row, _)| wanted(row.owner)).map(|(row, charged)| (self.in_words(row), charged))
    }

    fn in_words(&self, row: &Numbered) -> Row {
        Row {
            owner: row.owner,
            kind: row.kind,
            flags: row.flags,
            comm: self.names.text(row.comm),
            status: self.names.text(row.status),
            frames: row.frames.iter().map(|frame| self.names.text(*frame)).collect(),
        }
    }

    /// Owner, number of the kind and totals of each row.
    pub fn charges(&self) -> impl Iterator<Item = (u64, u32, &Charged)> {
        self.rows.iter().map(|(row, charged)| (row.owner, row.kind, charged))
    }

    /// The owner of each row.
    pub fn owners(&self) -> impl Iterator<Item = u64> {
        self.rows.keys().map(|row| row.owner)
    }

    /// Memory that they take, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.row_bytes + self.names.bytes
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Nothing has retired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::attribution::{BANKS, Key};

    const SECOND: u64 = 1_000_000_000;

    fn key(process: u64, charged: u64, uncharged: u64) -> KeyRecord {
        let mut record = KeyRecord {
            key: Key { owner: 1, process, user_stack: 10 + process, kernel_stack: 0, kind: 0, flags: 0 },
            charged: [0; BANKS],
            uncharged: [0; BANKS],
            live_variance: [0; BANKS],
            charged_variance: 0,
            samples: 1,
            last_ns: 0,
            peak_mark: 0,
            peak_live: 0,
            peak_variance: 0,
        };
        record.charged[0] = charged;
        record.uncharged[0] = uncharged;
        record
    }

    fn process(tgid: u32) -> ProcessRecord {
        ProcessRecord { start_ns: 0, first_seen_ns: 0, exec_id: 0, ended_ns: 0, tgid, ns_tgid: 0, kernel_thread: 0, comm: [0; 16] }
    }

    fn stack() -> Stack {
        Stack { status: crate::kernel_half::stack::Walked::Ended, frames: [].into() }
    }

    #[test]
    fn only_idle_keys_of_gone_processes_leave_and_only_after_a_grace_period() {
        let keys = HashMap::from([(1, key(1, 5, 5)), (2, key(2, 5, 4)), (3, key(3, 5, 5))]);
        let processes = HashMap::from([(1, process(1)), (2, process(2)), (3, process(3))]);
        let stacks = HashMap::from([(11, stack()), (12, stack()), (13, stack())]);
        let gone = |record: &ProcessRecord| record.tgid != 3;
        let mut marks = Marks::default();
        assert_eq!(marks.pass(&keys, &stacks, &processes, &HashMap::new(), gone, 10 * SECOND), Leaving::default());
        assert_eq!(marks.pass(&keys, &stacks, &processes, &HashMap::new(), gone, 12 * SECOND), Leaving::default());
        let leaving = marks.pass(&keys, &stacks, &processes, &HashMap::new(), gone, 14 * SECOND);
        assert_eq!(leaving.keys, [1]);
        // Its stack and process are named by it still.
        assert!(leaving.stacks.is_empty() && leaving.processes.is_empty());
    }

    #[test]
    fn a_key_that_is_charged_again_loses_its_mark() {
        let mut keys = HashMap::from([(1, key(1, 5, 5))]);
        let processes = HashMap::from([(1, process(1))]);
        let mut marks = Marks::default();
        marks.pass(&keys, &HashMap::new(), &processes, &HashMap::new(), |_| true, 10 * SECOND);
        keys.insert(1, key(1, 6, 5));
        marks.pass(&keys, &HashMap::new(), &processes, &HashMap::new(), |_| true, 12 * SECOND);
        keys.insert(1, key(1, 6, 6));
        assert!(marks.pass(&keys, &HashMap::new(), &processes, &HashMap::new(), |_| true, 15 * SECOND).keys.is_empty());
    }

    #[test]
    fn a_key_that_was_charged_and_freed_since_its_mark_waits() {
        let mut keys = HashMap::from([(1, key(1, 5, 5))]);
        let processes = HashMap::from([(1, process(1))]);
        let mut marks = Marks::default();
        let mut pass = |keys: &_, now_ns| marks.pass(keys, &HashMap::new(), &processes, &HashMap::new(), |_| true, now_ns).keys;
        assert!(pass(&keys, 10 * SECOND).is_empty());
        keys.insert(1, KeyRecord { last_ns: 13 * SECOND, ..key(1, 6, 6) });
        assert!(pass(&keys, 14 * SECOND).is_empty());
        assert_eq!(pass(&keys, 17 * SECOND), [1]);
    }

    #[test]
    fn stacks_and_processes_leave_a_second_after_their_last_key() {
        let processes = HashMap::from([(1, process(1))]);
        let stacks = HashMap::from([(11, stack())]);
        let mut marks = Marks::default();
        let mut pass = |now_ns| marks.pass(&HashMap::new(), &stacks, &processes, &HashMap::new(), |_| true, now_ns);
        assert_eq!(pass(10 * SECOND), Leaving::default());
        let leaving = pass(12 * SECOND);
        assert_eq!((leaving.stacks, leaving.processes), (vec![11], vec![1]));
    }

    #[test]
    fn files_leave_when_nothing_of_them_is_live() {
        let mut marks = Marks::default();
        let named = HashSet::from([2]);
        assert!(marks.files([1, 2].into_iter(), &named, 10 * SECOND).is_empty());
        assert_eq!(marks.files([1, 2].into_iter(), &named, 14 * SECOND), [1]);
        // Named again meanwhile: its mark is lifted.
        marks.files([3].into_iter(), &named, 20 * SECOND);
        marks.files([3].into_iter(), &HashSet::from([3]), 22 * SECOND);
        assert!(marks.files([3].into_iter(), &named, 24 * SECOND).is_empty());
    }

    #[test]
    fn rows_of_removed_cgroups_add_up_in_one() {
        let row = |owner: u64, comm: &str| Row {
            owner,
            kind: 0,
            flags: 0,
            comm: comm.to_owned(),
            status: "complete".to_owned(),
            frames: vec!["main".to_owned()],
        };
        let charged = Charged { bytes: 5, variance: 2, samples: 1, peak: 3, peak_mark: 1 };
        let mut retired = Retired::default();
        for owner in [1, 2, 3, 4] {
            retired.add(row(owner, "web"), charged);
        }
        retired.add(row(1, "sh"), charged);
        retired.fold(&HashSet::from([1, 2, 3]), |owner| owner != 3);
        let of = |owner: u64, comm: &str| retired.rows(|_| true).find(|(found, _)| *found == row(owner, comm)).map(|(_, sum)| *sum);
        assert_eq!(of(REMOVED.0, "web"), Some(Charged { bytes: 10, variance: 4, samples: 2, peak: 6, peak_mark: 1 }));
        assert_eq!((of(REMOVED.0, "sh"), of(4, "web"), of(1, "web")), (Some(charged), Some(charged), None));
        assert_eq!(retired.rows.len(), 3, "nothing of what is not wanted");
        // What is kept of names goes with the rows.
        retired.fold(&HashSet::from([REMOVED.0, 4]), |_| false);
        assert_eq!((retired.rows.len(), retired.names.numbers.len(), retired.bytes()), (0, 0, 0));
        retired.add(row(1, "web"), charged);
        assert_eq!(
            (retired.names.names.len(), retired.rows(|_| true).next()),
            (4, Some((row(1, "web"), &charged))),
            "numbers are used again"
        );
    }

    /// What tables and texts take, by their own sizes.
    fn held(retired: &Retired) -> usize {
        let names = &retired.names;
        let tables = retired.rows.capacity() * (size_of::<(Numbered, Charged)>() + 1)
            + names.numbers.capacity() * (size_of::<(Arc<str>, u32)>() + 1)
            + names.names.capacity() * size_of::<(Arc<str>, u32)>();
        let frames: usize = retired.rows.keys().map(|row| size_of::<u32>() * row.frames.len() + 16).sum();
        let texts: usize = names.names.iter().map(|(name, _)| name.len() + 32).sum();
        tables + frames + texts
    }

    /// A fleet of processes with names of their own, whose deep stacks differ: what finds no room is summed and counted, and nothing is lost.
    #[test]
    fn deep_stacks_of_many_processes_stay_within_their_bytes() {
        let mut retired = Retired::default();
        let charged = Charged { bytes: 4096, variance: 1, samples: 1, ..Charged::default() };
        let functions: Vec<String> = (0..20_000).map(|n| format!("core::iter::adapters::map::Map<I,F>::fold_{n}")).collect();
        let row = |n: usize| Row {
            owner: n as u64 % 3,
            kind: 0,
            flags: 0,
            comm: format!("worker-{n}"),
            status: "complete".to_owned(),
            frames: (0..127).map(|depth| functions[(n * 127 + depth) % functions.len()].clone()).collect(),
        };
        for n in 0..100_000 {
            retired.add(row(n), charged);
        }
        assert!(retired.bytes() <= MOST_BYTES + 4096, "{}", retired.bytes());
        assert!(held(&retired) <= MOST_BYTES, "{}", held(&retired));
        let other = retired.rows(|_| true).filter(|(row, _)| row.comm == "[other]").count();
        assert_eq!((retired.len() - other) as u64 + retired.folded, 100_000);
        assert!(other == 3 && retired.folded > 10_000 && retired.len() > 10_000, "{} rows, {} folded", retired.len(), retired.folded);
        assert_eq!(retired.charges().map(|(_, _, charged)| charged.bytes).sum::<u64>(), 100_000 * 4096);
        // A row that is there takes no more room.
        let (first, folded) = (row(0), retired.folded);
        retired.add(first.clone(), charged);
        assert_eq!(
            (retired.rows(|_| true).find(|(found, _)| *found == first).map(|(_, sum)| sum.bytes), retired.folded),
            (Some(8192), folded)
        );
    }

    #[test]
    fn baseline_keys_stay() {
        let keys = HashMap::from([(1, key(0, 5, 5))]);
        let mut marks = Marks::default();
        marks.pass(&keys, &HashMap::new(), &HashMap::new(), &HashMap::new(), |_| true, 10 * SECOND);
        assert!(marks.pass(&keys, &HashMap::new(), &HashMap::new(), &HashMap::new(), |_| true, 20 * SECOND).keys.is_empty());
    }
}
