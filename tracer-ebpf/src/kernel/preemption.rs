//! Whether the kernel may preempt the program that runs.

use crate::globals::layout;
use aya_ebpf::helpers::generated::bpf_this_cpu_ptr;
use core::{arch::asm, ffi::c_void};
use tracer_common::layout::VARIABLE;

/// Times that preemption was disabled (include/linux/preempt.h): the lowest byte, above it are interrupts.
const PREEMPT_MASK: u32 = 0xff;

/// Whether preemption is disabled; `None` where this kernel's count cannot be read.
#[inline(always)]
pub fn is_disabled() -> Option<bool> {
    layout!(preempt_count)?;
    let variable: *const c_void;
    // SAFETY: loads a constant. The user half has put the variable in its place where the layout knows it; elsewhere this is dead code.
    unsafe { asm!("{} = {} ll", out(reg) variable, const VARIABLE) };
    // SAFETY: the address of this CPU's own, which every program may read.
    let count = unsafe { *bpf_this_cpu_ptr(variable).cast::<u32>() };
    Some(count & PREEMPT_MASK != 0)
}
