//! Processes that caused something.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::{loss::Loss, process::ProcessRecord};

/// By identity.
pub static PROCESSES: HashTable<u64, ProcessRecord> =
    HashTable::named("PROCESSES").planned(|_| 1 << 14).halved().forcible().loses(&[Loss::ProcessTableFull]);

/// Processes by identity.
pub fn processes(half: &KernelHalf) -> Result<HashMap<u64, ProcessRecord>, BpfError> {
    PROCESSES.entries(half)
}

/// Removes processes.
pub fn remove_processes(half: &mut KernelHalf, identities: &[u64]) -> Result<(), BpfError> {
    PROCESSES.remove(half, identities)
}
