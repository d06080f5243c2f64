//! Keys and their counters.

use crate::{atomic, attribute::peak, loss, maps::KEYS};
use tracer_common::{
    attribution::{BANKS, Key, KeyRecord, bank_of, variance_in_frames},
    loss::Loss,
};

/// Credits a taken folio to a key, making it if it is new. The key's identity, or `None` if the table is full (counted).
#[inline(always)]
pub fn credit(scratch: &mut KeyRecord, key: &Key, weight_per_frame: u64, order: u32, epoch: u64, now: u64) -> Option<u64> {
    let identity = key.hash();
    let weight = weight_per_frame << (order & 31);
    let variance = variance_in_frames(weight_per_frame, order & 31);
    let mut record = KEYS.get_ptr_mut(identity);
    if record.is_none() {
        // Field by field: built as one value, it would stand on the stack first.
        scratch.key = *key;
        scratch.charged = [0; BANKS];
        scratch.uncharged = [0; BANKS];
        scratch.live_variance = [0; BANKS];
        scratch.charged_variance = 0;
        scratch.samples = 0;
        scratch.last_ns = now;
        scratch.peak_mark = 0;
        scratch.peak_live = 0;
        scratch.peak_variance = 0;
        if let Err(error) = KEYS.insert(identity, &*scratch, 1) {
            const EEXIST: i32 = -17;
            if error != EEXIST {
                loss::count(loss::of_insert(error, Loss::KeyTableFull), weight);
                return None;
            }
        }
        record = KEYS.get_ptr_mut(identity);
    }
    let record = record?;
    // SAFETY: a map value; counters are only added to, atomically.
    unsafe {
        if (*record).key != *key {
            loss::count(Loss::KeyCollision, weight);
            return None;
        }
        peak::rises(identity, weight);
        let bank = bank_of(epoch);
        atomic::add(&raw mut (*record).charged[bank], weight);
        atomic::add(&raw mut (*record).live_variance[bank], variance);
        atomic::add(&raw mut (*record).charged_variance, variance);
        atomic::add(&raw mut (*record).samples, 1);
        (*record).last_ns = now;
    }
    Some(identity)
}

/// Moves a folio's credit from one key to another: the first never had it.
///
/// # Safety
/// Both are map values.
#[inline(always)]
pub unsafe fn transfer(from: *mut KeyRecord, to: *mut KeyRecord, weight_per_frame: u64, order: u32, epoch: u64) {
    let weight = weight_per_frame << (order & 31);
    let variance = variance_in_frames(weight_per_frame, order & 31);
    let bank = bank_of(epoch);
    // SAFETY: by the caller.
    unsafe { peak::moved(from, to, weight) };
    // SAFETY: by the caller. Banks wrap, and only sums over them count, so it does not matter in which bank the credit was.
    unsafe {
        atomic::subtract(&raw mut (*from).charged[bank], weight);
        atomic::subtract(&raw mut (*from).live_variance[bank], variance);
        atomic::subtract(&raw mut (*from).charged_variance, variance);
        atomic::subtract(&raw mut (*from).samples, 1);
        atomic::add(&raw mut (*to).charged[bank], weight);
        atomic::add(&raw mut (*to).live_variance[bank], variance);
        atomic::add(&raw mut (*to).charged_variance, variance);
        atomic::add(&raw mut (*to).samples, 1);
    }
}

/// Takes `frames` frames of a folio of that order back from a key. Whose memory it was, 0 if there is no such key, and the number of its kind.
#[inline(always)]
pub fn debit(identity: u64, weight_per_frame: u64, order: u32, frames: u64, epoch: u64) -> (u64, u32) {
    peak::falls(identity, weight_per_frame * frames);
    let Some(record) = KEYS.get_ptr_mut(identity) else { return (0, 0) };
    let variance = (variance_in_frames(weight_per_frame, order & 31) * frames) >> (order & 31);
    let bank = bank_of(epoch);
    // SAFETY: as above.
    unsafe {
        atomic::add(&raw mut (*record).uncharged[bank], weight_per_frame * frames);
        atomic::subtract(&raw mut (*record).live_variance[bank], variance);
        ((*record).key.owner, (*record).key.kind)
    }
}
