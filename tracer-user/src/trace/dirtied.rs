//! Who made page cache dirty, of those that left the kernel half's table so that it has room: kept by file and process, without stacks. Pure.

use crate::{cgroup::registry::REMOVED, report::OTHER};
use std::collections::{HashMap, HashSet};
use tracer_common::dirty::{DirtyKey, DirtyRecord};

/// How long an entry must have been idle to leave, nanoseconds.
const IDLE_NS: u64 = 3_000_000_000;
/// Most rows; what is beyond them is summed by owner.
const MOST_ROWS: usize = 1 << 14;

/// Whose bytes a row has: owner, file, and the process with its name then; 0 and "[other]" where rows were summed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Owner.
    pub owner: u64,
    /// Identity of the file.
    pub file: u64,
    /// Thread-group id on the host; `None` where it was never known.
    pub tgid: Option<u32>,
    /// Name of the thread-group leader.
    pub comm: String,
}

impl Row {
    /// What is summed of an owner.
    pub fn other(owner: u64) -> Row {
        Row { owner, file: 0, tgid: None, comm: OTHER.to_owned() }
    }
}

/// The rows.
#[derive(Debug, Default)]
pub struct Dirtied {
    rows: HashMap<Row, DirtyRecord>,
}

impl Dirtied {
    /// Which entries are to leave a table for `room` that is more than half full: all idle ones.
    #[must_use]
    pub fn leaving(table: &HashMap<DirtyKey, DirtyRecord>, room: usize, now_ns: u64) -> Vec<DirtyKey> {
        if table.len() < room / 2 {
            return Vec::new();
        }
        table.iter().filter(|(_, record)| now_ns.saturating_sub(record.last_ns) > IDLE_NS).map(|(key, _)| *key).collect()
    }

    /// Adds an entry that left.
    pub fn add(&mut self, mut row: Row, record: &DirtyRecord) {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&row) {
            row = Row::other(row.owner);
        }
        self.rows.entry(row).and_modify(|sum| sum.add(record)).or_insert(*record);
    }

    /// Sums the rows of these owners, whoever they were; only those of `wanted` ones.
    pub fn fold(&mut self, owners: &HashSet<u64>, wanted: impl Fn(u64) -> bool) {
        let leaving: Vec<(Row, DirtyRecord)> = self.rows.extract_if(|row, _| owners.contains(&row.owner)).collect();
        for (_, record) in leaving.into_iter().filter(|(row, _)| wanted(row.owner)) {
            self.add(Row::other(REMOVED.0), &record);
        }
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &DirtyRecord)> {
        self.rows.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn record(bytes: u64, first: u64, last: u64) -> DirtyRecord {
        DirtyRecord { bytes, variance: 1, samples: 1, first_ns: first * SECOND, last_ns: last * SECOND, holds: 1, held_ns: bytes }
    }

    fn row(owner: u64, file: u64) -> Row {
        Row { owner, file, tgid: Some(7), comm: "dd".into() }
    }

    #[test]
    fn only_idle_entries_of_a_full_table_leave() {
        let key = |file| DirtyKey { owner: 1, file, process: 2, user_stack: 3 };
        let table = HashMap::from([(key(1), record(5, 1, 2)), (key(2), record(5, 1, 9))]);
        assert!(Dirtied::leaving(&table, 8, 10 * SECOND).is_empty());
        assert_eq!(Dirtied::leaving(&table, 4, 10 * SECOND), [key(1)]);
    }

    #[test]
    fn rows_add_up_and_beyond_the_bound_by_owner() {
        let mut dirtied = Dirtied::default();
        dirtied.add(row(1, 1), &record(5, 4, 5));
        dirtied.add(row(1, 1), &record(6, 2, 3));
        let sum = dirtied.rows().next().map(|(_, record)| *record).unwrap_or_default();
        assert_eq!(
            sum,
            DirtyRecord { bytes: 11, variance: 2, samples: 2, first_ns: 2 * SECOND, last_ns: 5 * SECOND, holds: 2, held_ns: 11 }
        );
        for file in 0..MOST_ROWS as u64 + 10 {
            dirtied.add(row(9, file), &record(1, 1, 1));
        }
        assert!(dirtied.rows().count() <= MOST_ROWS + 2);
        dirtied.fold(&HashSet::from([1]), |_| true);
        assert_eq!(dirtied.rows.get(&Row::other(REMOVED.0)).map(|record| record.bytes), Some(11));
        let of_nine = dirtied.rows().filter(|(row, _)| row.owner == 9).map(|(_, record)| record.bytes).sum::<u64>();
        assert_eq!(of_nine, MOST_ROWS as u64 + 10);
    }
}
