//! Tracepoint tier: frames go back to the allocator (`kmem:mm_page_free`), first thing in the freeing path. The owner is gone by
//! then; the sample knows it.

use crate::{
    attribute::{control, end},
    kernel::folio,
    maps::SAMPLES,
    probes::lru_insertion,
    scratch::Slot,
};
use tracer_common::{attribution::sample_slot, kind::Kind, settings::Control};

/// Handles the free of 2^`order` frames.
#[inline(always)]
pub fn freed(page: u64, order: u32) {
    let Some(frame) = folio::frame_of(page) else { return };
    if !crate::attribute::frames::is_set(&crate::maps::FRAMES, frame) {
        return;
    }
    let Some(control) = control() else { return };
    charged_unseen(control, page, frame, order);
    end::uncharged(frame, order);
}

/// A folio that was mapped but never reached the LRU (mlocked before it could) is charged all the same. It is anonymous, by the tag
/// of its mapping that is still there; its owner can only be guessed: the toucher's own.
#[inline(always)]
fn charged_unseen(control: &Control, page: u64, frame: u64, order: u32) {
    let Some(sample) = SAMPLES.get_ptr_mut(sample_slot(frame, order)) else { return };
    // SAFETY: a map value of a folio without references. Fields are read one by one: a copy would take too much stack.
    let (settled, owner) = unsafe { ((*sample).key, (*sample).address) };
    if settled != 0 || owner == 0 {
        return;
    }
    if let Some(kind) = folio::kind(page)
        && kind as u32 == Kind::Anon as u32
    {
        lru_insertion::settle_as(control, Slot::PageFree, page, frame, sample, owner, kind);
    }
}
