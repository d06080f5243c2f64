//! A folio entered the page cache of a file: tracepoint with types `filemap:mm_filemap_add_to_page_cache`, on every tier. It is charged,
//! locked, and its mapping is set. Not fired for shmem; fired for hugetlbfs, whose folios have an owner with `memory_hugetlb_accounting` only.

use crate::{
    attribute::commit::{self, Commit, Place},
    kernel::folio::Folio,
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles the insertion.
#[inline(always)]
pub fn added(ctx: *mut c_void, folio: Folio) {
    let kind = if folio.is_hugetlb() { Kind::Hugetlb } else { Kind::File };
    commit::here(ctx, Slot::FileCommit, &Commit { folio, kind, place: Place::Index });
}
