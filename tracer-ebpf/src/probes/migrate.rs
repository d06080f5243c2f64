//! A folio's contents move to another frame: `mem_cgroup_migrate` (compaction, NUMA balancing, khugepaged's file collapse) and
//! `mem_cgroup_replace_folio` (page-cache replacement). The charge goes along, so the sample does: the stack that made the memory
//! resident stays responsible for it.
//!
//! Up to 6.6 both charge the new folio besides the old one, which is uncharged later, with an event that finds no sample. Since 6.7, which
//! has the second function for that, the first moves the charge, and no event follows.

use crate::{
    attribute::{commit, control, end, frames},
    globals::layout,
    kernel::{
        folio::{self, Folio},
        memcg::{self, Owner},
    },
    loss,
    maps::{FRAMES, SAMPLES},
    scratch::{self, Slot},
};
use tracer_common::{attribution::sample_slot, loss::Loss};

/// Handles the entry of `mem_cgroup_migrate`.
#[inline(always)]
pub fn migrating(old: u64, new: u64) {
    moving(old, new, layout!(replace_folio).is_none());
}

/// Handles the entry of `mem_cgroup_replace_folio`.
#[inline(always)]
pub fn replacing(old: u64, new: u64) {
    moving(old, new, true);
}

/// `charges`: the new folio is charged besides the old one.
#[inline(always)]
fn moving(old: u64, new: u64, charges: bool) {
    let Some(control) = control() else { return };
    let (Some(from), Some(to)) = (folio::frame_of(old), folio::frame_of(new)) else { return };
    let sampled = frames::is_set(&FRAMES, from);
    let counts = charges && control.owner_totals != 0;
    if !sampled && !counts {
        return;
    }
    // A new folio that is charged already keeps its own charge, and the old one its own end.
    if !matches!(memcg::owner(new), Some(Owner::None)) {
        return;
    }
    let old = Folio::at(old);
    let Some(order) = old.order() else { return };
    // As the kind that the old folio's uncharge will take it for: its sample, which would know better, goes along.
    if counts
        && let Some(Owner::Cgroup(owner)) = memcg::owner(old.address)
        && let Some(kind) = folio::kind_at_uncharge(old)
    {
        commit::add_total(owner, kind, order, true);
    }
    if sampled {
        carry(from, to, order);
    }
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
