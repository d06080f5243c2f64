//! Whether the kernel may preempt programs on tracepoints, and what to do about it.
//!
//! The kernel does not run a program on a CPU on which the same program runs already: it passes the call over and counts it
//! (`bpf_prog_inc_misses_counter`). Tracepoints used to run their programs with preemption disabled, so that only an interrupt could
//! come between. In 7.3 these programs can be preempted: while one of them waits for the CPU, the calls of all other tasks on that CPU
//! are passed over.
//!
//! A look at the preemption count from within a program tells which of the two a kernel does. Where programs can be preempted, a second
//! program (the spare) is attached to the tracepoint of allocations, whose program runs longest. It takes an allocation only while the
//! first program is in the middle of one. The first program cannot put preemption off until it has ended: what is put off happens as
//! soon as it is allowed again, which is before the program ends.

use super::attach;
use aya::Ebpf;
use std::borrow::Cow;
use tracer_common::layout::{ABSENT, KernelLayout, VARIABLE};

/// The tracepoint of allocations.
pub(super) const ALLOCATIONS: &str = "mm_page_alloc";

/// `lddw` (Documentation/bpf/standardization/instruction-set.rst): the only instruction of two slots, each with half of the constant at its end.
const LOAD_CONSTANT: u8 = 0x18;
/// `BPF_PSEUDO_BTF_ID` (include/uapi/linux/bpf.h): the first half is the type id of a variable of the kernel.
const OF_KERNEL: u8 = 3;
/// Bytes of the instruction.
const LENGTH: usize = 16;

/// The object, in which the load of the variable's address names it as this kernel does.
#[must_use]
pub fn named<'a>(object: &'a [u8], layout: &KernelLayout) -> Cow<'a, [u8]> {
    if layout.preempt_count == ABSENT {
        return Cow::Borrowed(object);
    }
    let mut object = object.to_vec();
    let (low, high) = (VARIABLE as u32, (VARIABLE >> 32) as u32);
    // Instructions are aligned in their sections, and those in the file; half an instruction is eight bytes.
    for at in (0..object.len().saturating_sub(LENGTH - 1)).step_by(LENGTH / 2) {
        let Some(load) = object.get_mut(at..at + LENGTH) else { continue };
        let is_ours = load[0] == LOAD_CONSTANT && load[4..8] == low.to_le_bytes() && load[12..] == high.to_le_bytes();
        if is_ours {
            load[1] |= OF_KERNEL << 4;
            load[4..8].copy_from_slice(&layout.preempt_count.to_le_bytes());
            load[12..].fill(0);
        }
    }
    Cow::Owned(object)
}

/// Attaches the spare for allocations. Where the kernel refuses it, what is passed over is lost, and counted.
pub fn attach_spare(bpf: &mut Ebpf) {
    if let Err(error) = attach::to_tracepoint(bpf, "page_alloc_spare", ALLOCATIONS) {
        log::warn!("allocations that the kernel passes over are lost: {}", attach::describe(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_half::OBJECT;

    #[test]
    fn the_one_load_names_the_variable_and_nothing_else_changes() {
        assert!(matches!(named(OBJECT, &KernelLayout::UNKNOWN), Cow::Borrowed(_)));
        let changed = named(OBJECT, &KernelLayout { preempt_count: 0x1234, ..KernelLayout::UNKNOWN });
        let differing: Vec<usize> = (0..OBJECT.len()).filter(|at| changed[*at] != OBJECT[*at]).collect();
        let at = differing[0] / 8 * 8;
        assert!(differing.iter().all(|byte| (at..at + LENGTH).contains(byte)), "{differing:?}");
        let (load, register) = (&changed[at..at + LENGTH], OBJECT[at + 1]);
        assert_eq!(load, [LOAD_CONSTANT, register | 0x30, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
