//! Retirement: keys of processes that are gone, with nothing live, leave the kernel's tables for totals kept here, so that
//! occupancy stays flat however many processes come and go.
//!
//! A key is marked when it is first seen without live bytes, and leaves only if it still has none after a grace period, since
//! a folio may wait in a CPU's batch. A charge that comes later makes the key again. Stacks and processes leave when no key
//! has named them for as long. Pure but for the clock values that come in.

use crate::{cgroup::registry::REMOVED, kernel_half::stack::Stack};
use std::collections::{HashMap, HashSet};
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
        // Those that leave too: until they are named, they need their stacks and process.
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
}

/// Totals of retired keys.
#[derive(Debug, Default)]
pub struct Retired {
    rows: HashMap<Row, Charged>,
    /// Keys whose row was folded because there were too many.
    pub folded: u64,
}

impl Retired {
    /// Adds one key's totals.
    pub fn add(&mut self, mut row: Row, charged: Charged) {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&row) {
            self.folded += 1;
            row.comm = "[other]".to_owned();
            row.status = "none".to_owned();
            row.frames = vec!["[other]".to_owned()];
        }
        let sum = self.rows.entry(row).or_default();
        sum.bytes += charged.bytes;
        sum.variance += charged.variance;
        sum.samples += charged.samples;
    }

    /// Sums the rows of these owners by kind and code, whoever they were; only those of `wanted` ones.
    pub fn fold(&mut self, owners: &HashSet<u64>, wanted: impl Fn(u64) -> bool) {
        let leaving: Vec<(Row, Charged)> = self.rows.extract_if(|row, _| owners.contains(&row.owner)).collect();
        for (row, charged) in leaving.into_iter().filter(|(row, _)| wanted(row.owner)) {
            self.add(Row { owner: REMOVED.0, ..row }, charged);
        }
        self.rows.shrink_to_fit();
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &Charged)> {
        self.rows.iter()
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
            first_ns: 0,
            last_ns: 0,
        };
        record.charged[0] = charged;
        record.uncharged[0] = uncharged;
        record
    }

    fn process(tgid: u32) -> ProcessRecord {
        ProcessRecord {
            start_ns: 0,
            first_seen_ns: 0,
            exec_id: 0,
            code_start: 0,
            mmap_base: 0,
            tgid,
            ns_tgid: 0,
            kernel_thread: 0,
            comm: [0; 16],
        }
    }

    fn stack() -> Stack {
        Stack { status: tracer_common::stack::StackStatus::Ended, frames: [].into() }
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
        let charged = Charged { bytes: 5, variance: 2, samples: 1 };
        let mut retired = Retired::default();
        for owner in [1, 2, 3, 4] {
            retired.add(row(owner, "web"), charged);
        }
        retired.add(row(1, "sh"), charged);
        retired.fold(&HashSet::from([1, 2, 3]), |owner| owner != 3);
        let of = |owner: u64, comm: &str| retired.rows.get(&row(owner, comm)).copied();
        assert_eq!(of(REMOVED.0, "web"), Some(Charged { bytes: 10, variance: 4, samples: 2 }));
        assert_eq!((of(REMOVED.0, "sh"), of(4, "web"), of(1, "web")), (Some(charged), Some(charged), None));
        assert_eq!(retired.rows.len(), 3, "nothing of what is not wanted");
    }

    #[test]
    fn baseline_keys_stay() {
        let keys = HashMap::from([(1, key(0, 5, 5))]);
        let mut marks = Marks::default();
        marks.pass(&keys, &HashMap::new(), &HashMap::new(), &HashMap::new(), |_| true, 10 * SECOND);
        assert!(marks.pass(&keys, &HashMap::new(), &HashMap::new(), &HashMap::new(), |_| true, 20 * SECOND).keys.is_empty());
    }
}
