//! Who made page cache dirty.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::{
    dirty::{DirtyKey, DirtyRecord},
    loss::Loss,
};

/// By owner, file, process and stack.
pub static DIRTIED: HashTable<DirtyKey, DirtyRecord> =
    HashTable::named("DIRTIED").planned(|_| 1 << 12).halved().forcible().loses(&[Loss::DirtyTableFull]);

/// Who made page cache dirty.
pub fn dirtied(half: &KernelHalf) -> Result<HashMap<DirtyKey, DirtyRecord>, BpfError> {
    DIRTIED.entries(half)
}

/// Removes an entry of that table and gives its last value; `None` if it is gone already, or stays for now.
pub fn take_dirtied(half: &mut KernelHalf, key: &DirtyKey) -> Result<Option<DirtyRecord>, BpfError> {
    Ok(DIRTIED.take(half, key)?.value())
}
