//! Who made page cache dirty: summed in the kernel half by owner, file, process and stack, from folios that are taken by bytes. And who was
//! held up for it: all waits, by the task's own cgroup and process, under no file and no stack.

/// Under what dirtied bytes are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirtyKey {
    /// kernfs id of the memory cgroup that the folio is charged to.
    pub owner: u64,
    /// Identity of the file (see [`crate::file`]); 0 if it could not be read.
    pub file: u64,
    /// Identity of the process that made it dirty (see [`crate::process`]).
    pub process: u64,
    /// Identity of its user stack (see [`crate::stack`]); 0 for none.
    pub user_stack: u64,
}
crate::assert_size!(DirtyKey, 32);

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirtyRecord {
    /// Estimated bytes that went from clean to dirty: sums of weights.
    pub bytes: u64,
    /// Variance of `bytes`, in frames squared.
    pub variance: u64,
    /// Folios taken.
    pub samples: u64,
    /// Monotonic nanoseconds of the first.
    pub first_ns: u64,
    /// Monotonic nanoseconds of the last.
    pub last_ns: u64,
    /// Times that it was made to wait because too much was dirty.
    pub holds: u64,
    /// Nanoseconds of all of them.
    pub held_ns: u64,
}
crate::assert_size!(DirtyRecord, 56);

crate::plain_data!(DirtyKey, DirtyRecord);

impl DirtyRecord {
    /// Adds another's sums.
    pub fn add(&mut self, other: &DirtyRecord) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
        self.samples = self.samples.saturating_add(other.samples);
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.holds = self.holds.saturating_add(other.holds);
        self.held_ns = self.held_ns.saturating_add(other.held_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_records_add_up_and_span_both_times() {
        let one = DirtyRecord { bytes: 1, variance: 20, samples: 300, first_ns: 50, last_ns: 60, holds: 4000, held_ns: 50_000 };
        let other = DirtyRecord { bytes: 2, variance: 40, samples: 600, first_ns: 10, last_ns: 55, holds: 5000, held_ns: 70_000 };
        let sum = DirtyRecord { bytes: 3, variance: 60, samples: 900, first_ns: 10, last_ns: 60, holds: 9000, held_ns: 120_000 };
        for (mut left, right) in [(one, other), (other, one)] {
            left.add(&right);
            assert_eq!(left, sum);
        }
    }

    #[test]
    fn a_sum_too_large_stays_the_largest() {
        let most = DirtyRecord {
            bytes: u64::MAX,
            variance: u64::MAX,
            samples: u64::MAX,
            first_ns: 1,
            last_ns: 2,
            holds: u64::MAX,
            held_ns: u64::MAX,
        };
        let mut sum = most;
        sum.add(&most);
        assert_eq!(sum, most);
    }
}
