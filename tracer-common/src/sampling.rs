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

/// Folio orders with a countdown of their own; larger folios are taken always. 2^10 frames are 4 MiB.
pub const ORDERS: usize = 11;

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
    #[inline(always)]
    pub fn seed(&mut self, seed: u64, log2_mean: u32) {
        self.random = crate::mix64(seed, 1) | 1;
        let mut order = 0;
        while order < ORDERS {
            self.gap[order] = self.next_gap(order as u32, log2_mean);
            order += 1;
        }
    }

    /// Whether the folio of 2^`order` frames is taken. `log2_mean` is the log2 of M in bytes.
    #[inline(always)]
    pub fn take(&mut self, order: u32, log2_mean: u32) -> bool {
        if order + MIN_LOG2_MEAN >= log2_mean || order >= ORDERS as u32 {
            return true;
        }
        let slot = order as usize & (GAPS - 1);
        let gap = self.gap[slot];
        if gap > 0 {
            self.gap[slot] = gap - 1;
            return false;
        }
        self.gap[slot] = self.next_gap(order, log2_mean);
        self.taken = self.taken.wrapping_add(1);
        true
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

/// Weight in bytes of each frame of a taken folio of 2^`order` frames. A folio's weight is this times its frames, exactly,
/// so that a split folio's pieces can be given back one by one without rounding.
#[inline(always)]
#[must_use]
pub const fn weight_per_frame(order: u32, log2_mean: u32) -> u64 {
    if order + MIN_LOG2_MEAN >= log2_mean { FRAME_BYTES } else { 1 << (log2_mean - order) }
}

/// -log2(u / 2^64) in Q32, for u > 0, by the leading zeros and a table of 512 intervals with linear interpolation
/// (relative error below 2^-20). u = 0 counts as 1.
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
