//! What was charged: the kernel half's keys and samples as they were, exact totals, and the sums of what left its tables.

use super::names::FrameId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tracer_common::attribution::{KeyRecord, OwnerTotals, Peak, Sample};

/// Charges by identity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Charges {
    /// Keys by identity.
    pub keys: HashMap<u64, KeyRecord>,
    /// Live samples by slot.
    pub samples: HashMap<u64, Sample>,
    /// What the sweep found, by slot.
    pub swept: HashMap<u64, Swept>,
    /// Exact totals by owner; empty where the tier keeps none.
    pub totals: HashMap<u64, OwnerTotals>,
    /// Peaks by owner.
    #[serde(default)]
    pub peaks: HashMap<u64, Peak>,
    /// Keys that left the kernel's tables.
    pub retired: Vec<Retired>,
}

/// What the sweep found of one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Frames that are charged and that no page table maps.
    pub unmapped_frames: u64,
    /// The folio waits to be written to disk.
    pub dirty: bool,
    /// It is on its way there.
    pub writeback: bool,
}

/// Keys of equal words that left the kernel's tables: everything they charged is uncharged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Owner at charge.
    pub owner: u64,
    /// Number of the kind.
    pub kind: u32,
    /// Name of the thread-group leader.
    pub comm: String,
    /// Status of the stack.
    pub status: String,
    /// Outermost first.
    pub frames: Vec<FrameId>,
    /// Bytes charged.
    pub bytes: u64,
    /// Variance of `bytes` in frames squared.
    pub variance: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes live at the peak of its owner that was left as the one of this number.
    #[serde(default)]
    pub peak: u64,
    /// See `peak`.
    #[serde(default)]
    pub peak_mark: u64,
}

impl Charges {
    /// Bytes of a key at the peak of its owner; `None` where that is not known.
    #[must_use]
    pub fn at_peak(&self, record: &KeyRecord) -> Option<(i64, u64)> {
        self.peaks.get(&record.key.owner).map(|peak| record.at_peak(peak))
    }

    /// The same of what was retired.
    #[must_use]
    pub fn retired_at_peak(&self, row: &Retired) -> u64 {
        let peak = self.peaks.get(&row.owner);
        if peak.is_some_and(|peak| peak.is_below != 0 && peak.mark == row.peak_mark) { row.peak } else { 0 }
    }
}
