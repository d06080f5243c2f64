//! What the cgroup filter says of owners, and how finely each is sampled; and what the kernel half knows of their names.

use super::{
    row::{ArrayTable, HashTable},
    runs,
};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::{births::Births, owner::OwnerName, settings::OwnerFilter};

/// By kernfs id. One that is not in it is recorded with the host's M.
pub static OWNERS: HashTable<u64, OwnerFilter> = HashTable::named("OWNERS").planned(|_| 1 << 12).forcible();

/// How many cgroups are made these days.
pub static BIRTHS: ArrayTable<Births> = ArrayTable::named("BIRTHS");

/// The name that the last look found.
pub static OWNER_NAME: ArrayTable<OwnerName> = ArrayTable::named("OWNER_NAME");

/// What the kernel still knows of the name of the owner of the live sample in `slot`.
pub fn owner_name(half: &mut KernelHalf, slot: u64) -> Result<OwnerName, BpfError> {
    runs::run(half, "run_owner_name", [slot, 0, 0])?;
    OWNER_NAME.get(half, 0)
}
