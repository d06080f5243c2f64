//! The peak of each owner (see [`tracer_common::attribution::Peak`]).

use crate::{
    atomic, loss,
    maps::{KEYS, PEAKS},
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_common::{
    attribution::{BANKS, KeyRecord, Peak},
    loss::Loss,
};

/// An owner that has had nothing. Not on the stack, which the callers need.
static NOTHING: Peak = Peak { live: 0, top: 0, mark: 0, is_below: 0, at_ns: 0 };

/// A key is about to be credited with so many bytes.
#[inline(always)]
pub fn rises(identity: u64, bytes: u64) {
    note_peak(identity, bytes, 1);
}

/// Bytes go from one key to another of the same owner, which one of the two has noted for its peak and the other has not: what it noted was
/// before they went.
///
/// # Safety
/// Both are map values.
#[inline(always)]
pub unsafe fn moved(from: *mut KeyRecord, to: *mut KeyRecord, bytes: u64) {
    // SAFETY: by the caller.
    unsafe {
        let (mark, other) = ((*from).peak_mark, (*to).peak_mark);
        // The later of two marks is the owner's.
        if mark < other {
            atomic::add(&raw mut (*to).peak_live, bytes);
        } else if other < mark {
            atomic::subtract(&raw mut (*from).peak_live, bytes);
        }
    }
}

/// As many bytes are about to be taken from a key.
#[inline(always)]
pub fn falls(identity: u64, bytes: u64) {
    note_peak(identity, bytes, 0);
}

/// A global function, so that it is verified once (see [`super::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_peak(identity: u64, bytes: u64, is_rise: u64) -> u64 {
    let Some(record) = KEYS.get_ptr_mut(identity) else { return 0 };
    // SAFETY: a map value.
    let owner = unsafe { (*record).key.owner };
    if owner == 0 {
        return 0;
    }
    let mut peak = PEAKS.get_ptr_mut(owner);
    if peak.is_none() {
        // What began before has no peak: it would begin below nothing.
        if is_rise == 0 {
            return 0;
        }
        if let Err(error) = PEAKS.insert(owner, &NOTHING, 1) {
            const EEXIST: i32 = -17;
            if error != EEXIST {
                loss::count(loss::of_insert(error, Loss::PeakTableFull), bytes);
                return 0;
            }
        }
        peak = PEAKS.get_ptr_mut(owner);
    }
    let Some(peak) = peak else { return 0 };
    // SAFETY: map values. What is added to is added to atomically; the rest may be a moment early or late, see [`Peak`].
    unsafe {
        if is_rise == 0 && (*peak).is_below == 0 {
            (*peak).mark += 1;
            (*peak).is_below = 1;
        }
        if (*peak).is_below != 0 && (*record).peak_mark != (*peak).mark {
            keep(record);
            (*record).peak_mark = (*peak).mark;
        }
        if is_rise == 0 {
            atomic::subtract(&raw mut (*peak).live, bytes);
            return 0;
        }
        atomic::add(&raw mut (*peak).live, bytes);
        let live = (*peak).live as i64;
        if live > (*peak).top as i64 {
            (*peak).top = live as u64;
            (*peak).is_below = 0;
            (*peak).at_ns = bpf_ktime_get_ns();
        }
    }
    1
}

/// Keeps what a key holds.
///
/// # Safety
/// `record` is a map value.
#[inline(always)]
unsafe fn keep(record: *mut KeyRecord) {
    let (mut live, mut variance) = (0_u64, 0_u64);
    let mut bank = 0;
    // SAFETY: by the caller; the bank is below the bound.
    unsafe {
        while bank < BANKS {
            live = live.wrapping_add((*record).charged[bank]).wrapping_sub((*record).uncharged[bank]);
            variance = variance.wrapping_add((*record).live_variance[bank]);
            bank += 1;
        }
        (*record).peak_live = live;
        (*record).peak_variance = variance;
    }
}
