//! One file a probe, with all its providers. The entry points in `main.rs` fetch the arguments and call these.

pub mod anon_commit;
pub mod baseline;
pub mod calibrate;
pub mod cgroup;
pub mod dirty;
pub mod file_commit;
pub mod follow;
pub mod freeze;
pub mod image;
pub mod lru_insertion;
pub mod mapping;
pub mod migrate;
pub mod migration_pte;
pub mod oom;
pub mod owner;
pub mod page_alloc;
pub mod page_free;
pub mod reclaim;
pub mod shmem_commit;
pub mod swapin;
pub mod swapout;
pub mod sweep;
pub mod uncharge;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use core::{arch::asm, ffi::c_void};

/// Argument `n` of a raw tracepoint program, where `n` is not known when it is built: only the helper loads from an address in the context that
/// is computed.
#[inline(always)]
pub fn computed_argument(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the context of these programs is an array of u64, as long as the target has arguments.
    unsafe { bpf_probe_read_kernel(ctx.cast::<u64>().add(n)) }.unwrap_or(0)
}

/// Arguments 1 and 2 of a raw tracepoint's, or 2 and 3. By hand: the compiler would choose an address and load from it, which the verifier
/// refuses.
#[inline(always)]
pub fn two_arguments(ctx: *mut c_void, early: bool) -> [u64; 2] {
    let (first, second): (u64, u64);
    // SAFETY: loads from the context, which is an array of u64 as long as the tracepoint has arguments.
    unsafe {
        if early {
            asm!("{a} = *(u64 *)({ctx} + 8)", "{b} = *(u64 *)({ctx} + 16)", a = out(reg) first, b = lateout(reg) second, ctx = in(reg) ctx);
        } else {
            asm!("{a} = *(u64 *)({ctx} + 16)", "{b} = *(u64 *)({ctx} + 24)", a = out(reg) first, b = lateout(reg) second, ctx = in(reg) ctx);
        }
    }
    [first, second]
}
