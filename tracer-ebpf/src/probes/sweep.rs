//! Looks at one live sample again: settles a pending one whose folio never reached the LRU (mlocked), ends one whose folio is no
//! longer what was sampled (its end was missed), and counts how many frames of an anonymous one are mapped.

use crate::{
    attribute::{control, end, frames},
    globals::{layout, setting},
    kernel::{
        file,
        folio::{self, MAX_SPLIT_ORDER},
        memcg::{self, Owner},
        read,
    },
    loss,
    maps::{FRAMES, KEYS, RUN_RESULTS, SAMPLES},
    probes::lru_insertion,
    scratch::Slot,
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use tracer_common::{
    attribution::{SWEPT_DIRTY, SWEPT_WRITEBACK, frame_and_order},
    kind::Kind,
    loss::Loss,
};

/// The sample stands.
const STANDS: u64 = 0;
/// It was pending and now has its owner.
const SETTLED: u64 = 1;
/// It is pending still.
const PENDING: u64 = 2;
/// Its folio was gone: ended.
const STALE: u64 = 3;
/// There is no such sample.
const GONE: u64 = 4;

/// Looks at the sample in `slot`; leaves (result, frames mapped, frames left, current owner) in entry 0 of
/// `RUN_RESULTS`.
#[inline(always)]
pub fn look(slot: u64) {
    let Some(control) = control() else { return };
    let Some(swept) = RUN_RESULTS.get_ptr_mut(0) else { return };
    let (frame, order) = frame_and_order(slot);
    let page = folio::page_of(frame);
    let mut result = [GONE, 0, 0, 0];
    if let Some(sample) = SAMPLES.get_ptr_mut(slot) {
        // SAFETY: a map value. Fields are read one by one: a copy would take too much stack.
        let (key, left, weight) = unsafe { ((*sample).key, (*sample).frames_left, (*sample).weight_per_frame) };
        result[0] = STANDS;
        result[2] = left as u64;
        let whole = left == 1 << (order & 31) && folio::order(page).unwrap_or(u32::MAX) == order;
        let owner = match memcg::owner(page) {
            Some(Owner::Cgroup(id)) => id,
            _ => 0,
        };
        result[3] = owner;
        if key == 0 {
            result[0] = if lru_insertion::settle(control, Slot::FromUser, page, frame, sample) { SETTLED } else { PENDING };
        } else if whole {
            let expected = match KEYS.get_ptr(key) {
                // SAFETY: a map value whose key never changes.
                Some(record) => unsafe { (*record).key.kind },
                None => u32::MAX,
            };
            let kind = folio::kind(page);
            if owner == 0 || kind.is_some_and(|kind| kind as u32 != expected) {
                loss::count(Loss::StaleSample, weight << (order & 31));
                end::covered(frame, order);
                result[0] = STALE;
            }
        }
        if result[0] == STANDS || result[0] == SETTLED {
            // What is cached counts whether mapped or not, and cached folios are the large ones.
            let anonymous = folio::kind(page).is_some_and(|kind| kind as u32 == Kind::Anon as u32);
            result[1] = if anonymous { mapped_frames(page, order as u64) } else { left as u64 };
            // SAFETY: as above. Where the first frame is gone, another file may have it by now.
            if unsafe { (*sample).file } != 0 && frames::is_set(&FRAMES, frame) {
                file::refresh(page, Slot::FromUser);
                result[0] |= page_state(page);
            }
        }
    }
    // SAFETY: a map value; only the tracer's one sweeping thread reads it.
    unsafe { *swept = result };
}

/// Whether the folio waits to be written to disk, or is on its way there.
#[inline(always)]
fn page_state(page: u64) -> u64 {
    let flags = read::<u64>(page, layout!(page_flags)).unwrap_or(0);
    let bit = |flag: Option<u64>| match flag {
        Some(bit) => flags >> (bit & 63) & 1,
        None => 0,
    };
    bit(layout!(pg_dirty)) * SWEPT_DIRTY | bit(layout!(pg_writeback)) * SWEPT_WRITEBACK
}

/// Frames of the folio that some page table maps. A PMD-mapped folio is mapped whole.
///
/// A global function, so that the loop is verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mapped_frames(page: u64, order: u64) -> u64 {
    let order = order as u32;
    let size = 1_u64 << setting!(page_struct_shift);
    if order > 0 {
        let entire = match layout!(folio_entire_mapcount) {
            Some(offset) => read::<i32>(page, Some(offset)),
            None => read::<i32>(page + size, layout!(page_compound_mapcount)),
        };
        if entire.is_some_and(|count| count >= 0) {
            return 1 << (order & 31);
        }
    }
    let Some(offset) = layout!(page_mapcount) else { return 0 };
    let frames = if order > MAX_SPLIT_ORDER { 1 } else { 1_u64 << (order & 15) };
    let mut mapped = 0;
    let mut i = 0;
    while i < 1 << MAX_SPLIT_ORDER {
        if i >= frames {
            break;
        }
        let mut count = 0_u32;
        // SAFETY: the helper checks the address; the destination is as long as said.
        let result = unsafe { bpf_probe_read_kernel((&raw mut count).cast(), 4, (page + i * size + offset) as *const _) };
        // By arithmetic: a branch here would double the verifier's work with each round. The count is -1 for none; what cannot be
        // read is not mapped.
        mapped += (1 ^ (count >> 31) as u64) & (1 ^ (result as u64 >> 63));
        i += 1;
    }
    mapped
}
