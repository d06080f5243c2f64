//! Exact bytes by owner, counted without sampling.

use super::{row::PerCpuHashTable, runs};
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::HashMap;
use tracer_common::{attribution::OwnerTotals, kind::Kind, loss::Loss};

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

/// Removes exact totals and gives their last values, summed over CPUs; `None` if there are none, or if they are
/// still there because the table was busy.
pub fn take_owner_totals(half: &mut KernelHalf, owner: u64) -> Result<Option<OwnerTotals>, BpfError> {
    let Some(of_cpus) = OWNER_TOTALS.take(half, &owner)? else { return Ok(None) };
    let mut sum = OwnerTotals::default();
    of_cpus.iter().for_each(|one| sum.add(one));
    Ok(Some(sum))
}

/// Adds to what an owner was charged as a kind.
pub fn hand_over(half: &mut KernelHalf, owner: u64, kind: Kind, bytes: i64) -> Result<(), BpfError> {
    runs::run(half, "run_hand_over", [owner, kind as u64, bytes as u64])
}

/// Exact bytes by owner, summed over CPUs.
pub fn owner_totals(half: &KernelHalf) -> Result<HashMap<u64, OwnerTotals>, BpfError> {
    let mut found = HashMap::new();
    OWNER_TOTALS.each(half, |owner, values| {
        let mut sum = OwnerTotals::default();
        values.iter().for_each(|value| sum.add(value));
        found.insert(owner, sum);
    })?;
    Ok(found)
}
