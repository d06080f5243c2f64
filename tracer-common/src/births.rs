//! How coarsely a new cgroup is sampled while many are made. Alone it is worth many samples from its first page on; of hundreds a second that
//! live for as long as it takes to look at them each has some, and their sums are still right.

/// So many cgroups a second are made without a difference: a node that starts all its pods within seconds makes fewer.
pub const FREE_A_SECOND: u64 = 64;
/// With so many more than that, M of the next ones doubles.
pub const STEP: u64 = 32;
/// How often it doubles at most: the sums of ten thousand lives of a megabyte are still right to half a percent.
pub const MOST_DOUBLINGS: u64 = 2;

const SECOND_NS: u64 = 1_000_000_000;
const EACH_NS: u64 = SECOND_NS / FREE_A_SECOND;
const STEP_NS: u64 = STEP * EACH_NS;
/// What is remembered of a storm: it ends half a second after the last of it.
const MOST_NS: u64 = (MOST_DOUBLINGS + 1) * STEP_NS;

/// The pace at which cgroups are made; entry 0 of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Births {
    /// When as many would have been made at the free pace, monotonic nanoseconds.
    pub paid_ns: u64,
}
crate::assert_size!(Births, 8);
crate::plain_data!(Births);

impl Births {
    /// One is made now: how often the smallest M is doubled for it.
    #[inline(always)]
    pub fn doublings(&mut self, now_ns: u64) -> u32 {
        let ahead = self.paid_ns.wrapping_sub(now_ns);
        // Paid long ago, as a difference below 0.
        let ahead = if ahead as i64 <= 0 { 0 } else { ahead };
        let ahead = if ahead + EACH_NS > MOST_NS { MOST_NS } else { ahead + EACH_NS };
        self.paid_ns = now_ns.wrapping_add(ahead);
        let doublings = ahead / STEP_NS;
        (if doublings > MOST_DOUBLINGS { MOST_DOUBLINGS } else { doublings }) as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    const START_NS: u64 = 10 * SECOND_NS;

    /// `count` of them at that pace.
    fn made(births: &mut Births, from_ns: u64, a_second: u64, count: u64) -> Vec<u32> {
        (0..count).map(|n| births.doublings(from_ns + n * SECOND_NS / a_second)).collect()
    }

    #[test]
    fn what_a_node_starts_at_once_or_in_a_day_is_sampled_as_finely_as_one() {
        assert_eq!(made(&mut Births::default(), START_NS, 10_000, STEP - 1), [0; STEP as usize - 1]);
        assert!(made(&mut Births::default(), START_NS, FREE_A_SECOND, 100_000).iter().all(|doublings| *doublings == 0));
    }

    #[test]
    fn a_storm_grows_coarser_to_a_bound_and_ends() {
        let mut births = Births::default();
        let doublings = made(&mut births, START_NS, 400, 1000);
        assert!(doublings.is_sorted() && doublings[0] == 0);
        assert_eq!(u64::from(doublings[999]), MOST_DOUBLINGS);
        // 336 a second too many: a step each 38.
        assert_eq!(doublings.iter().position(|n| *n == 1), Some(37));
        let end_ns = START_NS + 1000 * SECOND_NS / 400;
        let later = |seconds_64th: u64| births.clone().doublings(end_ns + seconds_64th * SECOND_NS / 64);
        assert_eq!([0, 32, 33, 65, 97].map(later), [2, 2, 1, 0, 0]);
    }

    #[test]
    fn no_clock_makes_it_fail() {
        for now_ns in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut births = Births { paid_ns: 77 };
            births.doublings(now_ns);
            assert_eq!(births.doublings(now_ns), 0);
        }
    }
}
