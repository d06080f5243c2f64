//! The sampling decision: which folios get a stack walk and a record, and what weight each stands for.
//!
//! A folio of `size` bytes is taken with probability p = min(1, size / M) and then stands for `max(size, M)` bytes
//! (Horvitz and Thompson 1952), so that sums over taken folios are unbiased for charged and, since a record lives as long as its
//! folio, for live bytes. M, the mean distance in bytes between two samples, is a power of two.
//!
//! Drawing a random number for every folio would cost more than the rest of the decision, so each CPU keeps, for every folio
//! order, how many folios of that order are still to be passed over: a geometrically distributed gap, drawn anew only when a
//! sample is taken. For Bernoulli trials that is the same process, trial by trial, not an approximation of it. One counter per
//! order, because p depends on the order.

use crate::FRAME_BYTES;

/// Folio orders with a countdown of their own; larger folios are taken always. 2^11 frames are 8 MiB: the largest
/// page-cache folio (ext4 since 6.16 goes to MAX_XAS_ORDER, 11, where huge pages do not bound it).
pub const ORDERS: usize = 12;

/// Length of the countdown table: [`ORDERS`] rounded up to a power of two.
const GAPS: usize = 16;

/// Smallest permitted log2 of M: every 4 KiB frame is taken.
pub const MIN_LOG2_MEAN: u32 = 12;
/// Largest permitted log2 of M: 1 GiB.
pub const MAX_LOG2_MEAN: u32 = 30;

/// Sampler state of one CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sampler {
    /// State of the xorshift64* generator; never zero once seeded. Zero means: seed before use.
    pub random: u64,
    /// Folios of each order still to be passed over. Longer than needed: a masked index is a bound that the verifier sees.
    pub gap: [u32; GAPS],
    /// Number of samples taken by countdown.
    pub taken: u64,
}
crate::assert_size!(Sampler, 8 + 4 * 16 + 8);
crate::plain_data!(Sampler);

impl Sampler {
    /// A sampler seeded from `seed`.
    #[must_use]
    pub fn seeded(seed: u64, log2_mean: u32) -> Self {
        let mut sampler = Sampler { random: 0, gap: [0; GAPS], taken: 0 };
        sampler.seed(seed, log2_mean);
        sampler
    }

    /// Seeds this sampler; the first gaps are drawn like all later ones.
    pub fn seed(&mut self, seed: u64, log2_mean: u32) {
        self.seed_random(seed);
        for order in 0..ORDERS as u32 {
            self.redraw(order, log2_mean);
        }
    }

    /// Seeds the generator alone; each order's gap must be drawn then.
    #[inline(always)]
    pub fn seed_random(&mut self, seed: u64) {
        self.random = crate::mix64(seed, 1) | 1;
    }

    /// Whether the folio of 2^`order` frames is taken. `log2_mean` is the log2 of M in bytes.
    #[inline(always)]
    pub fn take(&mut self, order: u32, log2_mean: u32) -> bool {
        if always_taken(order, log2_mean) {
            return true;
        }
        let taken = self.count_down(order);
        if taken {
            self.redraw(order, log2_mean);
        }
        taken
    }

    /// Counts one folio of that order; whether it is the one to be taken. Then the next gap must be drawn.
    #[inline(always)]
    pub fn count_down(&mut self, order: u32) -> bool {
        let slot = order as usize & (GAPS - 1);
        let gap = self.gap[slot];
        if gap > 0 {
            self.gap[slot] = gap - 1;
        }
        gap == 0
    }

    /// Draws the next gap of that order.
    #[inline(always)]
    pub fn redraw(&mut self, order: u32, log2_mean: u32) {
        self.gap[order as usize & (GAPS - 1)] = self.next_gap(order, log2_mean);
        self.taken = self.taken.wrapping_add(1);
    }

    /// 64 random bits (xorshift64*, Vigna 2016).
    #[inline(always)]
    pub fn next_random(&mut self) -> u64 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Folios to pass over until the next one is taken: geometric with success probability p = 2^-k,
    /// k = log2 M - 12 - order, by inversion: floor(log2(U) / log2(1 - p)).
    #[inline(always)]
    fn next_gap(&mut self, order: u32, log2_mean: u32) -> u32 {
        let k = log2_mean.saturating_sub(MIN_LOG2_MEAN + order);
        if k == 0 {
            return 0;
        }
        let negative_log2 = negative_log2_q32(self.next_random());
        let step = GAP_STEP_Q40[(k & 31) as usize];
        let gap = (negative_log2 << 8) / if step == 0 { 1 } else { step };
        if gap > u32::MAX as u64 { u32::MAX } else { gap as u32 }
    }
}

