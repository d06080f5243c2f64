//! What no commit hook announces, seen on the way to the LRU (`folio_add_lru` / `lru_cache_add`).
//!
//! Page cache and shmem that is collapsed, by khugepaged or in the context of MADV_COLLAPSE: one large folio takes the place of the
//! small ones in the file's tree, without an insertion event.
//!
//! Swap-in: such folios are charged when they are read, long before they are mapped, and come by here in the allocating task, through the swap
//! cache or past it (zram, on kernels up to 7.1). Locked and not mapped yet: what a putback brings back here is not locked. Later kernels
//! then map them as new ones, which is passed over there (see [`super::anon_commit`]).
//!
//! Swapped-out shmem comes by here too. Whose it is is known when it is put into its file (see [`super::shmem_commit`]).

use crate::{
    attribute::{
        commit::{self, Commit, Place},
        frames,
    },
    globals::{layout, setting},
    kernel::{
        folio::{self, Folio},
        task,
    },
    maps::FRAMES,
    scratch::Slot,
};
use aya_ebpf::helpers::bpf_get_current_task;
use core::ffi::c_void;
use tracer_common::{kind::Kind, sampling::always_taken};

/// Order of a huge page, which is what files are collapsed to.
const COLLAPSED_ORDER: u32 = 9;

/// Handles a folio on its way to the LRU; most are passed over. `mapping` reads its mapping, which costs something.
#[inline(always)]
pub fn on_lru(ctx: *mut c_void, given: Folio, mapping: impl Fn() -> Option<u64>) {
    let swapped_in = given.has(layout!(pg_swapbacked)) && given.has(layout!(pg_locked)) && mapping() == Some(0);
    if !swapped_in && !(given.has(layout!(pg_head)) && is_collapsed(given)) {
        return;
    }
    // Collapsed anonymous memory is committed when it is mapped.
    let kind = if swapped_in { Kind::Anon } else { folio::kind(given.address).unwrap_or(Kind::Anon) };
    if swapped_in != (kind as u32 == Kind::Anon as u32) {
        return;
    }
    commit::here(ctx, Slot::Swapin, &Commit { folio: given, kind, place: Place::Index });
}

/// Whether a large folio took the place of smaller ones, unless it is anonymous.
#[inline(always)]
fn is_collapsed(folio: Folio) -> bool {
    let Some(order) = folio.order() else { return false };
    if order < COLLAPSED_ORDER {
        return false;
    }
    // An inserted folio of this size has a sample if such are always taken. Without that certainty only khugepaged's count.
    // SAFETY: plain helper.
    if !always_taken(order, setting!(log2_coarsest)) && task::collapse_flag(unsafe { bpf_get_current_task() }) == 0 {
        return false;
    }
    match folio::frame_of(folio.address) {
        Some(frame) => !frames::is_set(&FRAMES, frame),
        None => false,
    }
}
