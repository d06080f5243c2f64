//! Threads that wait for memory at this moment.

use super::row::{ArrayTable, HashTable};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::{histogram::WAITERS, loss::Loss};

/// Reclaims that run, by thread.
pub static RECLAIMS: HashTable<u64, [u64; 2]> = HashTable::named("RECLAIMS").fixed(WAITERS).loses(&[Loss::StallTableFull]);

/// Charges that have waited for reclaim, by thread.
pub static STALLS: HashTable<u64, [u64; 4]> = HashTable::named("STALLS").fixed(WAITERS).loses(&[Loss::StallTableFull]);

/// Tasks that are held up for being over `memory.high`, by thread.
pub static HIGH_CALLS: HashTable<u64, [u64; 2]> = HashTable::named("HIGH_CALLS").fixed(WAITERS).loses(&[Loss::StallTableFull]);

/// As many as there are entries in `STALLS`, for the kernel half.
pub static STALLED: ArrayTable<u64> = ArrayTable::named("STALLED");

/// Names of the tables of threads that wait: in reclaim, in a charge, and for being over `memory.high`. Each has room for [`WAITERS`].
pub const WAITS: [&str; 3] = ["RECLAIMS", "STALLS", "HIGH_CALLS"];

/// Threads in each of [`WAITS`].
pub fn waiting(half: &KernelHalf) -> Result<[usize; WAITS.len()], BpfError> {
    Ok([RECLAIMS.entries(half)?.len(), STALLS.entries(half)?.len(), HIGH_CALLS.entries(half)?.len()])
}
