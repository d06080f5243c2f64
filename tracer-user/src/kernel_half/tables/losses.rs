//! What the kernel half lost, by cause, and what it passed over without losing it.

use super::row::PerCpuArrayTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::loss::{LOSSES, Loss, LossCount};

/// By number of the cause.
pub static LOSS_COUNTS: PerCpuArrayTable<LossCount> = PerCpuArrayTable::named("LOSS_COUNTS").fixed(LOSSES as u32);

/// Allocations that the kernel passed over and the spare program took.
pub static PASSED_ON: PerCpuArrayTable<u64> = PerCpuArrayTable::named("PASSED_ON");

/// Losses by cause, summed over CPUs.
pub fn losses(half: &KernelHalf) -> Result<Vec<(Loss, LossCount)>, BpfError> {
    let sum = |cause: &Loss| {
        let values = LOSS_COUNTS.get(half, *cause as u32)?;
        let sum = values.iter().fold(LossCount::default(), |sum, one| LossCount {
            events: sum.events.wrapping_add(one.events),
            bytes: sum.bytes.wrapping_add(one.bytes),
        });
        Ok((*cause, sum))
    };
    Loss::ALL.iter().map(sum).collect()
}

/// Allocations that were passed over and taken by the spare.
pub fn passed_on(half: &KernelHalf) -> Result<u64, BpfError> {
    Ok(PASSED_ON.get(half, 0)?.iter().sum())
}
