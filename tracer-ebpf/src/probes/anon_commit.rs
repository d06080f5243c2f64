//! Anonymous memory is mapped for the first time: fault, copy on write, THP, fork copy.
//!
//! `page_add_new_anon_rmap(page, vma, address, ...)` to 6.5, `folio_add_new_anon_rmap(folio, vma, address, ...)` since, and the
//! hugetlb twins. Runs under the page-table lock, so nothing here may be slow except for taken samples.

use crate::{
    attribute::commit::{self, Commit, Place},
    globals::layout,
    kernel::folio::Folio,
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles the first mapping of `folio` at `address` in `vma`.
#[inline(always)]
pub fn mapped(ctx: *mut c_void, slot: Slot, kind: Kind, folio: Folio, vma: u64, address: u64) {
    // The functions set this flag, unless it is set: since 6.11 they map swapped-in memory too, which was committed on its way to the LRU (see
    // [`super::swapin`]). Whether a folio is in the swap cache says less: its place there may be free again by now.
    if kind as u32 == Kind::Anon as u32 && folio.has(layout!(pg_swapbacked)) {
        return;
    }
    commit::here(ctx, slot, &Commit { folio, kind, place: Place::Mapping { vma, address } });
}
