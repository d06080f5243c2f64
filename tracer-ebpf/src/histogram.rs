//! Distributions by memory cgroup: one counter a cgroup, metric and bucket that occurs.

use crate::{
    atomic, loss,
    maps::{HISTOGRAM_LOSSES, HISTOGRAMS},
};
use tracer_common::{
    histogram::{HistogramKey, Metric, bucket},
    loss::Loss,
};

const EEXIST: i32 = -17;
/// Insert only what is not there (BPF_NOEXIST).
const NEW: u64 = 1;

/// One more value in the distribution of `owner`.
#[inline(always)]
pub fn add(owner: u64, metric: Metric, value: u64) {
    add_weighted(owner, metric, value, 1);
}

/// A value that stands for `count` of them.
#[inline(always)]
pub fn add_weighted(owner: u64, metric: Metric, value: u64, count: u64) {
    histogram_add(owner, metric as u64, value, count);
}

/// A global function, so that it is verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn histogram_add(owner: u64, metric: u64, value: u64, count: u64) -> u64 {
    let key = HistogramKey { owner, metric: metric as u32, bucket: bucket(value) };
    let mut counter = HISTOGRAMS.get_ptr_mut(key);
    if counter.is_none() {
        if let Err(error) = HISTOGRAMS.insert(key, 0, NEW)
            && error != EEXIST
        {
            loss::count(loss::of_insert(error, Loss::HistogramTableFull), 0);
            count_loss(owner);
            return 0;
        }
        counter = HISTOGRAMS.get_ptr_mut(key);
    }
    if let Some(counter) = counter {
        // SAFETY: a map value.
        unsafe { atomic::add(counter, count) };
    }
    0
}

/// Says whose distributions lack something. With no room even for that, the cause alone is counted.
#[inline(always)]
fn count_loss(owner: u64) {
    let mut counter = HISTOGRAM_LOSSES.get_ptr_mut(owner);
    if counter.is_none() {
        let _ = HISTOGRAM_LOSSES.insert(owner, 0, NEW);
        counter = HISTOGRAM_LOSSES.get_ptr_mut(owner);
    }
    if let Some(counter) = counter {
        // SAFETY: a map value.
        unsafe { atomic::add(counter, 1) };
    }
}
