//! Anonymous memory is mapped for the first time: fault, copy on write, THP, fork copy, swap-in past the swap cache.
//!
//! `page_add_new_anon_rmap(page, vma, address, ...)` to 6.5, `folio_add_new_anon_rmap(folio, vma, address, ...)` since, and the
//! hugetlb twins. Runs under the page-table lock, so nothing here may be slow except for taken samples.

use crate::{
    attribute::commit::{self, Commit},
    globals::layout,
    kernel::read_pointer,
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles the first mapping of `folio` at `address` in `vma`.
#[inline(always)]
pub fn mapped(ctx: *mut c_void, slot: Slot, kind: Kind, folio: u64, vma: u64, address: u64) {
    // khugepaged, remote get_user_pages and io_uring touch the memory of other tasks: charged is the owner of the mm.
    let owner = match read_pointer(vma, layout!(vma_mm)) {
        Some(mm) => read_pointer(mm, layout!(mm_owner)).unwrap_or(0),
        None => 0,
    };
    commit::here(ctx, slot, &Commit { folio, kind, address, task: owner });
}
