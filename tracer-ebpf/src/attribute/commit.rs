//! A folio became charged memory of a known owner and kind: decide, walk the stacks, credit, keep the sample.

use crate::{
    attribute::{control, decide, end, frames, key, stack},
    globals::setting,
    kernel::{
        file, folio,
        memcg::{self, Owner},
        task::{self, Toucher},
    },
    loss,
    maps::{FRAMES, NEW_FRAMES, OWNER_TOTALS, OWNERS, SAMPLES},
    scratch::{self, Scratch, Slot},
};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use core::ffi::c_void;
use tracer_common::{
    attribution::{KEY_OWN, Key, OwnerTotals, Sample, sample_slot},
    kind::Kind,
    loss::Loss,
    settings::{Control, OWNER_REFUSED, OWNER_REFUSED_ALONE, OWNER_WANTED},
};

/// A folio at its commit.
pub struct Commit {
    /// Address of its `struct folio`.
    pub folio: u64,
    /// What it is charged as.
    pub kind: Kind,
    /// User address or offset in the file.
    pub address: u64,
    /// Task whose memory it is, if that may be another than the current one; 0 for current.
    pub task: u64,
}

/// Handles a commit in the context of the task that caused it.
#[inline(always)]
pub fn here(ctx: *mut c_void, slot: Slot, commit: &Commit) {
    let Some(control) = control() else { return };
    let Some(order) = folio::order(commit.folio) else { return };
    let Some(frame) = folio::frame_of(commit.folio) else {
        loss::count(Loss::FrameOutOfRange, tracer_common::FRAME_BYTES << (order & 31));
        return;
    };
    if control.baseline != 0 {
        frames::set(&NEW_FRAMES, frame, order);
    }
    // What stands here already was charged another way first (swap cache), or its end was missed. This commit decides anew,
    // or such folios would have two chances.
    end::folio(frame, order);
    let totals = setting!(owner_totals) != 0;
    let taken = decide::take(order);
    if taken == 0 && !totals {
        return;
    }
    let owner = match memcg::owner(commit.folio) {
        Some(Owner::Cgroup(id)) => id,
        Some(_) => return,
        None => {
            loss::count(Loss::OwnerUnreadable, tracer_common::FRAME_BYTES << (order & 31));
            return;
        }
    };
    if totals {
        add_total(owner, commit.kind, order, true);
    }
    if taken == 0 {
        return;
    }
    let Some(weight) = filtered(owner, taken) else { return };
    sample(ctx, slot, control, commit, frame, order, owner, weight);
}

/// Thins or refuses a taken folio by its owner's filter.
#[inline(always)]
pub fn filtered(owner: u64, weight_per_frame: u64) -> Option<u64> {
    if setting!(filtered) == 0 {
        return Some(weight_per_frame);
    }
    let Some(filter) = OWNERS.get_ptr(owner) else { return Some(weight_per_frame) };
    // SAFETY: a map value of plain numbers.
    let filter = unsafe { *filter };
    if filter.verdict == OWNER_REFUSED || filter.verdict == OWNER_REFUSED_ALONE {
        return None;
    }
    let thinning = filter.log2_thinning & 31;
    if thinning != 0 && decide::random() & ((1 << thinning) - 1) != 0 {
        return None;
    }
    Some(weight_per_frame << thinning)
}

/// Whether the filter is known to want that owner, or there is none.
#[inline(always)]
pub fn wanted(owner: u64) -> bool {
    if setting!(filtered) == 0 {
        return true;
    }
    match OWNERS.get_ptr(owner) {
        // SAFETY: a map value of plain numbers.
        Some(filter) => unsafe { (*filter).verdict == OWNER_WANTED },
        None => false,
    }
}

