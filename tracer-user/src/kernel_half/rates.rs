//! How finely each cgroup is sampled: a small one more finely than the host, so that it has samples enough, and within the room that
//! the sample table has. Pure.
//!
//! The kernel half doubles an owner's M with every so many samples, so the room holds however fast owners grow and whether or not
//! anybody looks; looking only says where they stand now.

/// Smallest M: 64 KiB. Below it stack walks, not probes, make the cost.
const FINEST_LOG2: u32 = 16;
/// Most and fewest samples, as log2, after which an owner's M doubles. With fewer the errors say nothing.
const MOST_LOG2_STEP: u32 = 8;
const FEWEST_LOG2_STEP: u32 = 4;

/// The range of M, and how an owner moves in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// log2 of the smallest M.
    pub log2_finest: u32,
    /// log2 of the largest M, which is that of the whole host.
    pub log2_coarsest: u32,
    /// log2 of the samples after which an owner's M doubles.
    pub log2_step: u32,
}

impl Rates {
    /// One M for all.
    #[must_use]
    pub fn one(log2_mean: u32) -> Rates {
        Rates { log2_finest: log2_mean, log2_coarsest: log2_mean, log2_step: MOST_LOG2_STEP }
    }

    /// For so many owners, a host whose M is `log2_mean`, and a table for so many samples: half of it is for samples beyond those
    /// that the host's M alone would take.
    #[must_use]
    pub fn plan(owners: u32, log2_mean: u32, samples: u32) -> Rates {
        // As many again may come.
        let owners = u64::from(owners.max(8)) * 2;
        let room = u64::from(samples) / 2;
        for log2_finest in FINEST_LOG2..log2_mean {
            let levels = u64::from(log2_mean - log2_finest);
            let step = room / (owners * levels);
            if step >= 1 << FEWEST_LOG2_STEP {
                return Rates { log2_finest, log2_coarsest: log2_mean, log2_step: step.ilog2().min(MOST_LOG2_STEP) };
            }
        }
        Rates::one(log2_mean)
    }

    /// Whether owners differ.
    #[must_use]
    pub fn differ(&self) -> bool {
        self.log2_finest < self.log2_coarsest
    }

    /// log2 of M for an owner of that many bytes: it has between one and two steps of samples, as far as the range allows.
    #[must_use]
    pub fn log2_mean(&self, bytes: u64) -> u32 {
        (bytes >> self.log2_step).max(1).ilog2().clamp(self.log2_finest, self.log2_coarsest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_container_has_two_hundred_samples_on_a_large_host() {
        // 24 GiB, 128 GiB and 1 TiB of RAM; the range of M on the last one costs some.
        for (log2_mean, least) in [(20, 200), (22, 200), (25, 150)] {
            let rates = Rates::plan(5, log2_mean, 1 << 16);
            let samples = (20 * MIB) >> rates.log2_mean(20 * MIB);
            assert!(samples >= least, "{log2_mean}: {samples}, {rates:?}");
        }
    }

    #[test]
    fn what_is_taken_beyond_the_hosts_m_never_fills_more_than_half_of_the_table() {
        for owners in [0, 1, 10, 300, 4096, 60_000] {
            for log2_mean in 16..30 {
                for samples in [1 << 12, 1 << 16] {
                    let rates = Rates::plan(owners, log2_mean, samples);
                    let most = (u64::from(owners) * u64::from(rates.log2_coarsest - rates.log2_finest)) << rates.log2_step;
                    assert!(most <= u64::from(samples) / 2, "{owners} {log2_mean} {samples}: {rates:?}");
                    assert_eq!(rates.log2_coarsest, log2_mean);
                }
            }
        }
    }

    #[test]
    fn many_owners_share_the_room_and_too_many_have_the_hosts_m() {
        let steps: Vec<u32> = [1, 100, 200].map(|owners| Rates::plan(owners, 20, 1 << 16).log2_step).to_vec();
        assert_eq!(steps, [8, 5, 4]);
        assert!(!Rates::plan(60_000, 20, 1 << 16).differ());
        assert!(!Rates::plan(1, 16, 1 << 16).differ());
    }

    #[test]
    fn m_grows_with_the_owner_and_stays_in_its_range() {
        let rates = Rates::plan(1, 20, 1 << 16);
        let means: Vec<u32> = [0, MIB, 20 * MIB, 64 * MIB, 200 * MIB, 1 << 40].map(|bytes| rates.log2_mean(bytes)).to_vec();
        assert_eq!(means, [16, 16, 16, 18, 19, 20]);
    }
}
