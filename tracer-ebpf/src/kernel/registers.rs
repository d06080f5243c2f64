//! What a system call was asked for: the registers that it was entered with.

use crate::globals::layout;
use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use tracer_common::stack::{BY_FAULT, BY_READ, BY_WRITE};

/// Offset of r10 in `struct pt_regs` (arch/x86/include/uapi/asm/ptrace.h): the first of those that are read.
const R10: u64 = 56;
/// Code segment of 32-bit programs, whose system calls have other numbers and registers (arch/x86/include/asm/segment.h).
const USER32_CS: u64 = 0x23;

/// Registers of a system call on x86_64, from r10 up to cs, in the order of `struct pt_regs`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Registers {
    /// Fourth argument.
    pub fourth: u64,
    sixth: u64,
    /// Fifth argument.
    pub fifth: u64,
    ax: u64,
    cx: u64,
    /// Third argument.
    pub third: u64,
    /// Second argument.
    pub second: u64,
    /// First argument.
    pub first: u64,
    /// Number of the system call.
    pub number: u64,
    ip: u64,
    cs: u64,
}

impl Registers {
    /// Number of the system call; [`u64::MAX`] if this is another's (a 32-bit program's).
    #[inline(always)]
    pub fn call(&self) -> u64 {
        if self.cs == USER32_CS { u64::MAX } else { self.number }
    }
}

/// How the current task entered the kernel, where that says as much as the kernel's stack would: [`BY_FAULT`], [`BY_READ`], [`BY_WRITE`];
/// else 0.
#[inline(always)]
pub fn entry() -> u64 {
    /// What stands for the number where no system call was made (arch/x86/entry/entry_64.S, `idtentry_body`).
    const NONE: u64 = u64::MAX;
    // The constant of a kernel without the helper makes what follows dead code, which its verifier does not look at.
    if layout!(task_pt_regs).is_none() {
        return 0;
    }
    let Some(registers) = of_current() else { return 0 };
    if registers.cs == USER32_CS {
        return 0;
    }
    // arch/x86/entry/syscalls/syscall_64.tbl: with the vectored forms and those at an offset.
    match registers.number {
        NONE => BY_FAULT,
        0 | 17 | 19 | 295 | 327 => BY_READ,
        1 | 18 | 20 | 296 | 328 => BY_WRITE,
        _ => 0,
    }
}

/// The registers at `pt_regs`.
#[inline(always)]
pub fn read(pt_regs: u64) -> Option<Registers> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((pt_regs + R10) as *const Registers) }.ok()
}

/// Those with which the current task entered the kernel.
#[inline(always)]
pub fn of_current() -> Option<Registers> {
    // SAFETY: plain helpers; the task is the current one, so its registers are there.
    let pt_regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
    read(pt_regs as u64)
}