/// Whether the filter passes that owner over.
#[inline(always)]
pub fn refused(owner: u64) -> bool {
    if setting!(filtered) == 0 {
        return false;
    }
    match OWNERS.get_ptr(owner) {
        // SAFETY: a map value of plain numbers.
        Some(filter) => matches!(unsafe { (*filter).verdict }, OWNER_REFUSED | OWNER_REFUSED_ALONE),
        None => false,
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call, inlined; a struct would cost stack")]
fn sample(ctx: *mut c_void, slot: Slot, control: &Control, commit: &Commit, frame: u64, order: u32, owner: u64, weight: u64) {
    // Here and not below, where there is less stack left.
    let file = if commit.kind as u32 == Kind::Anon as u32 { 0 } else { file::identity(commit.folio, slot) };
    scratch::with(slot, |scratch| {
        // SAFETY: plain helper.
        let now = unsafe { bpf_ktime_get_ns() };
        let mut toucher = task::current(now);
        let mut remote = false;
        if commit.task != 0 {
            let other = task::of(commit.task, now);
            if other.process != toucher.process {
                toucher = Toucher { tid: 0, ..other };
                remote = true;
            }
        }
        let user_stack = if toucher.kernel_thread || remote { 0 } else { stack::record(ctx, slot, stack::Side::User, &mut scratch.stack) };
        let kernel_stack = if setting!(kernel_stacks) != 0 { stack::record(ctx, slot, stack::Side::Kernel, &mut scratch.stack) } else { 0 };
        scratch.sample = Sample {
            key: 0,
            weight_per_frame: weight,
            address: commit.address,
            file,
            charged_ns: now,
            epoch: control.epoch,
            process: toucher.process,
            user_stack,
            kernel_stack,
            frames_left: 1 << (order & 31),
            tid: toucher.tid,
            order,
        };
        let flags = own_flag(toucher.tgid);
        let key = Key { owner, process: toucher.process, user_stack, kernel_stack, kind: commit.kind as u32, flags };
        keep(scratch, control, frame, &key);
        Some(())
    });
}

/// Flag of keys whose memory is the tracer's own.
#[inline(always)]
pub fn own_flag(tgid: u32) -> u32 {
    if tgid == setting!(own_tgid) { KEY_OWN } else { 0 }
}

/// Credits the sample in `scratch` to `key` and stores it.
#[inline(always)]
pub fn keep(scratch: &mut Scratch, control: &Control, frame: u64, key: &Key) -> Option<u64> {
    let (weight, order, now) = (scratch.sample.weight_per_frame, scratch.sample.order, scratch.sample.charged_ns);
    let identity = key::credit(&mut scratch.key, key, weight, order, control.epoch, now)?;
    scratch.sample.key = identity;
    if store(scratch, frame) {
        return Some(identity);
    }
    // No room: take it back, so that what is charged is also uncharged one day. The loss was counted.
    key::debit(identity, weight, order, 1 << (order & 31), control.epoch);
    None
}

/// Stores the sample in `scratch` and marks its frames.
#[inline(always)]
pub fn store(scratch: &mut Scratch, frame: u64) -> bool {
    let order = scratch.sample.order;
    let slot = sample_slot(frame, order);
    if let Err(error) = SAMPLES.insert(slot, &scratch.sample, 0) {
        loss::count(loss::of_insert(error, Loss::SampleTableFull), scratch.sample.weight_per_frame << (order & 31));
        return false;
    }
    frames::set(&FRAMES, frame, order);
    true
}

/// Adds to the exact totals of an owner.
#[inline(always)]
pub fn add_total(owner: u64, kind: Kind, order: u32, charged: bool) {
    let bytes = tracer_common::FRAME_BYTES << (order & 31);
    let mut totals = OWNER_TOTALS.get_ptr_mut(owner);
    if totals.is_none() {
        let _ = OWNER_TOTALS.insert(owner, OwnerTotals { charged: [0; 4], uncharged: [0; 4] }, 1);
        totals = OWNER_TOTALS.get_ptr_mut(owner);
    }
    let Some(totals) = totals else {
        loss::count(Loss::OwnerTableFull, bytes);
        return;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        match (kind, charged) {
            (Kind::Anon, true) => (*totals).charged[0] += bytes,
            (Kind::File, true) => (*totals).charged[1] += bytes,
            (Kind::Shmem, true) => (*totals).charged[2] += bytes,
            (Kind::Hugetlb, true) => (*totals).charged[3] += bytes,
            (Kind::Anon, false) => (*totals).uncharged[0] += bytes,
            (Kind::File, false) => (*totals).uncharged[1] += bytes,
            (Kind::Shmem, false) => (*totals).uncharged[2] += bytes,
            (Kind::Hugetlb, false) => (*totals).uncharged[3] += bytes,
        }
    }
}
