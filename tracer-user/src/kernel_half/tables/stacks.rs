//! Stacks as they were walked.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf, stack::Stack};
use std::collections::HashMap;
use tracer_common::{loss::Loss, stack::StackRecord};

/// By identity.
pub static STACKS: HashTable<u64, StackRecord> = HashTable::named("STACKS").planned(|_| 1 << 13).halved().forcible().loses(&[
    Loss::StackTableFull,
    Loss::StackCollision,
    Loss::StackWalkFailed,
]);

/// Stacks by identity.
pub fn stacks(half: &KernelHalf) -> Result<HashMap<u64, Stack>, BpfError> {
    STACKS.entries_as(half, |record| Stack::from(record))
}

/// Removes stacks.
pub fn remove_stacks(half: &mut KernelHalf, identities: &[u64]) -> Result<(), BpfError> {
    STACKS.remove(half, identities)
}
