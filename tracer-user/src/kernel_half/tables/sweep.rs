//! The sweep: the kernel half looks again at samples, one by one, and says what became of each.

use super::runs;
use crate::kernel_half::{BpfError, loaded::KernelHalf};
use std::collections::HashMap;
use tracer_common::attribution::{SWEPT_DIRTY, SWEPT_WRITEBACK};

/// What the sweep found about one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// What became of it.
    pub verdict: SweepVerdict,
    /// Frames that some page table maps, of an anonymous folio; of others all that are left.
    pub mapped_frames: u64,
    /// Frames not yet uncharged.
    pub frames_left: u64,
    /// Owner now, 0 if none.
    pub owner: u64,
    /// The folio waits to be written to disk.
    pub dirty: bool,
    /// It is on its way there.
    pub writeback: bool,
}

/// What became of a swept sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SweepVerdict {
    /// It stands.
    Stands,
    /// It was pending and has its owner now.
    Settled,
    /// It is pending still.
    Pending,
    /// Its end was missed; ended now.
    Stale,
    /// It ended meanwhile.
    Gone,
}

/// Looks again at the samples in `slots`.
pub fn sweep(half: &mut KernelHalf, slots: impl Iterator<Item = u64>) -> Result<HashMap<u64, Swept>, BpfError> {
    let mut found = HashMap::new();
    for slot in slots {
        runs::run(half, "run_sweep", [slot, 0, 0])?;
        let [word, mapped_frames, frames_left, owner] = runs::run_result(half, 0)?;
        let (dirty, writeback) = (word & SWEPT_DIRTY != 0, word & SWEPT_WRITEBACK != 0);
        let verdict = match word & !(SWEPT_DIRTY | SWEPT_WRITEBACK) {
            0 => SweepVerdict::Stands,
            1 => SweepVerdict::Settled,
            2 => SweepVerdict::Pending,
            3 => SweepVerdict::Stale,
            _ => SweepVerdict::Gone,
        };
        found.insert(slot, Swept { verdict, mapped_frames, frames_left, owner, dirty, writeback });
    }
    Ok(found)
}
