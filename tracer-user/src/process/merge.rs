//! Puts the records of several CPUs in the order of their times. Pure: time is an argument.

use super::event::ProcessEvent;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most events held back; beyond it the oldest are let go early and counted.
const MAX_PENDING: usize = 65_536;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    at_ns: u64,
    sequence: u64,
}

struct Held(Order, ProcessEvent);

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.0 == other.0
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Events waiting until no earlier one can arrive any more.
#[derive(Default)]
pub struct Merge {
    held: BinaryHeap<Reverse<Held>>,
    sequence: u64,
    released_ns: u64,
    late: u64,
    early: u64,
}

impl Merge {
    /// Takes an event. Events of equal time keep the order in which they came.
    pub fn push(&mut self, event: ProcessEvent) {
        if event.at_ns < self.released_ns {
            self.late += 1;
        }
        self.sequence += 1;
        self.held.push(Reverse(Held(Order { at_ns: event.at_ns, sequence: self.sequence }, event)));
    }

    /// Gives out, in order, the events up to `until_ns`, and as many more as are over the bound.
    pub fn release(&mut self, until_ns: u64, mut each: impl FnMut(ProcessEvent)) {
        while let Some(Reverse(Held(order, _))) = self.held.peek() {
            let due = order.at_ns <= until_ns;
            if !due && self.held.len() <= MAX_PENDING {
                break;
            }
            self.early += u64::from(!due);
            if let Some(Reverse(Held(order, event))) = self.held.pop() {
                self.released_ns = self.released_ns.max(order.at_ns);
                each(event);
            }
        }
        self.released_ns = self.released_ns.max(until_ns);
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Events that came after later ones had been given out.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Events given out before their time, because too many waited.
    #[must_use]
    pub fn early(&self) -> u64 {
        self.early
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::event::Change;

    fn exit(at_ns: u64, tgid: u32) -> ProcessEvent {
        ProcessEvent { at_ns, change: Change::Exit { tgid, tid: tgid } }
    }

    fn released(merge: &mut Merge, until: u64) -> Vec<u64> {
        let mut times = vec![];
        merge.release(until, |event| times.push(event.at_ns));
        times
    }

    #[test]
    fn two_cpus_are_merged() {
        let mut merge = Merge::default();
        for at in [10, 30, 50, 20, 40, 60] {
            merge.push(exit(at, 1));
        }
        assert_eq!(released(&mut merge, 45), [10, 20, 30, 40]);
        assert_eq!(released(&mut merge, 100), [50, 60]);
        assert_eq!((merge.late(), merge.early()), (0, 0));
    }

    #[test]
    fn equal_times_keep_their_order_and_late_ones_are_counted() {
        let mut merge = Merge::default();
        merge.push(exit(10, 1));
        merge.push(exit(10, 2));
        let mut tgids = vec![];
        merge.release(10, |event| {
            if let Change::Exit { tgid, .. } = event.change {
                tgids.push(tgid);
            }
        });
        assert_eq!(tgids, [1, 2]);
        merge.push(exit(5, 3));
        assert_eq!(merge.late(), 1);
        assert_eq!(released(&mut merge, 10), [5]);
    }

    #[test]
    fn the_bound_holds() {
        let mut merge = Merge::default();
        for at in 0..(MAX_PENDING as u64 + 10) {
            merge.push(exit(1000 + at, 1));
        }
        assert_eq!(released(&mut merge, 0).len(), 10);
        assert_eq!(merge.early(), 10);
    }
}
