//! One file a probe, with all its providers. The entry points in `main.rs` fetch the arguments and call these.

pub mod anon_commit;
pub mod baseline;
pub mod calibrate;
pub mod cgroup;
pub mod charge;
pub mod dirty;
pub mod file_commit;
pub mod follow;
pub mod freeze;
pub mod lru_insertion;
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
use core::ffi::c_void;

/// Argument `n` of a raw tracepoint, fentry or fexit program as a plain number. A typed pointer could not be shifted
/// to a frame number: the verifier refuses arithmetic on it. Read through the helper it is a scalar.
#[inline(always)]
pub fn argument(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the context of these programs is an array of u64, as long as the target has arguments.
    unsafe { bpf_probe_read_kernel(ctx.cast::<u64>().add(n)) }.unwrap_or(0)
}