/// Whether every folio of that order is taken: it is at least M long, or has no countdown.
#[inline(always)]
#[must_use]
pub const fn always_taken(order: u32, log2_mean: u32) -> bool {
    order + MIN_LOG2_MEAN >= log2_mean || order >= ORDERS as u32
}

/// Weight in bytes of each frame of a taken folio of 2^`order` frames. A folio's weight is this times its frames, exactly,
/// so that a split folio's pieces can be given back one by one without rounding.
#[inline(always)]
#[must_use]
pub const fn weight_per_frame(order: u32, log2_mean: u32) -> u64 {
    if always_taken(order, log2_mean) { FRAME_BYTES } else { 1 << (log2_mean - order) }
}

/// Thins a taken folio of 2^`order` frames for an owner whose M is `log2_mean`: its weight per frame from now on, or 0 if it is let go.
/// `weight` is what each of its frames stands for so far. One that stands for as much already is kept as it is.
///
/// Whatever the weight and M come from, also if M follows the samples kept so far: each step keeps a folio with the old weight over the
/// new one, so what a kept one stands for stays right on average.
#[inline(always)]
#[must_use]
pub const fn thinned(weight: u64, order: u32, log2_mean: u32, random: u64) -> u64 {
    let wanted = weight_per_frame(order, log2_mean);
    if wanted <= weight {
        return weight;
    }
    // Both are powers of two. The generator's lowest bits are its worst.
    if random >> 24 & (wanted - 1) < weight { wanted } else { 0 }
}

/// -log2(u / 2^64) in Q32, for u > 0, by the leading zeros and a table of 512 intervals with linear interpolation
/// (error below 2^-20). u = 0 counts as 1.
#[inline(always)]
fn negative_log2_q32(u: u64) -> u64 {
    let u = if u == 0 { 1 } else { u };
    let zeros = leading_zeros(u);
    // 1.fraction, normalised so that bit 63 is the integer part.
    let mantissa = u << (zeros & 63);
    let index = ((mantissa >> 54) & 511) as usize;
    let rest = (mantissa >> 22) & 0xffff_ffff;
    let low = LOG2_Q32[index & 511];
    let high = LOG2_Q32[(index & 511) + 1];
    let fraction = low + (((high - low) * (rest >> 8)) >> 24);
    // log2(u / 2^64) = 63 - zeros + fraction - 64
    ((u64::from(zeros) + 1) << 32) - fraction
}

/// Leading zeros of a non-zero word, by halving: the BPF instruction set has no such instruction and LLVM's expansion is longer.
#[inline(always)]
const fn leading_zeros(u: u64) -> u32 {
    let mut u = u;
    let mut zeros = 0;
    if u >> 32 == 0 {
        zeros += 32;
        u <<= 32;
    }
    if u >> 48 == 0 {
        zeros += 16;
        u <<= 16;
    }
    if u >> 56 == 0 {
        zeros += 8;
        u <<= 8;
    }
    if u >> 60 == 0 {
        zeros += 4;
        u <<= 4;
    }
    if u >> 62 == 0 {
        zeros += 2;
        u <<= 2;
    }
    if u >> 63 == 0 {
        zeros += 1;
    }
    zeros
}

/// log2(1 + i/512) in Q32 for i in 0..=512.
static LOG2_Q32: [u64; 513] = {
    let mut table = [0; 513];
    let mut i = 0;
    while i <= 512 {
        table[i] = log2_q32(512 + i as u64) - (9 << 32);
        i += 1;
    }
    table
};

/// -log2(1 - 2^-k) in Q40 for k in 0..32 (k = 0 is unused, its value is infinite).
static GAP_STEP_Q40: [u64; 32] = {
    let mut table = [0; 32];
    let mut k = 1;
    while k < 32 {
        table[k] = step_q40(k as u32);
        k += 1;
    }
    table
};

/// log2 of an integer 1 <= x < 2^32 in Q32, bit by bit: square, and halve when the square reaches two.
const fn log2_q32(x: u64) -> u64 {
    let integer = 63 - x.leading_zeros() as u64;
    // The value in [1, 2) with 62 fraction bits.
    let mut mantissa = (x as u128) << (62 - integer);
    let mut fraction = 0_u64;
    let mut bit = 0;
    while bit < 32 {
        mantissa = (mantissa * mantissa) >> 62;
        fraction <<= 1;
        if mantissa >> 63 != 0 {
            fraction |= 1;
            mantissa >>= 1;
        }
        bit += 1;
    }
    (integer << 32) | fraction
}

