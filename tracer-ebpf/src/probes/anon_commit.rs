//! Anonymous memory is mapped for the first time: fault, copy on write, THP, fork copy, swap-in past the swap cache.
//!
//! `page_add_new_anon_rmap(page, vma, address, ...)` to 6.5, `folio_add_new_anon_rmap(folio, vma, address, ...)` since, and the
//! hugetlb twins. Runs under the page-table lock, so nothing here may be slow except for taken samples.

use crate::{
    attribute::commit::{self, Commit, Place},
    kernel::folio::Folio,
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles the first mapping of `folio` at `address` in `vma`.
#[inline(always)]
pub fn mapped(ctx: *mut c_void, slot: Slot, kind: Kind, folio: Folio, vma: u64, address: u64) {
    commit::here(ctx, slot, &Commit { folio, kind, place: Place::Mapping { vma, address } });
}
