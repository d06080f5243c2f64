//! Frames of interpreters, read from the memory of the current task (see [`tracer_common::managed`]).
//!
//! | module | what it does |
//! |---|---|
//! | [`thread`] | what CPython knows of the current thread, and its innermost frame |
//! | [`frame`] | one frame to the one that called it |
//! | [`function`] | which function a frame is in |
//!
//! All that is read may be hostile or changing: nothing is followed without a bound, and what cannot be read ends the walk.

mod frame;
mod function;
mod thread;

use crate::{
    maps::SCRATCH,
    values::{Managed, WALK_SHIFT},
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_common::stack::{MANAGED_CUT, MANAGED_SHIFT, MAX_FRAMES};

/// Turns of the loop: frames that are recorded, and those of the evaluation loop's own between them.
const TURNS: u64 = 192;

/// A frame was recorded or passed over.
const NEXT: u64 = 0;
/// There is no other.
const LAST: u64 = 1;
/// It cannot be recorded before its function is known.
const LEARN: u64 = 2;
/// There is no room for it.
const FULL: u64 = 3;

/// The working memory of the slot's walk.
#[inline(always)]
fn state(slot: u64) -> Option<&'static mut Managed> {
    // SAFETY: a map value; the program that has the slot has marked it busy.
    SCRATCH.get_ptr_mut(slot as u32).map(|scratch| unsafe { &mut (*scratch).managed })
}

/// Reads memory of the current task into working memory.
#[inline(always)]
fn fetch(to: *mut u64, bytes: u32, from: u64) -> bool {
    // SAFETY: the callers' buffers are that long; the helper checks the address.
    unsafe { bpf_probe_read_user(to.cast(), bytes, from as *const _) == 0 }
}

/// Records the interpreter's frames behind those that a walk found. Gives what the walk gave (see [`crate::unwind::walk`]) with their number in it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_managed(slot: u64, walked: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return walked };
    // SAFETY: a map value; the program that has the slot has marked it busy.
    let scratch = unsafe { &mut *scratch };
    let native = walked & ((1 << WALK_SHIFT) - 1);
    if scratch.unwind.python == 0 || native == 0 || native >= MAX_FRAMES as u64 {
        return walked;
    }
    scratch.managed.python = scratch.unwind.python - 1;
    scratch.managed.place = native;
    if thread::find_thread(slot) == 0 {
        return walked;
    }
    let (mut turn, mut next) = (0, NEXT);
    while turn < TURNS {
        next = frame::read_frame(slot);
        if next == LEARN {
            function::clear_texts(slot);
            function::read_name(slot);
            function::read_file(slot);
            next = function::tell_function(slot);
        }
        if next != NEXT {
            break;
        }
        turn += 1;
    }
    let cut = if next == LAST { 0 } else { MANAGED_CUT as u64 };
    walked | (cut | scratch.managed.place.wrapping_sub(native) << MANAGED_SHIFT) << WALK_SHIFT
}
