//! What changes while the trace runs.

use super::row::ArrayTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::settings::Control;

/// The state that both halves share.
pub static CONTROL: ArrayTable<Control> = ArrayTable::named("CONTROL");

/// Reads it.
pub fn control(half: &KernelHalf) -> Result<Control, BpfError> {
    CONTROL.get(half, 0)
}

/// Sets it.
pub fn set_control(half: &mut KernelHalf, control: Control) -> Result<(), BpfError> {
    CONTROL.set(half, 0, control)
}

/// The section of globals that are not read-only, of which there is one.
static VARIABLES: ArrayTable<u64> = ArrayTable::named(".bss");

/// Tells the programs where the page structs begin.
pub fn set_vmemmap(half: &mut KernelHalf, base: u64) -> Result<(), BpfError> {
    VARIABLES.set(half, 0, base)
}
