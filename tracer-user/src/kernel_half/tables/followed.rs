//! Processes that are followed (`--pid`): user space puts the first ones in, the kernel half their later children.

use super::{handles::Written, row::HashTable};
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use tracer_common::{loss::Loss, settings::Followed};

/// Processes alive at once below those that are followed: a build on a large host has a few hundred.
const AT_ONCE: u32 = 1 << 12;

/// By thread-group id.
pub static FOLLOWED: HashTable<u32, Followed> =
    HashTable::named("FOLLOWED").planned(|wish| if wish.follow { AT_ONCE } else { 1 }).forcible().loses(&[Loss::FollowedTableFull]);

/// Follows a process from its next charge on.
pub fn follow(half: &mut KernelHalf, tgid: u32) -> Result<(), BpfError> {
    match FOLLOWED.insert(half, &tgid, &Followed::default())? {
        Written::Done => Ok(()),
        // Without it the recording would be of something else than what was asked for.
        refused => Err(BpfError::NotFollowed { tgid, why: if refused == Written::Full { "full" } else { "busy" } }),
    }
}

/// Follows a process no longer; nothing happens if it is not followed.
pub fn forget(half: &mut KernelHalf, tgid: u32) -> Result<(), BpfError> {
    FOLLOWED.remove(half, &[tgid])
}
