//! Which folios are taken.

use crate::{globals::setting, maps::SAMPLERS};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tracer_common::sampling::{MIN_LOG2_MEAN, Sampler, weight_per_frame};

/// Weight per frame if the folio of this order is taken.
#[inline(always)]
pub fn take(order: u32) -> Option<u64> {
    let log2_mean = setting!(log2_mean);
    if order + MIN_LOG2_MEAN >= log2_mean {
        return Some(weight_per_frame(order, log2_mean));
    }
    let sampler = SAMPLERS.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value. An interrupt in between may lose one countdown step: a bias of one in the mean gap's
    // folios, in the interrupted CPU's favour, and never a crash.
    let sampler: &mut Sampler = unsafe { &mut *sampler };
    if sampler.random == 0 {
        seed(sampler, log2_mean);
    }
    if sampler.take(order, log2_mean) { Some(weight_per_frame(order, log2_mean)) } else { None }
}

/// First use on this CPU. Not inlined, it is long and runs once.
#[inline(never)]
fn seed(sampler: &mut Sampler, log2_mean: u32) {
    // SAFETY: plain helpers.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    sampler.seed(now ^ (cpu as u64) << 56, log2_mean);
}

/// A random number for thinning; 0 (keeps the sample) if there is no sampler.
#[inline(always)]
pub fn random() -> u64 {
    match SAMPLERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        Some(sampler) => unsafe { (*sampler).next_random() },
        None => 0,
    }
}
