//! A folio is uncharged: entry of `uncharge_folio` / `uncharge_page`, through which single and batched uncharges go. Any context:
//! softirq, interrupts off, the OOM reaper; the current task means nothing here.

use crate::{
    attribute::{commit, control, end},
    globals::layout,
    kernel::{
        folio::{self, Folio},
        memcg::{self, Owner},
        read,
    },
};

/// Handles the uncharge of `folio`.
#[inline(always)]
pub fn uncharged(given: Folio) {
    let Some(control) = control() else { return };
    let Some(order) = given.order() else { return };
    let folio = given.address;
    let Some(frame) = folio::frame_of(folio) else { return };
    let sampled = end::uncharged(frame, order);
    if control.owner_totals == 0 || is_typed(folio) {
        return;
    }
    let Some(Owner::Cgroup(owner)) = memcg::owner(folio) else { return };
    // A sample knows what its folio was charged as. The folio itself may have forgotten.
    let kind = match sampled {
        Some(kind) => Some(kind),
        None => folio::kind_at_uncharge(given),
    };
    if let Some(kind) = kind {
        commit::add_total(owner, kind, order, false);
    }
}

/// Up to 5.10 a kernel page is told by its page type, which shares a word with the map count: -1 for everything else that is
/// uncharged, since nothing maps it any more.
#[inline(always)]
fn is_typed(folio: u64) -> bool {
    layout!(page_mem_cgroup).is_some() && read::<i32>(folio, layout!(page_mapcount)) != Some(-1)
}
