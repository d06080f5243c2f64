//! Tracepoint tier: frames go back to the allocator (`kmem:mm_page_free`), first thing in the freeing path. The owner is gone by
//! then; the sample knows it.

use crate::{
    attribute::{control, end},
    kernel::folio,
};

/// Handles the free of 2^`order` frames.
#[inline(always)]
pub fn freed(page: u64, order: u32) {
    let Some(frame) = folio::frame_of(page) else { return };
    if !crate::attribute::frames::is_set(&crate::maps::FRAMES, frame) {
        return;
    }
    let Some(control) = control() else { return };
    end::covered(control, frame, order);
}
