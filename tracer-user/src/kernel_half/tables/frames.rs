//! Which frames a sample covers, and which were charged while the baseline was taken: bits that only the kernel half reads.

use super::row::ArrayTable;
use crate::kernel_half::wish::Wish;

fn words(wish: &Wish) -> u32 {
    u32::try_from(wish.frames.div_ceil(64)).unwrap_or(u32::MAX).max(1)
}

/// One bit a frame: a sample covers it.
pub static FRAMES: ArrayTable<u64> = ArrayTable::named("FRAMES").planned(words);

/// One bit a frame: charged while the baseline was being taken.
pub static NEW_FRAMES: ArrayTable<u64> = ArrayTable::named("NEW_FRAMES").planned(words);
