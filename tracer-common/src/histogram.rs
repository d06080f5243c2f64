//! Distributions that the kernel half keeps: what is measured, and into which bucket a value falls.
//!
//! Log-linear, as HdrHistogram is: every power of two has 64 buckets of equal width, so a bucket's bounds differ by at most 1/64 (1.6 %) of
//! its values, and values below 128 have a bucket of their own. A bucket that never occurs has no counter: one value of a cgroup takes one
//! entry of the table, a distribution over nine powers of ten at most two thousand.

/// Buckets of each power of two.
const SUB_BUCKETS: u32 = 1 << LOG2_SUB_BUCKETS;
const LOG2_SUB_BUCKETS: u32 = 6;

/// Buckets of all 64-bit values.
pub const BUCKETS: u32 = (64 - LOG2_SUB_BUCKETS) * SUB_BUCKETS + SUB_BUCKETS;

/// Threads that can wait for memory at once and be timed.
pub const WAITERS: u32 = 2048;

/// What is measured. The number is part of the table's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Metric {
    /// Nanoseconds that a task of the cgroup spent in one reclaim of a memory cgroup, whatever it was for: a charge, `memory.high`, kernel
    /// memory.
    ReclaimNs = 0,
    /// Nanoseconds from the first reclaim inside a call of `mem_cgroup_charge` to its return.
    ChargeStallNs = 1,
    /// Of these, nanoseconds outside reclaim, in calls that ran the OOM killer.
    ChargeOomNs = 2,
    /// Nanoseconds that a task was held up for being over `memory.high` (`mem_cgroup_handle_over_high`), its reclaim included.
    HighThrottleNs = 3,
    /// Size in bytes of what is charged at once, a folio. Counts are estimated from the samples.
    ChargeBytes = 4,
    /// Bytes of one mapping as asked for (`mmap`).
    MappingBytes = 5,
    /// Bytes by which one call grew the heap (`brk`).
    BrkBytes = 6,
    /// Nanoseconds from charge to uncharge. Counts are pages, estimated from the samples.
    LifetimeNs = 7,
    /// Nanoseconds that a task was made to wait because too much page cache was dirty (`balance_dirty_pages`), as the kernel told it to.
    DirtyThrottleNs = 8,
}

impl Metric {
    /// All, by number.
    pub const ALL: [Metric; 9] = [
        Metric::ReclaimNs,
        Metric::ChargeStallNs,
        Metric::ChargeOomNs,
        Metric::HighThrottleNs,
        Metric::ChargeBytes,
        Metric::MappingBytes,
        Metric::BrkBytes,
        Metric::LifetimeNs,
        Metric::DirtyThrottleNs,
    ];

    /// The metric of a number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Metric> {
        Metric::ALL.get(number as usize).copied()
    }

    /// Name in every output; it ends in the unit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Metric::ReclaimNs => "memcg_reclaim_ns",
            Metric::ChargeStallNs => "charge_stall_ns",
            Metric::ChargeOomNs => "charge_oom_ns",
            Metric::HighThrottleNs => "high_throttle_ns",
            Metric::ChargeBytes => "charge_bytes",
            Metric::MappingBytes => "mapping_bytes",
            Metric::BrkBytes => "brk_bytes",
            Metric::LifetimeNs => "lifetime_ns",
            Metric::DirtyThrottleNs => "dirty_throttle_ns",
        }
    }

    /// Whether values are bytes; else they are nanoseconds.
    #[must_use]
    pub const fn is_bytes(self) -> bool {
        matches!(self, Metric::ChargeBytes | Metric::MappingBytes | Metric::BrkBytes)
    }

    /// The value that stands for a bucket: of times the middle. Of sizes the lowest, since most are round numbers, which begin a bucket.
    #[must_use]
    pub const fn value(self, bucket: u32) -> u64 {
        if self.is_bytes() { lowest(bucket) } else { lowest(bucket) + width(bucket) / 2 }
    }
}

/// Under what a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct HistogramKey {
    /// kernfs id of the memory cgroup.
    pub owner: u64,
    /// Number of the [`Metric`].
    pub metric: u32,
    /// See [`bucket`].
    pub bucket: u32,
}
crate::assert_size!(HistogramKey, 16);
crate::plain_data!(HistogramKey);

/// The bucket of a value: below [`BUCKETS`], and larger for larger values.
#[inline(always)]
#[must_use]
pub const fn bucket(value: u64) -> u32 {
    // The place of the highest bit, at least that of the last value with a bucket of its own.
    let highest = 63 - (value | SUB_BUCKETS as u64).leading_zeros();
    let shift = highest - LOG2_SUB_BUCKETS;
    (shift << LOG2_SUB_BUCKETS) + (value >> shift) as u32
}

/// Smallest value of a bucket.
#[must_use]
pub const fn lowest(bucket: u32) -> u64 {
    let shift = shift_of(bucket);
    ((bucket - (shift << LOG2_SUB_BUCKETS)) as u64) << shift
}

/// Number of values in a bucket.
#[must_use]
pub const fn width(bucket: u32) -> u64 {
    1 << shift_of(bucket)
}

const fn shift_of(bucket: u32) -> u32 {
    (bucket >> LOG2_SUB_BUCKETS).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> impl Iterator<Item = u64> {
        let near = (0..64).flat_map(|power| [-1_i64, 0, 1].map(|off| (1_u64 << power).wrapping_add_signed(off)));
        let mut state = 1;
        let random = (0..100_000).map(move |n| {
            state = crate::mix64(state, n);
            state >> (n % 64)
        });
        near.chain(random).chain([u64::MAX])
    }

    #[test]
    fn every_value_is_within_its_bucket_and_within_its_error() {
        for value in values() {
            let bucket = bucket(value);
            assert!(bucket < BUCKETS, "{value}");
            assert!(lowest(bucket) <= value && value - lowest(bucket) < width(bucket), "{value} {bucket}");
            for metric in Metric::ALL {
                assert!(metric.value(bucket).abs_diff(value) as f64 <= value as f64 / 64.0, "{value} {metric:?}");
            }
        }
    }

    #[test]
    fn buckets_are_in_order_without_gaps() {
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
        for b in 1..BUCKETS {
            assert_eq!(lowest(b), lowest(b - 1) + width(b - 1), "{b}");
            assert_eq!((bucket(lowest(b)), bucket(lowest(b) - 1)), (b, b - 1));
        }
    }

    #[test]
    fn pages_stand_for_themselves() {
        for pages in 1..=64 {
            let bytes = pages * crate::FRAME_BYTES;
            assert_eq!(Metric::ChargeBytes.value(bucket(bytes)), bytes);
        }
    }

    #[test]
    fn numbers_and_names_are_distinct() {
        for (number, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(Metric::from_number(metric as u32), Some(metric));
            assert_eq!(metric as usize, number);
            assert_eq!(Metric::ALL.iter().filter(|other| other.name() == metric.name()).count(), 1);
            assert_eq!(metric.name().ends_with("_bytes"), metric.is_bytes());
        }
        assert_eq!(Metric::from_number(Metric::ALL.len() as u32), None);
    }
}
