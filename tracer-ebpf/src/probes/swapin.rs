//! What no commit hook announces, seen on the way to the LRU (`folio_add_lru` / `lru_cache_add`).
//!
//! Page cache and shmem that khugepaged collapses: it swaps one large folio for the small ones in the file's tree, without an
//! insertion event.
//!
//! Swap-in through the swap cache: such folios are charged when they are read, long before they are mapped, and are not new to the
//! rmap.
//! They come by here in the allocating task, with PG_swapcache set.

use crate::{
    attribute::commit::{self, Commit},
    globals::layout,
    kernel::{folio, read, task},
    scratch::Slot,
};
use aya_ebpf::helpers::bpf_get_current_task;
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles a folio on its way to the LRU; most are passed over.
#[inline(always)]
pub fn on_lru(ctx: *mut c_void, folio: u64) {
    // SAFETY: plain helper.
    if task::collapse_flag(unsafe { bpf_get_current_task() }) != 0 {
        collapsed(ctx, folio);
        return;
    }
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

/// Handles a folio of khugepaged's making. Anonymous ones are committed when they are mapped.
#[inline(always)]
fn collapsed(ctx: *mut c_void, folio: u64) {
    let Some(kind) = folio::kind(folio) else { return };
    if kind as u32 != Kind::Anon as u32 {
        commit::here(ctx, Slot::Swapin, &Commit { folio, kind, address: folio::position(folio), task: 0 });
    }
}
