//! Live samples, by their slot.

use super::row::HashTable;
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::{HashMap, HashSet};
use tracer_common::{attribution::Sample, loss::Loss};

/// With `--exact`: as many as there can be folios.
pub(super) fn planned(wish: &Wish) -> u32 {
    if wish.exact {
        let frames = wish.traced_frames();
        // A tenth more: folios are held for a moment after their uncharge, and kernels overshoot a limit.
        u32::try_from(frames + frames / 10).unwrap_or(u32::MAX).max(1 << 14)
    } else {
        1 << 16
    }
}

/// By [`tracer_common::attribution::sample_slot`].
pub static SAMPLES: HashTable<u64, Sample> =
    HashTable::named("SAMPLES").planned(planned).halved().forcible().loses(&[Loss::SampleTableFull]);

/// Live samples by slot.
pub fn samples(half: &KernelHalf) -> Result<HashMap<u64, Sample>, BpfError> {
    SAMPLES.entries(half)
}

/// Files of which something is live.
pub fn files_of_samples(half: &KernelHalf) -> Result<HashSet<u64>, BpfError> {
    let mut files = HashSet::new();
    SAMPLES.each(half, |_, sample| {
        files.insert(sample.file);
    })?;
    Ok(files)
}
