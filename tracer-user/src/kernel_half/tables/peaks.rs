//! The peak of each owner.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::{attribution::Peak, loss::Loss};

/// By kernfs id.
pub static PEAKS: HashTable<u64, Peak> = HashTable::named("PEAKS").planned(|_| 4000).forcible().loses(&[Loss::PeakTableFull]);

/// Peaks by owner.
pub fn peaks(half: &KernelHalf) -> Result<HashMap<u64, Peak>, BpfError> {
    PEAKS.entries(half)
}

/// Removes the peaks of owners.
pub fn remove_peaks(half: &mut KernelHalf, owners: &[u64]) -> Result<(), BpfError> {
    PEAKS.remove(half, owners)
}