/// -log2(1 - 2^-k) in Q40, rounded: (2^-k + 2^-2k/2 + 2^-3k/3 + ...) / ln 2.
const fn step_q40(k: u32) -> u64 {
    // 1 / ln 2 in Q62, and the series in Q62.
    const INV_LN2_Q62: u128 = 6_653_256_548_922_161_246;
    let mut series: u128 = 0;
    let mut n = 1_u32;
    while n <= 62 {
        if n * k >= 62 {
            break;
        }
        series += (1_u128 << (62 - n * k)) / n as u128;
        n += 1;
    }
    let product = (series * INV_LN2_Q62) >> 62;
    ((product + (1 << 21)) >> 22) as u64
}

#[cfg(test)]
#[path = "sampling_simulation_tests.rs"]
mod simulations;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn thinning_never_takes_from_what_stands_for_enough() {
        // A huge page, and a sample that was thinned already.
        assert_eq!(thinned(FRAME_BYTES, 9, 20, u64::MAX), FRAME_BYTES);
        assert_eq!(thinned(1 << 20, 0, 18, u64::MAX), 1 << 20);
        assert_eq!(thinned(1 << 16, 0, 20, u64::MAX), 0);
        assert_eq!(thinned(1 << 16, 0, 20, 0), 1 << 20);
    }

    #[test]
    fn a_weight_is_whole_for_each_frame() {
        for log2_mean in MIN_LOG2_MEAN..=MAX_LOG2_MEAN {
            for order in 0..=10 {
                let weight = weight_per_frame(order, log2_mean) << order;
                assert_eq!(weight, (FRAME_BYTES << order).max(1 << log2_mean));
            }
        }
    }

    #[test]
    fn what_is_at_least_m_long_or_has_no_countdown_is_always_taken() {
        let orders_counted = |log2_mean| (0..20).filter(|order| !always_taken(*order, log2_mean)).count();
        // Frames are of 2^12 bytes. Of 1 MiB: orders 0 to 7. Of 1 GiB: all that have a countdown.
        assert_eq!([12, 13, 20, 23, 24, 30].map(orders_counted), [0, 1, 8, 11, 12, ORDERS]);
        for order in 0..20 {
            let always = always_taken(order, 20);
            let mut sampler = Sampler { random: 1, gap: [1; GAPS], taken: 0 };
            assert_eq!(sampler.take(order, 20), always, "order {order} with one to pass over");
            assert_eq!(weight_per_frame(order, 20) == FRAME_BYTES, always, "order {order}: what is certain stands for itself");
        }
    }

    #[test]
    fn each_order_counts_down_for_itself() {
        let mut sampler = Sampler { random: 1, gap: core::array::from_fn(|order| order as u32), taken: 0 };
        for order in 0..ORDERS as u32 {
            let before = sampler.gap;
            let passed_over = (0..100).take_while(|_| !sampler.count_down(order)).count();
            assert_eq!(passed_over, order as usize, "as many are passed over as the gap says");
            assert!(sampler.count_down(order), "the one to be taken is so until a gap is drawn");
            let mut expected = before;
            expected[order as usize] = 0;
            assert_eq!(sampler.gap, expected, "order {order} counts for others");
        }
        for order in 0..ORDERS as u32 {
            let mut sampler = Sampler { random: 1, gap: [u32::MAX; GAPS], taken: 0 };
            sampler.redraw(order, MAX_LOG2_MEAN);
            let drawn: Vec<usize> = (0..GAPS).filter(|at| sampler.gap[*at] != u32::MAX).collect();
            assert_eq!(drawn, [order as usize], "a gap is drawn for that order alone");
        }
    }

    #[test]
    fn a_gap_depends_on_the_probability_alone_and_is_geometric() {
        const DRAWS: u32 = 20_000;
        for k in 1..=MAX_LOG2_MEAN - MIN_LOG2_MEAN {
            let mut sampler = Sampler::seeded(u64::from(k), 20);
            let (mut sum, mut short) = (0.0, 0);
            for _ in 0..DRAWS {
                let mut of_order_2 = sampler;
                let gap = sampler.next_gap(0, MIN_LOG2_MEAN + k);
                assert_eq!(of_order_2.next_gap(2, MIN_LOG2_MEAN + k + 2), gap, "folios four times as large, M four times as large");
                sum += f64::from(gap);
                // As many as M has frames: shorter with 1 - (1 - p)^(1/p).
                short += u32::from(gap < 1 << k);
            }
            let (mean, n) = (f64::from(1_u32 << k), f64::from(DRAWS));
            assert!((sum / n - (mean - 1.0)).abs() < 4.0 * mean / n.sqrt(), "k {k}: {} are passed over on average", sum / n);
            let expected = 1.0 - (1.0 - 1.0 / mean).powf(mean);
            assert!(
                (f64::from(short) / n - expected).abs() < 2.0 / n.sqrt(),
                "k {k}: {short} gaps are shorter than M, {expected} of all should be"
            );
        }
    }

    #[test]
    fn a_gap_too_long_for_its_counter_is_the_longest_and_not_a_short_one() {
        // No M that is permitted comes near it. With one in 2^31 a word of three leading zeros is a gap of more than 2^32.
        let mut sampler = Sampler::seeded(9, 20);
        let gaps = [(); 1000].map(|()| {
            let mut drawn = sampler;
            (drawn.next_random().leading_zeros(), sampler.next_gap(0, MIN_LOG2_MEAN + 31))
        });
        assert!(gaps.iter().all(|(zeros, gap)| *zeros < 3 || *gap == u32::MAX), "{gaps:?}");
        assert!(gaps.iter().all(|(zeros, gap)| *zeros > 1 || *gap < u32::MAX), "{gaps:?}");
    }

    #[test]
    fn with_one_in_two_a_gap_is_a_run_of_a_coin() {
        let mut sampler = Sampler::seeded(5, 20);
        for _ in 0..10_000 {
            let mut tossed = sampler;
            assert_eq!(sampler.next_gap(0, 13), tossed.next_random().leading_zeros(), "a bit a toss, from the highest on");
            assert_eq!(sampler.next_gap(1, 13), 0, "nothing is passed over of what is as long as M");
        }
    }

    #[test]
    fn the_generator_is_the_published_one_and_never_starts_at_its_fixed_point() {
        let mut sampler = Sampler { random: 1, gap: [0; GAPS], taken: 0 };
        let given = [(); 3].map(|()| sampler.next_random());
        assert_eq!(given, [0x47e4_ce4b_896c_dd1d, 0xabcf_a6a8_e079_651d, 0xb9d1_0d8f_eb73_1f57]);
        let mut states: Vec<u64> = (0..1000)
            .map(|seed| {
                sampler.seed_random(seed);
                sampler.random
            })
            .collect();
        assert!(states.iter().all(|state| state & 1 == 1), "an odd state is not 0");
        states.sort_unstable();
        states.dedup();
        assert_eq!(states.len(), 1000, "CPUs with other seeds draw other numbers");
    }

    #[test]
    fn thinning_keeps_exactly_the_old_weight_over_the_new_one() {
        // From 4 KiB to 64 KiB a frame: one in sixteen, whatever the bits are that do not decide.
        for rest in [0, u64::MAX] {
            let kept = (0..1_u64 << 16).filter(|n| {
                let random = n << 24 | rest & !(0xffff << 24);
                let weight = thinned(FRAME_BYTES, 0, 16, random);
                assert!(weight == 0 || weight == 1 << 16);
                weight != 0
            });
            assert_eq!(kept.count(), 1 << 12);
        }
    }

    #[test]
    fn leading_zeros_are_counted_as_the_processor_does() {
        for highest in 0..64 {
            for below in [0, 1, u64::MAX / 3, u64::MAX] {
                let word = 1 << highest | below & ((1 << highest) - 1);
                assert_eq!(leading_zeros(word), word.leading_zeros(), "{word:x}");
            }
        }
    }

    #[test]
    fn the_logarithm_of_a_power_of_two_is_whole_and_that_of_nothing_is_bounded() {
        for power in 0..64 {
            assert_eq!(negative_log2_q32(1 << power), (64 - power) << 32);
        }
        assert_eq!(negative_log2_q32(0), 64 << 32, "as of 1");
        assert!(negative_log2_q32(u64::MAX) < 1 << 12, "as good as 0");
    }

    #[test]
    fn logarithms_are_right_to_one_in_a_million() {
        let mut sampler = Sampler::seeded(3, 20);
        for n in 0..100_000 {
            let u = sampler.next_random() >> (n % 40);
            let exact = -(u as f64 / 2f64.powi(64)).log2();
            let got = negative_log2_q32(u) as f64 / 2f64.powi(32);
            assert!((exact - got).abs() < 2f64.powi(-20), "{u}: {exact} {got}");
        }
        for (i, log2) in LOG2_Q32.iter().enumerate() {
            let exact = (1.0 + i as f64 / 512.0).log2() * 2f64.powi(32);
            assert!((exact - *log2 as f64).abs() <= 1.0, "{i}: {exact} {log2}");
        }
        for (k, step) in GAP_STEP_Q40.iter().enumerate().skip(1) {
            let exact = -(-2f64.powi(-(k as i32))).ln_1p() / 2f64.ln() * 2f64.powi(40);
            assert!((exact - *step as f64).abs() < 0.51, "{k}: {exact} {step}: rounded, not cut");
        }
    }
}
