//! Where a walk begins: the registers with which the current task entered the kernel, and its address space.

use super::state;
use crate::globals::layout;
use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_ktime_get_ns,
    generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs},
};
use tracer_common::unwind::{End, register};

/// Bytes of a kernel stack on x86_64 (arch/x86/include/asm/page_64_types.h, without KASAN). Used where the kernel has no helper that finds the
/// registers; what is found is checked.
const THREAD_SIZE: u64 = 16_384;
/// Code segment of 64-bit user code (arch/x86/include/asm/segment.h).
const USER_CS: u64 = 0x33;
/// System calls that put another program in the task's place (arch/x86/entry/syscalls/syscall_64.tbl).
const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;

/// Reads kernel memory into working memory.
#[inline(always)]
pub fn fetch(to: *mut u64, bytes: u32, from: u64) -> bool {
    // SAFETY: the callers' buffers are that long; the helper checks the address.
    unsafe { bpf_probe_read_kernel(to.cast(), bytes, from as *const _) == 0 }
}

/// Makes the slot's working memory ready for look-ups of mappings of the current task; 0 if it has none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clear(slot: u64) -> u64 {
    let Some(s) = state(slot) else { return 0 };
    s.turn = 0;
    s.tries = 0;
    s.is_narrow = 0;
    s.current.start = 0;
    s.current.end = 0;
    s.known[0].end = 0;
    s.known[0].start = 0;
    s.known[1].end = 0;
    s.known[1].start = 0;
    s.known[2].end = 0;
    s.known[2].start = 0;
    s.known[3].end = 0;
    s.known[3].start = 0;
    // SAFETY: plain helpers.
    let task = unsafe { bpf_get_current_task() };
    s.now_s = unsafe { bpf_ktime_get_ns() } >> 30;
    let Some(mm) = layout!(task_mm) else { return 0 };
    u64::from(fetch(&raw mut s.mm, 8, task + mm) && s.mm != 0)
}

/// Makes it ready for a walk. An [`End`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin(slot: u64) -> u64 {
    const NONE: u64 = End::NoRegisters as u64;
    let Some(s) = state(slot) else { return NONE };
    if clear(slot) == 0 {
        return NONE;
    }
    s.length = 0;
    s.place = 0;
    s.guessed = 0;
    s.window_bytes = 0;
    s.is_planted = 0;
    s.python = 0;
    s.v8 = 0;
    s.hotspot = 0;
    s.java_state = 0;
    s.java_asked = 0;
    s.is_leaf = 1;
    s.registers.returns = 0;
    s.registers.bp_known = 1;
    // SAFETY: plain helper.
    let task = unsafe { bpf_get_current_task() };
    let at = if layout!(task_pt_regs).is_some() {
        // SAFETY: plain helpers; the task is the current one.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    } else {
        let (Some(stack), Some(size)) = (layout!(task_stack), layout!(pt_regs_size)) else { return NONE };
        if !fetch(&raw mut s.word, 8, task + stack) {
            return NONE;
        }
        s.word + THREAD_SIZE - size
    };
    if !fetch(s.leaf.as_mut_ptr(), (register::COUNT * 8) as u32, at) || s.leaf[register::CS as usize] != USER_CS {
        return NONE;
    }
    let call = s.leaf[register::ORIG_AX as usize];
    if call == EXECVE || call == EXECVEAT {
        // From when the new address space is in place until the new program's code is known, the registers are still the old program's.
        if !fetch(&raw mut s.word, 8, s.mm + layout!(mm_start_code).unwrap_or(0)) || s.word == 0 {
            return End::Busy as u64;
        }
    }
    s.registers.bp = s.leaf[register::BP as usize];
    s.registers.pc = s.leaf[register::IP as usize];
    s.registers.sp = s.leaf[register::SP as usize];
    End::Not as u64
}
