//! User stacks by tables (see [`tracer_common::unwind`]), for the current task.
//!
//! | module | what it does |
//! |---|---|
//! | [`begin`] | registers with which the task entered the kernel |
//! | [`mapping`] | the mapping of an address and the file behind it |
//! | [`frame`] | one frame to the next |
//! | [`miss`] | asks user space for tables that are not there |
//!
//! Functions that others call are global ones, with plain numbers as arguments: the kernel verifies each once, and their values stand in the slot's
//! working memory, since the programs that call them leave little of the stack. For the same reason [`walk`] alone calls the others: calls
//! that nest less deeply need less of it.

pub mod begin;
pub mod frame;
mod mapping;
mod miss;

use crate::{
    globals::setting,
    managed::hotspot,
    maps::{RUN_RESULTS, SCRATCH},
    scratch,
    values::{Slot, Unwind, WALK_SHIFT},
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_get_stack};
use core::ffi::c_void;
use tracer_common::{
    stack::{DEEPEST, INNERMOST, MAX_FRAMES, OLDEST_SHIFT, StackStatus},
    unwind::{End, IDENTIFIED, WALKED},
};

/// Turns of the loop: a frame or the look-up of a mapping each.
const TURNS: u64 = 400;

/// See [`walk`].
pub const AGAIN: u64 = u64::MAX;

/// Where an [`End`] is no end: the mapping is looked up, perhaps again.
const LOOK: u64 = 100;
/// The same: the rule of the frame is known.
pub const STEP: u64 = 101;
/// The same: a JVM may have made the code.
const CODE: u64 = 102;
/// The same: it has, and the frame's methods are not known yet.
pub const LEARN: u64 = 103;

/// The working memory of the slot's walk.
#[inline(always)]
pub fn state(slot: u64) -> Option<&'static mut Unwind> {
    // SAFETY: a map value; the program that has the slot has marked it busy.
    SCRATCH.get_ptr_mut(slot as u32).map(|scratch| unsafe { &mut (*scratch).unwind })
}

/// Walks the current task's user stack and leaves the frames in the slot's scratch: how many there are, above them ([`WALK_SHIFT`]) what
/// [`tracer_common::stack::StackRecord::status`] says. 0 if the task has no registers of 64-bit user code, which tables are for; [`AGAIN`] once if it
/// learnt on its way what it needed at its beginning.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk(slot: u64) -> u64 {
    let mut why = begin::begin(slot);
    let mut turn = 0;
    while turn < TURNS {
        // No state of the loop's own but these two: the verifier would follow each combination.
        if why == LOOK {
            why = mapping::find(slot);
        } else if why == End::Not as u64 {
            why = frame::record(slot);
            if why == CODE {
                why = hotspot::find_code(slot);
                if why == LEARN {
                    why = hotspot::learn_code(slot);
                }
            }
            if why == STEP {
                why = frame::step(slot);
            }
        } else {
            break;
        }
        turn += 1;
    }
    let Some(s) = state(slot) else { return 0 };
    // A JVM that nobody had met before: if its code was on the way, the walk is worth another.
    if s.hotspot != 0 && s.java_state <= hotspot::NO_JVM && hotspot::note_process(slot) != 0 && s.java_state == hotspot::NO_JVM {
        return AGAIN;
    }
    let depth = s.length;
    if why == End::NoRegisters as u64 {
        return 0;
    }
    let status = (status(why, s.guessed, depth) as u64) << WALK_SHIFT;
    if depth <= DEEPEST as u64 {
        return depth | status;
    }
    // Where the next frame would have gone stands the oldest of the ring.
    let oldest = s.place - INNERMOST as u64;
    DEEPEST as u64 | status | (oldest + 1) << (WALK_SHIFT + OLDEST_SHIFT)
}

