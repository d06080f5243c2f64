//! Address space that processes asked for: the kernel half's table and its events.

use super::{BpfError, batch, tables};
use aya::Ebpf;
use std::collections::HashMap;
use tracer_common::mapping::{MappingCounts, MappingEvent, MappingRecord};

const TABLE: &str = "MAPPINGS";

/// Address space by identity of who asked for it.
pub fn records(bpf: &Ebpf) -> Result<HashMap<u64, MappingRecord>, BpfError> {
    batch::entries(bpf, TABLE)
}

/// Removes records; those that are gone already are passed over.
pub fn remove(bpf: &mut Ebpf, identities: &[u64]) -> Result<(), BpfError> {
    tables::remove_all::<u64, MappingRecord>(bpf, TABLE, identities)
}

/// Calls so far, and how many of them were passed over in storms; summed over CPUs.
pub fn counts(bpf: &Ebpf) -> Result<MappingCounts, BpfError> {
    let values = tables::of_cpus::<MappingCounts>(bpf, "MAPPING_COUNTS")?;
    Ok(values.iter().fold(MappingCounts::default(), |sum, one| MappingCounts {
        calls: sum.calls.wrapping_add(one.calls),
        thinned: sum.thinned.wrapping_add(one.thinned),
    }))
}

/// The event in an entry of the ring; `None` for one that is too short.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<MappingEvent> {
    if bytes.len() < size_of::<MappingEvent>() {
        return None;
    }
    // SAFETY: long enough, and every bit pattern is a value of this plain type; the read does not need alignment.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
