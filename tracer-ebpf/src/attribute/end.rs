//! The one place where a sample ends.

use crate::{
    atomic,
    attribute::{collapse, frames, key},
    histogram,
    kernel::{folio::MAX_SPLIT_ORDER, task},
    loss,
    maps::{FRAMES, GRAVEYARD, SAMPLES},
};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_ns};
use tracer_common::{
    FRAME_BYTES,
    attribution::{Grave, Sample, sample_slot},
    histogram::Metric,
    kind::Kind,
    loss::Loss,
};

/// The folio of `order` at `frame`, a whole one or a piece of a split one, is uncharged now: ends what stands for it, and counts how long
/// it lived. The kind that it was charged as, if anything did.
#[inline(always)]
pub fn uncharged(frame: u64, order: u32) -> Option<Kind> {
    if !frames::is_set(&FRAMES, frame) {
        return None;
    }
    match end_sample(frame, order as u64, 1) {
        0 => None,
        kind => Kind::from_number((kind - 1) as u8),
    }
}

/// Ends what stands for the folio, if anything does: its uncharge was missed, or it is decided anew.
#[inline(always)]
pub fn folio(frame: u64, order: u32) {
    if frames::is_set(&FRAMES, frame) {
        covered(frame, order);
    }
}

/// The same where a sample is known to cover the folio.
#[inline(always)]
pub fn covered(frame: u64, order: u32) {
    end_sample(frame, order as u64, 0);
}

/// One more than the number of the kind of what ended, 0 if nothing did.
///
/// A global function, so that it is verified once (see [`super::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_sample(frame: u64, order: u64, is_uncharge: u64) -> u64 {
    let order = order as u32;
    let Some(control) = super::control() else { return 0 };
    frames::clear(&FRAMES, frame, order);
    let Some((slot, sample)) = find(frame, order) else { return 0 };
    let frames = 1_u64 << (order & 31);
    let mut ended = 0;
    // SAFETY: a map value of a folio that nobody else ends: it has no references left. Fields are read one by one, since a copy
    // would take stack that the callers need. Pieces of one folio may end on several CPUs at once, so the count changes atomically.
    unsafe {
        let (key, epoch, left) = ((*sample).key, (*sample).epoch, (*sample).frames_left);
        if key != 0 {
            if task::collapse_flag(bpf_get_current_task()) != 0 {
                collapse::collapse_ended(slot);
            }
            let weight = (*sample).weight_per_frame;
            let (owner, kind) = key::debit(key, weight, (*sample).order, frames, control.epoch);
            ended = if owner == 0 { 0 } else { 1 + kind as u64 };
            count_lifetime(owner, (*sample).charged_ns, weight / FRAME_BYTES * frames, is_uncharge);
            if control.open_pictures != 0 && epoch < control.epoch {
                bury(sample, slot, frame, frames, control.epoch);
            }
        }
        atomic::subtract((&raw mut (*sample).frames_left).cast(), frames);
        // Two CPUs may both see the last frame gone; the second removal finds nothing.
        if left <= frames as i64 || (*sample).frames_left <= 0 {
            let _ = SAMPLES.remove(slot);
        }
    }
    ended
}

/// Adds an uncharge of as many pages to the distribution of lifetimes. Memory older than the trace has none (0).
#[inline(always)]
fn count_lifetime(owner: u64, charged_ns: u64, pages: u64, is_uncharge: u64) {
    if is_uncharge != 0 && charged_ns != 0 && owner != 0 {
        // SAFETY: plain helper.
        let lived_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(charged_ns);
        histogram::add_weighted(owner, Metric::LifetimeNs, lived_ns, pages);
    }
}

/// The folio's share of its sample lives on elsewhere: the record here loses it, no counter changes.
#[inline(always)]
pub fn forget(frame: u64, order: u32) {
    frames::clear(&FRAMES, frame, order);
    let Some((slot, sample)) = find(frame, order) else { return };
    let frames = 1_u64 << (order & 31);
    // SAFETY: a map value of a folio that is locked and isolated.
    unsafe {
        let left = (*sample).frames_left - frames as i64;
        atomic::subtract((&raw mut (*sample).frames_left).cast(), frames);
        if left <= 0 {
            let _ = SAMPLES.remove(slot);
        }
    }
}

/// The sample that covers a folio: the smallest sampled folio around it.
#[inline(always)]
pub fn find(frame: u64, order: u32) -> Option<(u64, *mut Sample)> {
    if order > MAX_SPLIT_ORDER {
        let slot = sample_slot(frame, order);
        return SAMPLES.get_ptr_mut(slot).map(|sample| (slot, sample));
    }
    let mut o = 0;
    while o <= MAX_SPLIT_ORDER {
        if o >= order {
            let slot = sample_slot(frame >> o << o, o);
            if let Some(sample) = SAMPLES.get_ptr_mut(slot) {
                return Some((slot, sample));
            }
        }
        o += 1;
    }
    None
}

/// # Safety
/// `sample` is a map value.
#[inline(always)]
unsafe fn bury(sample: *const Sample, slot: u64, frame: u64, frames: u64, ended_epoch: u64) {
    // SAFETY: by the caller. The value is copied by the helper, straight from one table to the other.
    unsafe {
        let first = (frame - (slot >> 8)) as u32;
        let grave = Grave { slot, ended_epoch, charged_ns: (*sample).charged_ns, first, frames: frames as u32 };
        if let Err(error) = GRAVEYARD.insert(grave, &*sample, 0) {
            loss::count(loss::of_insert(error, Loss::GraveyardFull), (*sample).weight_per_frame * frames);
        }
    }
}
