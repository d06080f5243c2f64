//! Keys: who made memory resident, with what is charged and live of it.

use super::{handles::Written, row::HashTable};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::{attribution::KeyRecord, loss::Loss};

/// By identity.
pub static KEYS: HashTable<u64, KeyRecord> =
    HashTable::named("KEYS").planned(|_| 1 << 15).halved().forcible().loses(&[Loss::KeyTableFull, Loss::KeyCollision]);

/// Keys by identity.
pub fn keys(half: &KernelHalf) -> Result<HashMap<u64, KeyRecord>, BpfError> {
    KEYS.entries(half)
}

/// Removes a key and gives its last value, or leaves it and gives `None` if it has live bytes again.
pub fn take_key(half: &mut KernelHalf, identity: u64) -> Result<Option<KeyRecord>, BpfError> {
    if KEYS.get(half, &identity)?.is_none_or(|record| record.live() != 0) {
        return Ok(None);
    }
    let Some(record) = KEYS.take(half, &identity)?.value() else { return Ok(None) };
    if record.live() == 0 {
        return Ok(Some(record));
    }
    // A charge came between the two looks: what is live must find its key when it ends.
    if KEYS.insert_new(half, &identity, &record)? == Written::Done {
        return Ok(None);
    }
    half.troubles.removed_in_use();
    Ok(Some(record))
}
