//! A folio of the page cache became dirty: tracepoint with types `writeback:writeback_dirty_folio` (`_page` before 5.18), on every tier. It fires once
//! from clean to dirty, in the task that writes, with the folio charged and in its file. tmpfs does not come here: it is never written to disk.
//!
//! Taken by bytes, and more coarsely than what is live: a file may be written over and over, and each page that is written for the first
//! time has its chance at its insertion too.
//!
//! And a task that is made to wait because too much is dirty: raw tracepoint `writeback:balance_dirty_pages`, right before it sleeps.

use crate::{
    atomic,
    attribute::{commit, control, decide, followed, stack},
    globals::{layout, setting},
    histogram,
    kernel::{
        file,
        folio::Folio,
        memcg::{self, Owner},
        task,
    },
    loss,
    maps::DIRTIED,
    probes::{computed_argument, reclaim},
    scratch::{self, Slot},
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use core::ffi::c_void;
use tracer_common::{
    FRAME_BYTES,
    attribution::variance_in_frames,
    dirty::{DirtyKey, DirtyRecord},
    histogram::Metric,
    loss::Loss,
    sampling::{MIN_LOG2_MEAN, thinned},
};

/// log2 of the times that M is larger here than the host's.
const COARSER: u32 = 2;

/// Handles the event.
#[inline(always)]
pub fn dirtied(ctx: *mut c_void, folio: Folio) {
    if control().is_none() {
        return;
    }
    let Some(order) = folio.order() else { return };
    let folio = folio.address;
    let taken = decide::take(order);
    if taken == 0 {
        return;
    }
    let owner = match memcg::owner(folio) {
        Some(Owner::Cgroup(id)) => id,
        Some(_) => return,
        None => {
            loss::count(Loss::OwnerUnreadable, FRAME_BYTES << (order & 31));
            return;
        }
    };
    let weight = dirty_weight(owner, order as u64, taken);
    if weight == 0 || !followed::wants(0) {
        return;
    }
    let file = file::identity(folio, Slot::Dirty);
    let Some(scratch) = scratch::enter(Slot::Dirty) else { return };
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let toucher = task::current(now);
    let user_stack = if toucher.kernel_thread { 0 } else { stack::record(ctx, Slot::Dirty, stack::Side::User, scratch) };
    scratch::leave(scratch);
    let key = DirtyKey { owner, file, process: toucher.process, user_stack };
    add(&key, weight << (order & 31), variance_in_frames(weight, order & 31), now);
}

/// The weight per frame of a taken folio, 0 if it is let go or its owner is not wanted. A global function, so that it is
/// verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dirty_weight(owner: u64, order: u64, weight_per_frame: u64) -> u64 {
    if commit::refused(owner) {
        return 0;
    }
    let log2_mean = setting!(log2_coarsest);
    let log2_mean = if log2_mean == MIN_LOG2_MEAN { log2_mean } else { log2_mean + COARSER };
    thinned(weight_per_frame, order as u32 & 31, log2_mean, decide::random())
}

/// The current task is told how long to wait. Every wait counts: there are few, and each is long.
#[inline(always)]
pub fn held(ctx: *mut c_void) {
    let Some(at) = layout!(throttle_pause) else { return };
    // 0 and less: it goes on at once.
    let jiffies = computed_argument(ctx, at as usize) as i64;
    if jiffies <= 0 {
        return;
    }
    let owner = reclaim::waiter();
    if owner == 0 {
        return;
    }
    let held_ns = (jiffies as u64).wrapping_mul(setting!(jiffy_ns));
    histogram::add(owner, Metric::DirtyThrottleNs, held_ns);
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = DirtyKey { owner, file: 0, process: task::current(now).process, user_stack: 0 };
    let Some(record) = record_of(&key, 0, now) else { return };
    // SAFETY: a map value; counters are only added to, atomically.
    unsafe {
        atomic::add(&raw mut (*record).holds, 1);
        atomic::add(&raw mut (*record).held_ns, held_ns);
        (*record).last_ns = now;
    }
}

#[inline(always)]
fn add(key: &DirtyKey, bytes: u64, variance: u64, now: u64) {
    let Some(record) = record_of(key, bytes, now) else { return };
    // SAFETY: a map value; counters are only added to, atomically.
    unsafe {
        atomic::add(&raw mut (*record).bytes, bytes);
        atomic::add(&raw mut (*record).variance, variance);
        atomic::add(&raw mut (*record).samples, 1);
        (*record).last_ns = now;
    }
}

/// The record of the key, or of the owner's rest; with no room for either, the loss of `bytes` is counted.
#[inline(always)]
fn record_of(key: &DirtyKey, bytes: u64, now: u64) -> Option<*mut DirtyRecord> {
    let mut record = DIRTIED.get_ptr_mut(key);
    if record.is_none() {
        let new = DirtyRecord { bytes: 0, variance: 0, samples: 0, first_ns: now, last_ns: now, holds: 0, held_ns: 0 };
        // Before there can be no room for it: what finds none is summed here, without file and process.
        let rest = DirtyKey { owner: key.owner, file: 0, process: 0, user_stack: 0 };
        if DIRTIED.get_ptr(rest).is_none() {
            let _ = DIRTIED.insert(rest, new, 1);
        }
        // One that another CPU has just made stays; whether there is one now is all that matters.
        let refused = DIRTIED.insert(key, &new, 1).err().unwrap_or(0);
        record = DIRTIED.get_ptr_mut(key);
        if record.is_none() {
            record = DIRTIED.get_ptr_mut(rest);
        }
        if record.is_none() {
            loss::count(loss::of_insert(refused, Loss::DirtyTableFull), bytes);
        }
    }
    record
}
