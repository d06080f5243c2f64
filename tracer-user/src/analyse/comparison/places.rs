//! What changed in files and in regions of anonymous memory: live bytes on both sides, by cgroup. Pure.
//!
//! Files are the same if cgroup, kind and path are; regions if cgroup, program and class are, summed over processes. A report's row for all
//! further files is left out: what it stands for differs from report to report.

use super::{Change, Side, change};
use crate::report::{OTHER, Value};
use std::collections::BTreeMap;

/// What changed in one file, or in the regions of one class of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceChange {
    /// Path of the cgroup.
    pub cgroup: String,
    /// Kind of the file, or class of the regions.
    pub class: String,
    /// Path of the file, or the program's name.
    pub name: String,
    /// Live bytes.
    pub change: Change,
}

type Sums = BTreeMap<(String, String, String), Change>;

/// Files whose live bytes differ, largest change first. Charged bytes have no file: then there are none.
pub(super) fn files(sides: &[Side<'_>; 2]) -> Vec<PlaceChange> {
    let mut sums = Sums::new();
    for (index, side) in sides.iter().enumerate().filter(|(_, side)| !matches!(side.value, Value::Charged | Value::Peak)) {
        for cgroup in &side.report.cgroups {
            let path = side.path(cgroup);
            for file in cgroup.files.iter().filter(|file| file.path != OTHER) {
                let key = (path.clone().into_owned(), file.kind.clone(), file.path.clone());
                sums.entry(key).or_default().add(change(index, side.figure(file.live, file.live_stderr)));
            }
        }
    }
    changed(sums)
}

/// Regions likewise.
pub(super) fn regions(sides: &[Side<'_>; 2]) -> Vec<PlaceChange> {
    let mut sums = Sums::new();
    for (index, side) in sides.iter().enumerate().filter(|(_, side)| !matches!(side.value, Value::Charged | Value::Peak)) {
        for cgroup in &side.report.cgroups {
            let path = side.path(cgroup);
            for region in &cgroup.regions {
                let key = (path.clone().into_owned(), region.class.clone(), region.comm.clone());
                sums.entry(key).or_default().add(change(index, side.figure(region.live, region.live_stderr)));
            }
        }
    }
    changed(sums)
}

fn changed(sums: Sums) -> Vec<PlaceChange> {
    let rows = sums.into_iter().filter(|(_, change)| change.bytes() != 0);
    let mut rows: Vec<PlaceChange> = rows.map(|((cgroup, class, name), change)| PlaceChange { cgroup, class, name, change }).collect();
    // Equal ones stay in the order of their names.
    rows.sort_by_key(|row| std::cmp::Reverse(row.change.bytes().unsigned_abs()));
    rows
}
