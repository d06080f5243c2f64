//! khugepaged puts a large folio in the place of small ones. The memory stays that of whoever made the small ones resident, so the
//! new folio's sample goes over to the key of one of theirs: of anonymous memory they end before the new folio is mapped, of files
//! after it has been put into the tree. Which of them is a matter of chance, in proportion to their bytes.
//!
//! There is one khugepaged, so one record of what it is at is enough.

use crate::{
    attribute::{control, key},
    maps::{COLLAPSE, KEYS, SAMPLES},
};
use tracer_common::attribution::Sample;

/// khugepaged's new folio has its sample in `slot`, under khugepaged's own key.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn collapse_made(slot: u64) -> u64 {
    let (Some(state), Some(sample)) = (COLLAPSE.get_ptr_mut(0), SAMPLES.get_ptr_mut(slot)) else { return 0 };
    // SAFETY: map values; only khugepaged comes by here, and it is one task.
    unsafe {
        let heir = (*state).ended_key;
        let same = (*state).ended_file == (*sample).file && (*state).ended_at == place(sample);
        (*state).ended_key = 0;
        (*state).made = 0;
        if heir == 0 || !same {
            (*state).made = slot;
            return 0;
        }
        hand_over(sample, heir)
    }
}

/// khugepaged ends the sample in `slot`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn collapse_ended(slot: u64) -> u64 {
    let (Some(state), Some(sample)) = (COLLAPSE.get_ptr_mut(0), SAMPLES.get_ptr_mut(slot)) else { return 0 };
    // SAFETY: as above.
    unsafe {
        let made = (*state).made;
        (*state).ended_key = (*sample).key;
        (*state).ended_file = (*sample).file;
        (*state).ended_at = place(sample);
        if made == 0 || made == slot {
            return 0;
        }
        let Some(new) = SAMPLES.get_ptr_mut(made) else { return 0 };
        if (*new).file != (*sample).file || place(new) != place(sample) {
            return 0;
        }
        (*state).made = 0;
        hand_over(new, (*sample).key)
    }
}

/// Moves a sample to another key of the same owner and kind; its first key then never had it.
///
/// # Safety
/// `sample` is a map value that only khugepaged handles now.
#[inline(always)]
unsafe fn hand_over(sample: *mut Sample, heir: u64) -> u64 {
    let Some(control) = control() else { return 0 };
    // SAFETY: by the caller; a key's fields never change. Fields are read one by one: a copy would take too much stack.
    unsafe {
        let (own, weight, order) = ((*sample).key, (*sample).weight_per_frame, (*sample).order);
        let (Some(from), Some(to)) = (KEYS.get_ptr_mut(own), KEYS.get_ptr_mut(heir)) else { return 0 };
        if own == heir || (*from).key.owner != (*to).key.owner || (*from).key.kind != (*to).key.kind {
            return 0;
        }
        key::transfer(from, to, weight, order, control.epoch);
        (*sample).key = heir;
    }
    1
}

/// Where a sample is, in units of a huge page.
///
/// # Safety
/// `sample` is a map value.
#[inline(always)]
unsafe fn place(sample: *const Sample) -> u64 {
    // SAFETY: by the caller.
    unsafe { (*sample).address >> 21 }
}