/// How a walk that ended so is kept.
#[inline(always)]
fn status(why: u64, guessed: u64, length: u64) -> u32 {
    if length == 0 {
        return StackStatus::None as u32;
    }
    if why == LOOK || why == End::Not as u64 {
        return StackStatus::TooDeep as u32;
    }
    if guessed != 0 {
        return if guessed & GUESSED_LEAF != 0 { StackStatus::Guessed as u32 } else { StackStatus::Ended as u32 };
    }
    if why == End::Root as u64 {
        return StackStatus::Root as u32;
    }
    StackStatus::CUT | why as u32
}

/// Puts frames in the place of the addresses that the kernel's own walker left in the slot's scratch: of tasks that run 32-bit code, and
/// where there are no tables.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn relate(slot: u64, length: u64) -> u64 {
    if begin::clear(slot) == 0 {
        return 0;
    }
    if let Some(s) = state(slot) {
        // A walk by tables was tried then, and found no registers of 64-bit code.
        s.is_narrow = u64::from(setting!(unwind) != 0);
    }
    let mut at = 0;
    while at < MAX_FRAMES as u64 {
        if at >= length {
            break;
        }
        if frame::aim(slot, at) == LOOK && mapping::find(slot) == LOOK {
            // It was changing, and is looked up once more.
            mapping::find(slot);
        }
        frame::put(slot, at);
        at += 1;
    }
    0
}

/// The current task executes another program.
#[inline(always)]
pub fn executed() {
    let slot = Slot::Unwind;
    if setting!(unwind) == 0 {
        return;
    }
    let Some(scratch) = scratch::enter(slot) else { return };
    if begin::clear(slot as u64) != 0 {
        mapping::executed(slot as u64);
    }
    scratch::leave(scratch);
}

/// Leaves in `RUN_RESULTS` which file user space has mapped at an address of its own: whether it was found, and the words of its key.
#[inline(always)]
pub fn identify(address: u64) {
    let slot = Slot::Unwind as u64;
    begin::begin(slot);
    if let Some(s) = state(slot) {
        s.look = address;
        s.any = 1;
        let found = mapping::find(slot);
        s.any = 0;
        if let Some(result) = RUN_RESULTS.get_ptr_mut(IDENTIFIED) {
            // SAFETY: a map value of plain numbers, which one thread of user space asks for.
            unsafe {
                *result = [
                    found,
                    s.current.key.inode,
                    s.current.key.written,
                    (s.current.key.device as u64) << 32 | s.current.key.generation as u64,
                ]
            };
        }
    }
}

/// Leaves in `RUN_RESULTS` how long a walk of the current task's stack takes: by tables, or by the kernel's own walker. For the benchmark.
#[inline(always)]
pub fn measure(ctx: *mut c_void, by_helper: bool) {
    const USER: u64 = 1 << 8;
    let slot = Slot::Unwind as u64;
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return };
    // SAFETY: plain helper.
    let began_ns = unsafe { bpf_ktime_get_ns() };
    let walked = if by_helper {
        // SAFETY: the slot is this program's alone, and the buffer is as long as said.
        let bytes = unsafe { bpf_get_stack(ctx, (*scratch).stack.frames.as_mut_ptr().cast(), (MAX_FRAMES * 8) as u32, USER) };
        if bytes < 0 { 0 } else { bytes as u64 / 8 }
    } else {
        walk(slot)
    };
    // SAFETY: plain helper.
    let took_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(began_ns);
    if let Some(result) = RUN_RESULTS.get_ptr_mut(WALKED) {
        // SAFETY: a map value of plain numbers, which one thread of user space asks for.
        unsafe { *result = [took_ns, walked & ((1 << WALK_SHIFT) - 1), walked >> WALK_SHIFT & 0xff, 0] };
    }
}

/// A caller was found by the frame pointer where no rule was known: of a frame that had called, so that its frame pointer was set, or while the
/// table of its file was being made.
const GUESSED_CALLER: u64 = 1;
/// The same of the innermost frame, which may not have set its own yet: its caller may be missing.
const GUESSED_LEAF: u64 = 2;
