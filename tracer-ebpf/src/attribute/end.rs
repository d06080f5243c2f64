//! The one place where a sample ends.

use crate::{
    attribute::{frames, key},
    kernel::folio::MAX_SPLIT_ORDER,
    loss,
    maps::{FRAMES, GRAVEYARD, SAMPLES},
};
use tracer_common::{
    attribution::{Buried, Sample, sample_slot},
    loss::Loss,
    mix64,
    settings::Control,
};

/// The folio of `order` at `frame`, a whole one or a piece of a split one, is uncharged: ends what stands for it.
#[inline(always)]
pub fn folio(control: &Control, frame: u64, order: u32) {
    if frames::is_set(&FRAMES, frame) {
        covered(control, frame, order);
    }
}

/// The slow path: a sample covers this folio.
#[inline(never)]
pub fn covered(control: &Control, frame: u64, order: u32) -> u64 {
    frames::clear(&FRAMES, frame, order);
    let Some((slot, sample)) = find(frame, order) else { return 0 };
    // SAFETY: a map value of a folio that nobody else ends: it has one last reference.
    let sample_now = unsafe { *sample };
    let frames = 1_u64 << (order & 31);
    let left = sample_now.frames_left - frames as i64;
    if sample_now.key != 0 {
        key::debit(sample_now.key, sample_now.weight_per_frame, sample_now.order, frames, control.epoch);
        if control.open_pictures != 0 && sample_now.epoch < control.epoch {
            bury(&sample_now, slot, control.epoch);
        }
    }
    // SAFETY: a map value. Pieces of one folio may end on several CPUs at once.
    unsafe { crate::atomic::subtract((&raw mut (*sample).frames_left).cast(), frames) };
    // SAFETY: as above. Two CPUs may both see the last frame gone; the second removal finds nothing.
    if left <= 0 || unsafe { (*sample).frames_left } <= 0 {
        let _ = SAMPLES.remove(slot);
    }
    1
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
        crate::atomic::subtract((&raw mut (*sample).frames_left).cast(), frames);
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

#[inline(always)]
fn bury(sample: &Sample, slot: u64, ended_epoch: u64) {
    let buried = Buried { sample: *sample, frame: slot >> 8, ended_epoch };
    // Several pieces of one sample are buried under names of their own: what was left tells them apart.
    let name = mix64(mix64(slot, sample.charged_ns), sample.frames_left as u64);
    if let Err(error) = GRAVEYARD.insert(name, buried, 0) {
        loss::count(loss::of_insert(error, Loss::GraveyardFull), sample.weight_per_frame * sample.frames_left as u64);
    }
}
