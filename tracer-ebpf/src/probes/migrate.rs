//! A folio's contents move to another frame: `mem_cgroup_migrate` (compaction, NUMA balancing, khugepaged's file collapse) and
//! `mem_cgroup_replace_folio` (page-cache replacement). The charge goes along, so the sample does: the stack that made the memory
//! resident stays responsible for it. Later kernels uncharge the old folio without an event, earlier ones with one that then finds nothing.

use crate::{
    attribute::{control, end, frames},
    kernel::{
        folio,
        memcg::{self, Owner},
    },
    loss,
    maps::{FRAMES, SAMPLES},
    scratch::{self, Slot},
};
use tracer_common::{attribution::sample_slot, loss::Loss};

/// Handles the entry of a migration from `old` to `new`.
#[inline(always)]
pub fn migrating(old: u64, new: u64) {
    if control().is_none() {
        return;
    }
    let (Some(from), Some(to)) = (folio::frame_of(old), folio::frame_of(new)) else { return };
    if !frames::is_set(&FRAMES, from) {
        return;
    }
    // A new folio that is charged already keeps its own charge, and the old one its own end.
    if !matches!(memcg::owner(new), Some(Owner::None)) {
        return;
    }
    let Some(order) = folio::order(old) else { return };
    carry(from, to, order);
}

/// Carries what stands for the folio at `from` over to the one at `to`.
#[inline(always)]
pub fn carry(from: u64, to: u64, order: u32) {
    // What stands there was taken at the new folio's allocation, which is no charge.
    end::folio(to, order);
    let Some((_, sample)) = end::find(from, order) else { return };
    scratch::with(Slot::Migrate, |scratch| {
        // SAFETY: a map value; the folio is locked and isolated.
        scratch.sample = unsafe { *sample };
        let whole = scratch.sample.order == order && scratch.sample.frames_left == 1 << (order & 31);
        let slot = sample_slot(to, order);
        if !whole {
            // A piece of a split folio: its share leaves the old record and stands on its own from now on. The key's counters
            // stay as they are.
            scratch.sample.frames_left = 1 << (order & 31);
            scratch.sample.order = order;
        }
        if let Err(error) = SAMPLES.insert(slot, &scratch.sample, 0) {
            loss::count(loss::of_insert(error, Loss::SampleTableFull), scratch.sample.weight_per_frame << (order & 31));
            return None;
        }
        frames::set(&FRAMES, to, order);
        end::forget(from, order);
        Some(())
    });
}
