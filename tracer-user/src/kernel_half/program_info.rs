//! What the kernel says of a loaded program that aya does not pass on: how often it was skipped because it was running already.

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Command of bpf(2) (include/uapi/linux/bpf.h).
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// Room for a `struct bpf_prog_info`; later kernels fill no more than they are given.
const INFO_BYTES: usize = 256;
/// Offset of `recursion_misses` in it: part of the system-call interface, since 5.12.
const RECURSION_MISSES: usize = 208;

/// The attribute of the command.
#[repr(C)]
struct Attribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// Times that the kernel skipped the program because it was running on that CPU already; `None` where it does not count them
/// (before 5.12), or does not say.
#[must_use]
pub fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    let mut info = [0_u64; INFO_BYTES / 8];
    let mut attribute =
        Attribute { fd: u32::try_from(program.as_raw_fd()).ok()?, length: INFO_BYTES as u32, info: info.as_mut_ptr() as u64 };
    // SAFETY: the attribute is that of the command, and names a buffer of the length that it gives; both outlive the call. The buffer
    // is all zeros, so the kernel finds no pointers in it to write to.
    let status = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attribute, size_of::<Attribute>()) };
    (status == 0 && attribute.length as usize >= RECURSION_MISSES + 8).then(|| info[RECURSION_MISSES / 8])
}
