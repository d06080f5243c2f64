//! Files whose pages are cached, or that shmem is of.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::{file::FileRecord, loss::Loss};

/// By identity.
pub static FILES: HashTable<u64, FileRecord> =
    HashTable::named("FILES").planned(|_| 1 << 12).halved().forcible().loses(&[Loss::FileTableFull]);

/// Files by identity.
pub fn files(half: &KernelHalf) -> Result<HashMap<u64, FileRecord>, BpfError> {
    FILES.entries(half)
}

/// Identities of the files that have a record; one that comes meanwhile may be there twice.
pub fn known_files(half: &KernelHalf) -> Result<Vec<u64>, BpfError> {
    let mut files = Vec::new();
    FILES.each(half, |file, _| files.push(*file))?;
    Ok(files)
}

/// Removes files.
pub fn remove_files(half: &mut KernelHalf, identities: &[u64]) -> Result<(), BpfError> {
    FILES.remove(half, identities)
}
