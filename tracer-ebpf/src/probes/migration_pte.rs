//! Tracepoint tier: a mapped page moves to another frame (compaction, NUMA balancing). Its page table entry becomes a migration entry
//! that names the old frame (`migrate:set_migration_pte`, `set_migration_pmd`), and later one that maps the new frame
//! (`migrate:remove_migration_pte`, `remove_migration_pmd`), by the same task. Page cache that nobody maps moves unseen.

use crate::{
    attribute::{control, end, frames},
    globals::setting,
    maps::{FRAMES, MIGRATIONS},
    probes::migrate,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;

/// Order of what a page middle directory maps.
const PMD_ORDER: u32 = 9;

/// Handles an entry at `address` that becomes the migration entry `entry`.
#[inline(always)]
pub fn began(address: u64, entry: u64) {
    if control().is_none() {
        return;
    }
    // arch/x86/include/asm/pgtable_64.h: 5 bits of type above the inverted offset, which begins at bit 14. Since 6.1 two flags may
    // stand above the frame's bits, of which there are 34 with four levels.
    let frame = ((!entry << 5) >> 14) & ((1 << 34) - 1);
    if frame >= setting!(frames) || !frames::is_set(&FRAMES, frame) {
        return;
    }
    // The oldest makes room: one that is never taken out again belongs to a page that was unmapped meanwhile.
    let _ = MIGRATIONS.insert(key(address), frame, 0);
}

/// Handles an entry at `address` that maps a frame again: a new one, or the old one if the migration failed.
#[inline(always)]
pub fn ended(address: u64, entry: u64, order: u32, huge: bool) {
    if control().is_none() {
        return;
    }
    let order = if huge { PMD_ORDER } else { order & 15 };
    let to = ((entry & ((1 << 52) - 1)) >> 12) >> order << order;
    if to >= setting!(frames) {
        return;
    }
    let key = key(address);
    let Some(from) = MIGRATIONS.get_ptr(key) else {
        // Nothing stood for the old folio, so whatever stands for the new one was taken at its allocation, which is no charge.
        end::folio(to, order);
        return;
    };
    // SAFETY: this thread's own entry.
    let from = unsafe { *from } >> order << order;
    let _ = MIGRATIONS.remove(key);
    if from != to && frames::is_set(&FRAMES, from) {
        migrate::carry(from, to, order);
    }
}

#[inline(always)]
fn key(address: u64) -> [u64; 2] {
    [bpf_get_current_pid_tgid(), address]
}
