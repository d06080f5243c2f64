//! Which folios are taken.

use crate::{globals::setting, maps::SAMPLERS};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tracer_common::sampling::{ORDERS, Sampler, always_taken, weight_per_frame};

/// Weight per frame if the folio of this order is taken, else 0. Not an `Option`: LLVM copies the payload of one that has none,
/// which the verifier refuses to read.
#[inline(always)]
pub fn take(order: u32) -> u64 {
    let log2_mean = setting!(log2_mean);
    if !always_taken(order, log2_mean) {
        let Some(sampler) = SAMPLERS.get_ptr_mut(0) else { return 0 };
        // SAFETY: this CPU's own value. An interrupt in between may lose one countdown step: a bias of one in the mean gap's
        // folios, in the interrupted CPU's favour, and never a crash.
        let sampler: &mut Sampler = unsafe { &mut *sampler };
        if sampler.random == 0 {
            seed_sampler(log2_mean as u64);
        }
        if !sampler.count_down(order) {
            return 0;
        }
        redraw_gap(order as u64, log2_mean as u64);
    }
    weight_per_frame(order, log2_mean)
}

/// First use on this CPU. A global function, like the next, so that its branches are verified once (see [`super::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn seed_sampler(log2_mean: u64) -> u64 {
    let Some(sampler) = SAMPLERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: plain helpers, and this CPU's own value.
    unsafe {
        let (now, cpu) = (bpf_ktime_get_ns(), bpf_get_smp_processor_id());
        (*sampler).seed_random(now ^ (cpu as u64) << 56);
    }
    let mut order = 0;
    while order < ORDERS as u64 {
        redraw_gap(order, log2_mean);
        order += 1;
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn redraw_gap(order: u64, log2_mean: u64) -> u64 {
    let Some(sampler) = SAMPLERS.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own value.
    unsafe { (*sampler).redraw(order as u32, log2_mean as u32) };
    0
}

/// A random number for thinning; 0 (keeps the sample) if there is no sampler, which cannot be. This may be its first use on this CPU:
/// the baseline comes before the first charge, and a generator that is not seeded gives nothing but zeros.
#[inline(always)]
pub fn random() -> u64 {
    match SAMPLERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        Some(sampler) => unsafe {
            if (*sampler).random == 0 {
                seed_sampler(setting!(log2_mean) as u64);
            }
            (*sampler).next_random()
        },
        None => 0,
    }
}
