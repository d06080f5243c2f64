//! Distributions: one counter a cgroup, metric and bucket that occurs.

use super::{handles::Taken, row::HashTable};
use crate::kernel_half::{BpfError, loaded::KernelHalf, wish::Wish};
use std::collections::HashMap;
use tracer_common::{histogram::HistogramKey, loss::Loss};

fn planned(wish: &Wish) -> u32 {
    // Fifty cgroups with all metrics, hundreds that are quiet. With `--exact` those with a limit, which are few.
    if wish.exact { 1 << 13 } else { 1 << 14 }
}

/// Counters.
pub static HISTOGRAMS: HashTable<HistogramKey, u64> =
    HashTable::named("HISTOGRAMS").planned(planned).halved().forcible().loses(&[Loss::HistogramTableFull]);

/// Values that found no room there, by cgroup.
pub static HISTOGRAM_LOSSES: HashTable<u64, u64> = HashTable::named("HISTOGRAM_LOSSES").fixed(1024);

/// All counters.
pub fn histograms(half: &KernelHalf) -> Result<HashMap<HistogramKey, u64>, BpfError> {
    HISTOGRAMS.entries(half)
}

/// Removes counters. Those that are in the table no longer, each with its last value; `None` if it was gone before.
pub fn take_histograms(half: &mut KernelHalf, keys: &[HistogramKey]) -> Result<Vec<(HistogramKey, Option<u64>)>, BpfError> {
    let mut left = Vec::new();
    for key in keys {
        match HISTOGRAMS.take(half, key)? {
            Taken::Busy => {}
            taken => left.push((*key, taken.value())),
        }
    }
    Ok(left)
}

/// Values that found no room, by cgroup.
pub fn histogram_losses(half: &KernelHalf) -> Result<HashMap<u64, u64>, BpfError> {
    HISTOGRAM_LOSSES.entries(half)
}
