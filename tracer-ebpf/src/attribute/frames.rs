//! The frame tables: one bit a frame.
//!
//! Only who owns a folio changes its bits (the committing task before anyone can free it, then whoever frees it), so reading a
//! bit and adding it is safe; neighbours in the same word may change at the same time, hence the atomic addition.

use crate::{atomic, kernel::folio::MAX_SPLIT_ORDER};
use aya_ebpf::maps::Array;

/// Words of 64 frames that a folio of that order can cover.
const MAX_WORDS: u64 = 1 << (MAX_SPLIT_ORDER - 6);

/// Whether the bit of the first frame is set.
#[inline(always)]
pub fn is_set(table: &Array<u64>, frame: u64) -> bool {
    match table.get((frame >> 6) as u32) {
        Some(word) => *word >> (frame & 63) & 1 != 0,
        None => false,
    }
}

/// Sets the bits of a folio's frames.
#[inline(always)]
pub fn set(table: &Array<u64>, frame: u64, order: u32) {
    change(table, frame, order, true);
}

/// Clears them.
#[inline(always)]
pub fn clear(table: &Array<u64>, frame: u64, order: u32) {
    change(table, frame, order, false);
}

#[inline(always)]
fn change(table: &Array<u64>, frame: u64, order: u32, value: bool) {
    if order >= 6 && order <= MAX_SPLIT_ORDER {
        change_words(table, frame, order, value as u64);
        return;
    }
    // Gigantic pages are never split: their first frame stands for all.
    let frames = if order > MAX_SPLIT_ORDER { 1 } else { 1_u64 << (order & 7) };
    let Some(word) = table.get_ptr_mut((frame >> 6) as u32) else { return };
    let mask = ((1_u64 << frames) - 1) << (frame & 63);
    // SAFETY: a valid map value.
    unsafe {
        let now = *word & mask;
        if value {
            atomic::add(word, mask & !now);
        } else {
            atomic::subtract(word, now);
        }
    }
}

/// Whole words belong to one folio: plain stores do.
#[inline(never)]
fn change_words(table: &Array<u64>, frame: u64, order: u32, value: u64) -> u64 {
    let words = 1_u64 << (order.wrapping_sub(6) & 7);
    let first = frame >> 6;
    let mut i = 0;
    while i < MAX_WORDS {
        if i >= words {
            break;
        }
        if let Some(word) = table.get_ptr_mut((first + i) as u32) {
            // SAFETY: a valid map value.
            unsafe { *word = if value != 0 { u64::MAX } else { 0 } };
        }
        i += 1;
    }
    0
}
