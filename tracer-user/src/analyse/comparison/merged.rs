//! Equal stacks added up over processes and cgroups, for texts that show the largest.
//!
//! Keeps what tells stacks apart: program, kind, region, status and all frames.

use crate::report::Value;
use crate::report::{Cgroup, StackRow};
use std::collections::{BTreeMap, BTreeSet};

/// One stack of one or more processes.
#[derive(Clone, Debug)]
pub struct Merged<'a> {
    /// One of the rows: its kind, region, comm, status and frames are those of all.
    pub row: &'a StackRow,
    /// Bytes of all rows.
    pub bytes: u64,
    /// Standard error of live bytes, of their growth, or of those at the peak, of all rows; `None` for charged ones, whose error a row does not tell.
    pub stderr: Option<u64>,
    /// Processes, where known.
    pub pids: BTreeSet<u32>,
    /// Paths of the cgroups.
    pub cgroups: BTreeSet<&'a str>,
}

/// Adds up equal stacks of all rows with bytes; the largest first, then by frames, so that the order is stable.
pub fn merge<'a>(rows: impl Iterator<Item = (&'a Cgroup, &'a StackRow)>, value: Value) -> Vec<Merged<'a>> {
    let mut merged: BTreeMap<_, (Merged<'a>, f64)> = BTreeMap::new();
    for (cgroup, row) in rows.filter(|(_, row)| value.of(row) > 0) {
        let key = (&row.frames, &row.comm, &row.kind, &row.region, &row.status);
        let empty = || (Merged { row, bytes: 0, stderr: None, pids: BTreeSet::new(), cgroups: BTreeSet::new() }, 0.0);
        let (sum, variance) = merged.entry(key).or_insert_with(empty);
        sum.bytes = sum.bytes.saturating_add(value.of(row));
        sum.pids.extend(row.pid);
        sum.cgroups.insert(&cgroup.path);
        // Samples are independent, so variances add up.
        *variance += (value.stderr(row).unwrap_or(0) as f64).powi(2);
    }
    let finish = |(sum, variance): (Merged<'a>, f64)| {
        let stderr = (value != Value::Charged).then(|| variance.sqrt().round() as u64);
        Merged { stderr, ..sum }
    };
    let mut merged: Vec<Merged<'a>> = merged.into_values().map(finish).collect();
    merged.sort_by_key(|sum| std::cmp::Reverse(sum.bytes));
    merged
}

impl Merged<'_> {
    /// `java[4711]`, `java[3 processes]`, or `java` where no process is known.
    #[must_use]
    pub fn process(&self) -> String {
        match (self.pids.len(), self.pids.first()) {
            (1, Some(pid)) => format!("{}[{pid}]", self.row.comm),
            (0, _) => self.row.comm.clone(),
            (count, _) => format!("{}[{count} processes]", self.row.comm),
        }
    }

    /// `anon glibc-arena`, `file`.
    #[must_use]
    pub fn kind(&self) -> String {
        let StackRow { kind, region, .. } = self.row;
        if kind == "anon" && !region.is_empty() { format!("{kind} {region}") } else { kind.clone() }
    }
}
