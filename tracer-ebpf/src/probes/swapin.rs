//! Swap-in through the swap cache: such folios are charged when they are read, long before they are mapped, and are not new to the
//! rmap. `folio_add_lru` / `lru_cache_add` sees them in the allocating task, with PG_swapcache set.

use crate::{
    attribute::commit::{self, Commit},
    globals::layout,
    kernel::{folio, read},
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles a folio on its way to the LRU; all but swap-cache folios are passed over.
#[inline(always)]
pub fn on_lru(ctx: *mut c_void, folio: u64) {
    let Some(flags) = read::<u64>(folio, layout!(page_flags)) else { return };
    let Some(swapcache) = layout!(pg_swapcache) else { return };
    let Some(swapbacked) = layout!(pg_swapbacked) else { return };
    if flags >> (swapcache & 63) & 1 == 0 || flags >> (swapbacked & 63) & 1 == 0 {
        return;
    }
    // Already mapped or already a sample's: a putback, not a charge.
    if let Some(mapping) = read::<u64>(folio, layout!(page_mapping))
        && mapping != 0
    {
        return;
    }
    let commit = Commit { folio, kind: Kind::Anon, address: folio::position(folio), task: 0 };
    commit::here(ctx, Slot::Swapin, &commit);
}
