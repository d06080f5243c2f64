//! Capturing call stacks, and giving them an identity of 64 bits with a check of another 64.

use crate::{loss, maps::STACKS};
use aya_ebpf::helpers::generated::bpf_get_stack;
use core::ffi::c_void;
use tracer_common::{
    loss::Loss,
    stack::{MAX_FRAMES, StackRecord, StackStatus, check_step, identity_step},
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
pub fn record(ctx: *mut c_void, side: Side, scratch: &mut StackRecord) -> u64 {
    let (flags, salt) = match side {
        Side::User => (USER, 0x7573_6572),
        Side::Kernel => (0, 0x6b65_726e),
    };
    // SAFETY: the buffer is as long as said.
    let bytes = unsafe { bpf_get_stack(ctx, scratch.frames.as_mut_ptr().cast(), (MAX_FRAMES * 8) as u32, flags) };
    if bytes < 0 {
        loss::count(Loss::StackWalkFailed, 0);
        return 0;
    }
    keep(scratch, bytes as u64 / 8, salt)
}

/// Gives the stack in `scratch` its identity and stores it.
#[inline(never)]
fn keep(scratch: &mut StackRecord, length: u64, salt: u64) -> u64 {
    if length == 0 {
        return 0;
    }
    let mut identity = salt;
    let mut check = salt;
    let mut i = 0;
    while i < MAX_FRAMES {
        if i as u64 >= length {
            break;
        }
        let address = scratch.frames[i];
        identity = identity_step(identity, address);
        check = check_step(check, address);
        i += 1;
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
    scratch.length = length as u32;
    scratch.status = if length >= MAX_FRAMES as u64 { StackStatus::TooDeep } else { StackStatus::Ended } as u32;
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
