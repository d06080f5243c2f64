//! Address space that processes asked for.

use super::row::{ArrayTable, HashTable, LruHashTable, PerCpuArrayTable};
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::HashMap;
use tracer_common::{
    loss::Loss,
    mapping::{CALLS, Mapper, MappingCall, MappingCounts, MappingRecord},
};

/// Address space by identity of who asked for it.
pub static MAPPINGS: HashTable<u64, MappingRecord> =
    HashTable::named("MAPPINGS").planned(|_| 1 << 12).halved().forcible().loses(&[Loss::MappingTableFull]);

/// How much each process maps. Each CPU takes 128 free entries at a time from such a table (kernel/bpf/bpf_lru_list.c, less since 6.16): with
/// fewer, one CPU's processes push out another's. Enough for 64 CPUs; beyond, some begin anew, which takes more calls than need be.
pub static MAPPERS: LruHashTable<u32, Mapper> =
    LruHashTable::named("MAPPERS").planned(|wish: &Wish| wish.cpus_possible.saturating_mul(256).clamp(1 << 11, 1 << 13));

/// Calls that are not over, by thread.
pub static MAPPING_CALLS: ArrayTable<MappingCall> = ArrayTable::named("MAPPING_CALLS").fixed(CALLS);

/// How many calls there were.
pub static MAPPING_COUNTS: PerCpuArrayTable<MappingCounts> = PerCpuArrayTable::named("MAPPING_COUNTS");

/// Calls that are missing in the ring of mappings.
pub static MAPPINGS_LOST: ArrayTable<u64> = ArrayTable::named("MAPPINGS_LOST").loses(&[Loss::MappingEventLost]);

/// Address space by identity of who asked for it.
pub fn records(half: &KernelHalf) -> Result<HashMap<u64, MappingRecord>, BpfError> {
    MAPPINGS.entries(half)
}

/// Removes records; those that are gone already are passed over.
pub fn remove(half: &mut KernelHalf, identities: &[u64]) -> Result<(), BpfError> {
    MAPPINGS.remove(half, identities)
}

/// Calls so far, and how many of them were passed over in storms; summed over CPUs.
pub fn counts(half: &KernelHalf) -> Result<MappingCounts, BpfError> {
    let values = MAPPING_COUNTS.get(half, 0)?;
    Ok(values.iter().fold(MappingCounts::default(), |sum, one| MappingCounts {
        calls: sum.calls.wrapping_add(one.calls),
        thinned: sum.thinned.wrapping_add(one.thinned),
    }))
}
