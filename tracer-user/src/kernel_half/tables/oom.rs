//! What the kernel half describes of an OOM kill.

use super::{row::ArrayTable, runs};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::oom::{OomCall, OomKill, OomLevel};

/// Entry 0: the kill that is being described; 1: the tracer's look at itself.
pub static OOM_RECORD: ArrayTable<OomKill> = ArrayTable::named("OOM_RECORD").fixed(2);

/// The OOM killer's running call.
pub static OOM_CALL: ArrayTable<OomCall> = ArrayTable::named("OOM_CALL");

/// What the kernel half reads of the cgroups of this very process, from its own upwards.
pub fn own_levels(half: &mut KernelHalf) -> Result<Vec<OomLevel>, BpfError> {
    runs::run(half, "run_oom_self", [0; 3])?;
    let record = OOM_RECORD.get(half, 1)?;
    Ok(record.levels.get(..record.level_count as usize).unwrap_or_default().to_vec())
}
