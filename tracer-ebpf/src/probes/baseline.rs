//! Memory older than the trace: user space walks /proc/kpageflags, decides by the same rule, and hands each taken folio over. Owner
//! and kind are read here, from the folio, at this moment: what was freed or recharged since user space looked is passed over.

use crate::{
    attribute::{commit, control, frames, key},
    kernel::{
        file, folio,
        memcg::{self, Owner},
    },
    maps::{FRAMES, NEW_FRAMES, RUN_RESULTS, SAMPLES},
    probes::owner::wanted_above,
    scratch::{self, Slot},
};
use tracer_common::{
    attribution::{KEY_BASELINE, Key, Sample, sample_slot},
    kind::Kind,
};

/// Inserts the folio at `frame`, and counts it in entry 1 of `RUN_RESULTS` if it was kept.
#[inline(always)]
pub fn insert(frame: u64, order: u32, weight_per_frame: u64) {
    if kept(frame, order, weight_per_frame).is_some()
        && let Some(result) = RUN_RESULTS.get_ptr_mut(1)
    {
        // SAFETY: a map value; only the tracer's one thread runs this program.
        unsafe { (*result)[0] += 1 };
    }
}

#[inline(always)]
fn kept(frame: u64, order: u32, weight_per_frame: u64) -> Option<()> {
    let control = control()?;
    let page = folio::page_of(frame);
    if frames::is_set(&FRAMES, frame) || frames::is_set(&NEW_FRAMES, frame) || folio::order(page).unwrap_or(u32::MAX) != order {
        return None;
    }
    let (owner, kind) = charged(page)?;
    // Living cgroups were decided before the baseline began. What is not decided is dead: it is wanted if something above it is.
    if !commit::wanted(owner) && !wanted_above(page, owner) {
        return None;
    }
    let weight = commit::filtered(owner, order, weight_per_frame, 1);
    if weight == 0 {
        return None;
    }
    let identity = scratch::with(Slot::FromUser, |scratch| {
        scratch.sample = Sample {
            key: 0,
            weight_per_frame: weight,
            address: folio::position(page),
            file: if kind as u32 == Kind::Anon as u32 { 0 } else { file::identity(page, Slot::FromUser) },
            charged_ns: 0,
            epoch: control.epoch,
            process: 0,
            user_stack: 0,
            kernel_stack: 0,
            frames_left: 1 << (order & 31),
            tid: 0,
            order,
        };
        let key = Key { owner, process: 0, user_stack: 0, kernel_stack: 0, kind: kind as u32, flags: KEY_BASELINE };
        commit::keep(scratch, control, frame, &key)
    })?;
    // It may have been uncharged between the look and the mark. Then nobody will end it: do it here.
    if !matches!(charged(page), Some((o, k)) if o == owner && k as u32 == kind as u32) && frames::is_set(&FRAMES, frame) {
        frames::clear(&FRAMES, frame, order);
        let _ = SAMPLES.remove(sample_slot(frame, order));
        key::debit(identity, weight, order, 1 << (order & 31), control.epoch);
        return None;
    }
    Some(())
}

#[inline(always)]
fn charged(page: u64) -> Option<(u64, Kind)> {
    let Some(Owner::Cgroup(owner)) = memcg::owner(page) else { return None };
    Some((owner, folio::kind(page)?))
}
