//! Pictures: a new epoch begins, and what was live when the old one ended stays readable.

use crate::{
    atomic,
    maps::{CONTROL, KEYS, RUN_RESULTS},
};
use tracer_common::attribution::{BANKS, BASE_BANK, PICTURES, ROTATING_BANKS};

/// Ends the current epoch and opens a picture of it: leaves its number in entry 2 of `RUN_RESULTS`, or all ones if all are open.
#[inline(always)]
pub fn open_from_user() {
    let epoch = open().unwrap_or(u64::MAX);
    if let Some(result) = RUN_RESULTS.get_ptr_mut(2) {
        // SAFETY: a map value; only the tracer's one thread runs this program.
        unsafe { (*result)[0] = epoch };
    }
}

/// Ends the current epoch and opens a picture of it; its number, or `None` if all pictures are open.
#[inline(always)]
pub fn open() -> Option<u64> {
    let control = CONTROL.get_ptr_mut(0)?;
    // SAFETY: a map value; pictures are opened by one task at a time (the OOM lock, or the tracer).
    unsafe {
        if (*control).open_pictures >= PICTURES as u32 {
            return None;
        }
        (*control).open_pictures += 1;
        (*control).epoch += 1;
        Some((*control).epoch - 1)
    }
}

/// Moves one rotating bank of a key to the base bank, after the picture that needed it was closed.
#[inline(always)]
pub fn fold(identity: u64, bank: u64) {
    let Some(record) = KEYS.get_ptr_mut(identity) else { return };
    if bank >= ROTATING_BANKS as u64 {
        return;
    }
    let bank = bank as usize;
    // SAFETY: a map value. The bank is quiet: its epoch is over. The base bank is added to by nobody else.
    unsafe {
        move_to_base(&raw mut (*record).charged, bank);
        move_to_base(&raw mut (*record).uncharged, bank);
        move_to_base(&raw mut (*record).live_variance, bank);
    }
}

/// # Safety
/// `banks` is a map value.
#[inline(always)]
unsafe fn move_to_base(banks: *mut [u64; BANKS], bank: usize) {
    // SAFETY: by the caller; `bank` was checked.
    unsafe {
        let value = (*banks)[bank];
        atomic::add(&raw mut (*banks)[BASE_BANK], value);
        atomic::subtract(&raw mut (*banks)[bank], value);
    }
}
