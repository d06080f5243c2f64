//! A folio entered a tmpfs file, a memfd, a System V segment or shared anonymous memory: return of `shmem_add_to_page_cache`
//! with 0. On entry it is not charged yet (to 6.6) or not inserted yet.
//!
//! The kprobe tier has no arguments at the return, so the entry leaves the folio under the thread's id.

use crate::{
    attribute::commit::{self, Commit, Place},
    globals::layout,
    kernel::folio::Folio,
    loss,
    maps::SHMEM_CALLS,
    scratch::Slot,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use core::ffi::c_void;
use tracer_common::{kind::Kind, loss::Loss};

/// Handles a successful insertion.
#[inline(always)]
pub fn added(ctx: *mut c_void, folio: Folio) {
    commit::here(ctx, Slot::ShmemCommit, &Commit { folio, kind: Kind::Shmem, place: Place::Index });
    // Swapped in: on its way to the LRU it was counted as anonymous, since nothing tells the two apart there.
    if folio.has(layout!(pg_swapcache)) {
        commit::take_back(folio, Kind::Anon);
    }
}

/// kprobe entry.
#[inline(always)]
pub fn entered(folio: u64) {
    let thread = bpf_get_current_pid_tgid();
    if SHMEM_CALLS.insert(thread, folio, 0).is_err() {
        loss::count(Loss::CallTableFull, 0);
    }
}

/// kretprobe.
#[inline(always)]
pub fn returned(ctx: *mut c_void, result: i32) {
    let thread = bpf_get_current_pid_tgid();
    let Some(folio) = SHMEM_CALLS.get_ptr(thread) else { return };
    // SAFETY: this thread's own entry.
    let folio = unsafe { *folio };
    let _ = SHMEM_CALLS.remove(thread);
    if result == 0 {
        added(ctx, Folio::at(folio));
    }
}
