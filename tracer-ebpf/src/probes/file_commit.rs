//! A folio entered the page cache of a file: raw tracepoint `filemap:mm_filemap_add_to_page_cache`, on every tier. It is charged,
//! locked, and its mapping is set. Not fired for shmem; fired for hugetlbfs, whose folios have no owner.

use crate::{
    attribute::commit::{self, Commit},
    kernel::folio,
    scratch::Slot,
};
use core::ffi::c_void;
use tracer_common::kind::Kind;

/// Handles the insertion.
#[inline(always)]
pub fn added(ctx: *mut c_void, folio: u64) {
    let commit = Commit { folio, kind: Kind::File, address: folio::position(folio), task: 0 };
    commit::here(ctx, Slot::FileCommit, &commit);
}
