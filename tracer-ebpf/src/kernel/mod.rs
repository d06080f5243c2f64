//! Typed readers of kernel memory. Absent or unreadable is `None`, never zero; where `None` costs the verifier's goodwill, it is a number that
//! stands for it.

pub mod file;
pub mod folio;
pub mod memcg;
pub mod oom;
pub mod preemption;
pub mod registers;
pub mod task;
pub mod typed;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use tracer_common::oom::UNKNOWN;

/// Reads a `T` at `address + offset`; `None` if this kernel has no such member or the read fails.
#[inline(always)]
pub fn read<T>(address: u64, offset: Option<u64>) -> Option<T> {
    let offset = offset?;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((address + offset) as *const T) }.ok()
}

/// Reads a pointer; null is `None`.
#[inline(always)]
pub fn read_pointer(address: u64, offset: Option<u64>) -> Option<u64> {
    match read::<u64>(address, offset) {
        Some(0) | None => None,
        Some(pointer) => Some(pointer),
    }
}

/// A word, or [`UNKNOWN`]. Not through `Option`: LLVM moves payloads that it has not set, which the verifier refuses.
#[inline(always)]
pub fn word(address: u64, offset: Option<u64>) -> u64 {
    let Some(offset) = offset else { return UNKNOWN };
    let mut value = 0_u64;
    // SAFETY: the helper checks the address; the destination is as long as said.
    let result = unsafe { generated::bpf_probe_read_kernel((&raw mut value).cast(), 8, (address + offset) as *const _) };
    if result < 0 { UNKNOWN } else { value }
}

/// A pointer; 0 if it is null or cannot be read.
#[inline(always)]
pub fn pointer(address: u64, offset: Option<u64>) -> u64 {
    let value = word(address, offset);
    if value == UNKNOWN { 0 } else { value }
}
