//! Capturing call stacks, and giving them an identity of 64 bits with a check of another 64.

use crate::{
    globals::setting,
    kernel::task,
    loss, managed,
    maps::{SCRATCH, STACKS},
    scratch::{Scratch, Slot},
    unwind,
    values::WALK_SHIFT,
};
use aya_ebpf::helpers::{bpf_get_current_task, generated::bpf_get_stack};
use core::ffi::c_void;
use tracer_common::{
    loss::Loss,
    stack::{CHUNK, DEEPEST, MANAGED_SHIFT, MAX_FRAMES, StackStatus, check_step, identity_step},
};

/// Flag of bpf_get_stack: the user stack (include/uapi/linux/bpf.h BPF_F_USER_STACK).
const USER: u64 = 1 << 8;

/// Which stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    User,
    Kernel,
}

/// Records the current stack; its identity, or 0 if there is none or it could not be kept (counted).
#[inline(always)]
pub fn record(ctx: *mut c_void, slot: Slot, side: Side, scratch: &mut Scratch) -> u64 {
    let mut walked = 0;
    if side == Side::User && setting!(unwind) != 0 {
        walked = unwind::walk(slot as u64);
        if walked == unwind::AGAIN {
            walked = unwind::walk(slot as u64);
        }
        if walked == unwind::AGAIN {
            walked = 0;
        }
        walked = managed::script::walk_scripts(slot as u64, walked);
        walked = managed::walk_managed(slot as u64, walked);
    }
    if walked == 0 {
        let flags = if side == Side::User { USER } else { 0 };
        // SAFETY: the buffer is as long as said.
        let bytes = unsafe { bpf_get_stack(ctx, scratch.stack.frames.as_mut_ptr().cast(), (MAX_FRAMES * 8) as u32, flags) };
        if bytes < 0 {
            if was_asked_for(side) {
                loss::count(Loss::StackWalkFailed, 0);
            }
            return 0;
        }
        walked = by_helper(bytes as u64 / 8);
        if side == Side::User {
            unwind::relate(slot as u64, bytes as u64 / 8);
        }
    }
    if side == Side::User { keep_stack(slot as u64, walked, 0x7573_6572) } else { keep_stack(slot as u64, walked, 0x6b65_726e) }
}

/// Bits of a number of frames in what a walk gives (see [`unwind::walk`]).
const LENGTH: u64 = (1 << WALK_SHIFT) - 1;

/// What the kernel's own walker found, as [`unwind::walk`] says it.
#[inline(always)]
fn by_helper(length: u64) -> u64 {
    let status = if length >= DEEPEST as u64 { StackStatus::TooDeep } else { StackStatus::Ended };
    length | (status as u64) << WALK_SHIFT
}

/// Whether a stack that could not be walked is missing to anyone: a stack of user space that the task has, or one of the kernel where these
/// were asked for. Elsewhere the kernel's is a substitute for the one of user space, for tasks that have none.
#[inline(always)]
fn was_asked_for(side: Side) -> bool {
    match side {
        // SAFETY: plain helper.
        Side::User => task::has_user_stack(unsafe { bpf_get_current_task() }),
        Side::Kernel => setting!(kernel_stacks) != 0,
    }
}

/// Gives the stack in the slot's scratch its identity and stores it. `walked` is how many frames it has and its status (see [`unwind::walk`]).
/// Whole stacks have other identities than those that end by chance in the same frames.
///
/// A global function with plain numbers as arguments: the kernel verifies it once, and not anew for each state in which a program
/// may call it, which is the difference between 10,000 and 500,000 instructions verified a program.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keep_stack(slot: u64, walked: u64, salt: u64) -> u64 {
    let (native, status) = (walked & LENGTH, walked >> WALK_SHIFT);
    let length = native + (status >> MANAGED_SHIFT & LENGTH);
    let Some(scratch) = SCRATCH.get_ptr_mut(slot as u32) else { return 0 };
    // SAFETY: a map value; the caller has marked it busy.
    let scratch = unsafe { &mut (*scratch).stack };
    if length == 0 {
        return 0;
    }
    let class = if status & 0xff == StackStatus::Root as u64 { 1 << 40 } else { 0 };
    let seed = salt ^ length ^ class ^ native << 16;
    let (mut identity, mut check) = (seed, seed);
    let mut chunk = 0;
    while chunk < MAX_FRAMES {
        if chunk as u64 >= length {
            break;
        }
        let mut i = chunk;
        while i < chunk + CHUNK {
            // Beyond the end a frame counts as zero, by arithmetic: a branch here would double the verifier's work with each frame.
            let within = ((i as i64 - length as i64) >> 63) as u64;
            let address = scratch.frames[i & (MAX_FRAMES - 1)] & within;
            identity = identity_step(identity, address);
            check = check_step(check, address);
            i += 1;
        }
        chunk += CHUNK;
    }
    identity |= 1;
    if let Some(known) = STACKS.get_ptr(identity) {
        // SAFETY: a map value; `check` is never changed after the insertion.
        if unsafe { (*known).check } == check {
            return identity;
        }
        loss::count(Loss::StackCollision, 0);
        return 0;
    }
    scratch.check = check;
    scratch.length = native as u32;
    scratch.status = status as u32;
    match STACKS.insert(identity, &*scratch, 1) {
        Ok(()) => identity,
        Err(EEXIST) => identity,
        Err(error) => {
            loss::count(loss::of_insert(error, Loss::StackTableFull), 0);
            0
        }
    }
}

const EEXIST: i32 = -17;
