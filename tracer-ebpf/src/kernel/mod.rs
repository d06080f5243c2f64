//! Typed readers of kernel memory. Absent or unreadable is `None`, never zero.

pub mod file;
pub mod folio;
pub mod memcg;
pub mod oom;
pub mod registers;
pub mod task;

use aya_ebpf::helpers::bpf_probe_read_kernel;

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
