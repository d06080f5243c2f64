//! Tracepoint tier: a folio reaches the LRU (`pagemap:mm_lru_insertion`), at most a batch of 31 folios after its charge and not
//! always in the task that caused it. Owner and kind are in the folio; the waiting sample has the rest.

use crate::{
    attribute::{collapse, commit, control, end, frames, key},
    globals::setting,
    kernel::{
        file, folio,
        memcg::{self, Owner},
    },
    maps::{FRAMES, SAMPLES},
    scratch::{self, Slot},
};
use tracer_common::{
    attribution::{KEY_COLLAPSED, Key, Sample, sample_slot},
    kind::Kind,
    sampling::always_taken,
    settings::Control,
};

/// Handles the insertion.
#[inline(always)]
pub fn inserted(folio: u64) {
    let Some(frame) = folio::frame_of(folio) else { return };
    if !frames::is_set(&FRAMES, frame) {
        return;
    }
    let Some(control) = control() else { return };
    let Some(order) = folio::order(folio) else { return };
    let Some(sample) = SAMPLES.get_ptr_mut(sample_slot(frame, order)) else { return };
    settle(control, Slot::LruInsertion, folio, frame, sample);
}

/// Gives a pending sample the owner and kind that its folio has. `false` if the folio is not charged or not of a followed kind: it
/// may be yet.
#[inline(always)]
pub fn settle(control: &Control, slot: Slot, folio: u64, frame: u64, sample: *mut Sample) -> bool {
    // SAFETY: a map value; its folio is held by whoever inserts it into the LRU, so nobody ends the sample now.
    if unsafe { (*sample).key } != 0 {
        return true;
    }
    let Some(Owner::Cgroup(owner)) = memcg::owner(folio) else { return false };
    let Some(kind) = folio::kind(folio) else { return false };
    settle_as(control, slot, folio, frame, sample, owner, kind);
    true
}

/// Gives a pending sample this owner and kind.
#[inline(always)]
pub fn settle_as(control: &Control, slot: Slot, folio: u64, frame: u64, sample: *mut Sample, owner: u64, kind: Kind) {
    // SAFETY: as above. Fields are read one by one: a copy would take too much stack.
    let (order, weight, now) = unsafe { ((*sample).order, (*sample).weight_per_frame, (*sample).charged_ns) };
    // Page cache is decided at its own tracepoint, on every tier; this sample is of no use then. But folios that replace smaller ones
    // in the file's tree (khugepaged, MADV_COLLAPSE) have no insertion event: one that is always taken would have a sample from there.
    // SAFETY: as above.
    let collapsed = unsafe { (*sample).file } & KEY_COLLAPSED as u64 != 0;
    let inserted = kind as u32 == Kind::File as u32 && !collapsed && !always_taken(order, setting!(log2_coarsest));
    // A page of hugetlbfs was allocated for the pool, by whoever made that larger, and is charged to whoever is given it.
    let pooled = kind as u32 == Kind::Hugetlb as u32;
    let weight = if inserted || pooled { 0 } else { commit::filtered(owner, order, weight, 1) };
    if weight == 0 {
        end::covered(frame, order);
        return;
    }
    // SAFETY: as above. A pending sample keeps the key's flags where the file will stand.
    let key = unsafe {
        Key {
            owner,
            process: (*sample).process,
            user_stack: (*sample).user_stack,
            kernel_stack: (*sample).kernel_stack,
            kind: kind as u32,
            flags: (*sample).file as u32,
        }
    };
    let identity = scratch::with(slot, |scratch| key::credit(&mut scratch.key, &key, weight, order, control.epoch, now));
    let Some(identity) = identity else {
        end::covered(frame, order);
        return;
    };
    commit::count_size(owner, order, weight);
    // SAFETY: as above.
    unsafe {
        (*sample).weight_per_frame = weight;
        (*sample).address = folio::position(folio);
        (*sample).file = if kind as u32 == Kind::Anon as u32 { 0 } else { file::identity(folio, slot) };
        (*sample).epoch = control.epoch;
        (*sample).key = identity;
    }
    if collapsed {
        collapse::collapse_made(sample_slot(frame, order));
    }
}
