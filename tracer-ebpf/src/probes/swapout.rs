//! cgroup v1: what changes owner or loses it without an uncharge. Swap-out moves the charge to the swap entry
//! (`mem_cgroup_swapout`, later `memcg1_swapout`); charge moving (`mem_cgroup_move_account`, gone in 6.13) changes the owner.
//!
//! On v2 the function for swap-out is called too, and leaves the charge where it is: the folio is uncharged later, like any other.

use crate::{
    attribute::{control, end, key},
    globals::setting,
    kernel::{
        folio::{self, Folio},
        memcg,
    },
    maps::KEYS,
    scratch::{self, Slot},
};
use tracer_common::{attribution::Key, oom::UNKNOWN};

/// The kernel's number of the hierarchy of cgroup v2, which is the first one that it makes (kernel/cgroup/cgroup.c, `cgroup_init`).
const V2: u32 = 0;

/// Handles a folio whose memory charge becomes a swap charge. When it is uncharged, nobody owns it any more.
#[inline(always)]
pub fn swapped_out(folio: Folio) {
    if setting!(hierarchy) != V2 {
        super::uncharge::uncharged(folio);
    }
}

/// Handles a folio that is being moved to the memory cgroup at `to`.
#[inline(always)]
pub fn moved(folio: u64, to: u64) {
    let Some(control) = control() else { return };
    let Some(order) = folio::order(folio) else { return };
    let Some(frame) = folio::frame_of(folio) else { return };
    let Some((_, sample)) = end::find(frame, order) else { return };
    let owner = memcg::id(to);
    if owner == UNKNOWN {
        return;
    }
    // SAFETY: a map value; the folio is locked and isolated. Fields are read one by one: a copy would take too much stack.
    let (old, weight, sampled_order, charged_ns) =
        unsafe { ((*sample).key, (*sample).weight_per_frame, (*sample).order, (*sample).charged_ns) };
    // A piece of a split folio cannot take the record along for its siblings: it stays with the old owner until it is uncharged.
    if old == 0 || sampled_order != order {
        return;
    }
    let Some(record) = KEYS.get_ptr(old) else { return };
    // SAFETY: a map value whose key never changes.
    let key = Key { owner, ..unsafe { (*record).key } };
    let identity =
        scratch::with(Slot::MoveAccount, |scratch| key::credit(&mut scratch.key, &key, weight, order, control.epoch, charged_ns));
    let Some(identity) = identity else { return };
    key::debit(old, weight, order, 1 << (order & 31), control.epoch);
    // SAFETY: as above.
    unsafe { (*sample).key = identity };
}
