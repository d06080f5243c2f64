//! Exact bytes by owner, counted without sampling.

use super::row::PerCpuHashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::HashMap;
use tracer_common::{attribution::OwnerTotals, loss::Loss};

/// A value for each possible CPU, so fewer owners on many CPUs.
fn planned(wish: &Wish) -> u32 {
    const BYTES: u64 = 16 << 20;
    let entries = BYTES / (u64::from(wish.cpus_possible.max(1)) * size_of::<OwnerTotals>() as u64);
    u32::try_from(entries).unwrap_or(u32::MAX).clamp(1 << 8, 1 << 12)
}

/// By kernfs id.
pub static OWNER_TOTALS: PerCpuHashTable<u64, OwnerTotals> =
    PerCpuHashTable::named("OWNER_TOTALS").planned(planned).forcible().loses(&[Loss::OwnerTableFull]);

/// Owners that have exact totals. One that goes while the table is walked may be left out.
pub fn owners_with_totals(half: &KernelHalf) -> Result<Vec<u64>, BpfError> {
    OWNER_TOTALS.keys(half)
}

/// Removes exact totals; those of owners that have none are passed over.
pub fn forget_owner_totals(half: &mut KernelHalf, owners: &[u64]) -> Result<(), BpfError> {
    OWNER_TOTALS.remove(half, owners)
}

/// Exact bytes by owner, summed over CPUs.
pub fn owner_totals(half: &KernelHalf) -> Result<HashMap<u64, OwnerTotals>, BpfError> {
    let mut found = HashMap::new();
    OWNER_TOTALS.each(half, |owner, values| {
        let mut sum = OwnerTotals::default();
        for value in values.iter() {
            for kind in 0..sum.charged.len() {
                sum.charged[kind] = sum.charged[kind].wrapping_add(value.charged[kind]);
                sum.uncharged[kind] = sum.uncharged[kind].wrapping_add(value.uncharged[kind]);
            }
        }
        found.insert(owner, sum);
    })?;
    Ok(found)
}
