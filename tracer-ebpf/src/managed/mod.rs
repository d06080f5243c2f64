//! Frames of interpreters, read from the memory of the current task (see [`tracer_common::managed`]).
//!
//! | module | what it does |
//! |---|---|
//! | [`thread`] | what CPython knows of the current thread, and its innermost frame |
//! | [`frame`] | one frame to the one that called it |
//! | [`function`] | which function a frame is in |
//! | [`script`], [`object`] | the same of V8, whose functions have frames of the machine |
//! | [`hotspot`] | the same of Java, whose frames only the JVM can tell the callers of |
//!
//! All that is read may be hostile or changing: nothing is followed without a bound, and what cannot be read ends the walk.

mod frame;
mod function;
pub mod hotspot;
mod object;
pub mod script;
mod thread;

use crate::{
    loss,
    maps::{MANAGED, SCRATCH},
    values::{Managed, WALK_SHIFT},
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use core::hint::black_box;
use tracer_common::loss::Loss;
use tracer_common::stack::{
    GAP, INNERMOST, INNERMOST_BESIDE, MANAGED_CUT, MANAGED_SHIFT, MAX_FRAMES, OLDEST_SHIFT, OUTERMOST, OUTERMOST_BESIDE,
};

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

/// The working memory of the walk.
#[inline(always)]
fn state() -> Option<&'static mut Managed> {
    // SAFETY: a map value; the walk has marked it busy (see [`enter`]).
    MANAGED.get_ptr_mut(0).map(|managed| unsafe { &mut *managed })
}

/// The working memory of this CPU, until [`leave`]; counts and returns `None` if another program has it, which was interrupted or preempted.
#[inline(always)]
fn enter() -> Option<&'static mut Managed> {
    let m = state()?;
    if m.busy != 0 {
        loss::count(Loss::ManagedUnreadable, 0);
        return None;
    }
    m.busy = 1;
    Some(m)
}

/// Gives the working memory back.
#[inline(always)]
fn leave() {
    if let Some(m) = state() {
        m.busy = 0;
    }
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
    if scratch.unwind.python == 0 || walked & LENGTH == 0 {
        return walked;
    }
    let Some(m) = enter() else { return walked };
    m.build = scratch.unwind.python - 1;
    m.base = scratch.unwind.python_base;
    m.place = 0;
    if thread::find_thread() == 0 {
        leave();
        return walked;
    }
    let (mut turn, mut next) = (0, NEXT);
    while turn < TURNS {
        next = frame::read_frame();
        if next == LEARN {
            function::clear_texts();
            function::read_name();
            function::read_file();
            next = function::tell_function();
        }
        if next != NEXT {
            break;
        }
        turn += 1;
    }
    let cut = if next == LAST { 0 } else { MANAGED_CUT as u64 };
    let walked = settle(slot, walked | cut << WALK_SHIFT);
    leave();
    walked
}

/// Number of frames in what a walk gives.
const LENGTH: u64 = (1 << WALK_SHIFT) - 1;

/// Puts what was found behind the frames of the machine, some of which make room if they must.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle(slot: u64, walked: u64) -> u64 {
    let (Some(scratch), Some(m)) = (SCRATCH.get_ptr_mut(slot as u32), state()) else { return walked };
    // SAFETY: as above.
    let frames = unsafe { &mut (*scratch).stack.frames };
    let mut walked = walked;
    let mut native = walked & LENGTH;
    const BESIDE: u64 = (INNERMOST_BESIDE + OUTERMOST_BESIDE) as u64;
    if native + m.place > MAX_FRAMES as u64 && native > BESIDE {
        // One more than the place of the oldest in the ring, or 0 if they stand in order.
        let oldest = walked >> (WALK_SHIFT + OLDEST_SHIFT) & PLACE;
        let mut at = 0;
        while at < OUTERMOST_BESIDE as u64 {
            let mut from = native - OUTERMOST_BESIDE as u64 + at;
            if oldest != 0 {
                let mut behind = oldest - 1 + (OUTERMOST - OUTERMOST_BESIDE) as u64 + at;
                if behind >= OUTERMOST as u64 {
                    behind -= OUTERMOST as u64;
                }
                from = INNERMOST as u64 + behind;
            }
            // Frames are moved down, from places that were read already.
            frames[INNERMOST_BESIDE + black_box(at) as usize & (MAX_FRAMES - 1)] = frames[from as usize & (MAX_FRAMES - 1)];
            at += 1;
        }
        native = BESIDE;
        walked = walked & !(LENGTH | PLACE << (WALK_SHIFT + OLDEST_SHIFT)) | native | (GAP as u64) << WALK_SHIFT;
    }
    let room = MAX_FRAMES as u64 - native;
    let mut managed = m.place;
    if managed > room {
        managed = room;
        walked |= (MANAGED_CUT as u64) << WALK_SHIFT;
    }
    let mut at = 0;
    while at < MAX_FRAMES as u64 {
        if at >= managed {
            break;
        }
        frames[(native + black_box(at)) as usize & (MAX_FRAMES - 1)] = m.frames[at as usize & (MAX_FRAMES - 1)];
        at += 1;
    }
    walked | managed << (WALK_SHIFT + MANAGED_SHIFT)
}

/// What of a status is the place of the oldest frame in the ring.
const PLACE: u64 = 63;
