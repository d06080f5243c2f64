//! Tracepoint tier: a folio reaches the LRU (`pagemap:mm_lru_insertion`), at most a batch of 31 folios after its charge and not
//! always in the task that caused it. Owner and kind are in the folio; the waiting sample has the rest.

use crate::{
    attribute::{commit, control, end, frames},
    kernel::{
        file, folio,
        memcg::{self, Owner},
    },
    maps::{FRAMES, SAMPLES},
    scratch::{self, Slot},
};
use tracer_common::{
    attribution::{Key, Sample, sample_slot},
    kind::Kind,
    settings::Control,
};

/// Handles the insertion.
#[inline(always)]
pub fn inserted(folio: u64) {
    let Some(control) = control() else { return };
    let Some(frame) = folio::frame_of(folio) else { return };
    if !frames::is_set(&FRAMES, frame) {
        return;
    }
    let Some(order) = folio::order(folio) else { return };
    let Some(sample) = SAMPLES.get_ptr_mut(sample_slot(frame, order)) else { return };
    settle(control, Slot::LruInsertion, folio, frame, sample);
}

/// Gives a pending sample its owner and kind. `false` if the folio is not charged or not of a followed kind: it may be yet.
#[inline(always)]
pub fn settle(control: &Control, slot: Slot, folio: u64, frame: u64, sample: *mut Sample) -> bool {
    // SAFETY: a map value; its folio is held by whoever inserts it into the LRU, so nobody ends the sample now.
    let pending = unsafe { *sample };
    if pending.key != 0 {
        return true;
    }
    let Some(Owner::Cgroup(owner)) = memcg::owner(folio) else { return false };
    let Some(kind) = folio::kind(folio) else { return false };
    if kind as u32 == Kind::File as u32 {
        // Page cache is decided at its own tracepoint, on every tier; this sample is of no use.
        end::covered(control, frame, pending.order);
        return true;
    }
    let Some(weight) = commit::filtered(owner, pending.weight_per_frame) else {
        end::covered(control, frame, pending.order);
        return true;
    };
    scratch::with(slot, |scratch| {
        scratch.sample = pending;
        scratch.sample.weight_per_frame = weight;
        scratch.sample.address = folio::position(folio);
        scratch.sample.file = if kind as u32 == Kind::Anon as u32 { 0 } else { file::identity(folio) };
        let key = Key {
            owner,
            process: pending.process,
            user_stack: pending.user_stack,
            kernel_stack: pending.kernel_stack,
            kind: kind as u32,
            // A pending sample keeps the flags where the file will stand.
            flags: pending.file as u32,
        };
        let (order, now) = (pending.order, pending.charged_ns);
        let Some(identity) = crate::attribute::key::credit(&mut scratch.key, &key, weight, order, control.epoch, now) else {
            end::covered(control, frame, order);
            return None;
        };
        // SAFETY: as above.
        unsafe {
            (*sample).weight_per_frame = weight;
            (*sample).address = scratch.sample.address;
            (*sample).file = scratch.sample.file;
            (*sample).epoch = control.epoch;
            (*sample).key = identity;
        }
        Some(())
    });
    true
}
