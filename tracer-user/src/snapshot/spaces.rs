//! Who mapped the address space of the processes that were looked into, and what each stack asked for since the start.

use crate::report::MappingSummary;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tracer_common::mapping::{Change, MappingRecord};

/// A range, and who mapped it or made it accessible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedRange {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Identity of the user stack; 0 for none.
    pub stack: u64,
    /// By which call.
    pub change: Change,
    /// Thread.
    pub tid: u32,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
}

/// The address space of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Identity of the process.
    pub process: u64,
    /// Who mapped it, by address, disjoint; what was there before the process was followed is not among it.
    pub mapped: Vec<MappedRange>,
    /// Who made it accessible afterwards, by address, disjoint.
    pub opened: Vec<MappedRange>,
}

/// What is known of address spaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spaces {
    /// Of the processes that were looked into, by thread-group id.
    pub processes: HashMap<u32, Space>,
    /// What was asked for, by identity of who did.
    pub records: HashMap<u64, MappingRecord>,
    /// How far that goes.
    pub summary: MappingSummary,
}

/// The pieces of sorted, disjoint `ranges` that lie between two addresses, cut to them.
pub fn between(ranges: &[MappedRange], start: u64, end: u64) -> impl Iterator<Item = MappedRange> + '_ {
    let first = ranges.partition_point(move |range| range.end <= start);
    let within = ranges[first..].iter().take_while(move |range| range.start < end);
    within.map(move |range| MappedRange { start: range.start.max(start), end: range.end.min(end), ..*range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_to_what_was_asked_for() {
        let range = |start, end| MappedRange { start, end, stack: start, change: Change::Mapped, tid: 1, at_ns: 0 };
        let ranges = [range(10, 20), range(20, 30), range(40, 50)];
        let of = |start, end| between(&ranges, start, end).map(|piece| (piece.start, piece.end)).collect::<Vec<_>>();
        assert_eq!(of(15, 45), [(15, 20), (20, 30), (40, 45)]);
        assert_eq!(of(30, 40), []);
        assert_eq!(of(0, 100).len(), 3);
        assert_eq!(of(50, 60), []);
    }
}
