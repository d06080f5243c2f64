//! A folio became charged memory of a known owner and kind: decide, walk the stacks, credit, keep the sample.

use crate::{
    atomic,
    attribute::{collapse, control, decide, end, followed, frames, key, stack},
    globals::{layout, setting},
    histogram,
    kernel::{
        file,
        folio::{self, Folio},
        memcg::{self, Owner},
        pointer, registers,
        task::{self, Toucher},
    },
    loss,
    maps::{FRAMES, NEW_FRAMES, OWNER_TOTALS, OWNERS, SAMPLES},
    scratch::{self, Scratch, Slot},
};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_ns};
use core::ffi::c_void;
use tracer_common::{
    FRAME_BYTES,
    attribution::{KEY_BASELINE, KEY_OWN, Key, OwnerTotals, Sample, sample_slot},
    histogram::Metric,
    kind::Kind,
    loss::Loss,
    sampling::thinned,
    settings::{Control, OWNER_REFUSED, OWNER_REFUSED_ALONE, OWNER_WANTED},
};

/// A folio at its commit.
pub struct Commit {
    /// The folio.
    pub folio: Folio,
    /// What it is charged as.
    pub kind: Kind,
    /// Where it is.
    pub place: Place,
}

/// Where a folio is: in the file or address space that it tells, or where it is being mapped.
pub enum Place {
    /// At its index.
    Index,
    /// At a user address in the memory that has this `struct vm_area_struct`.
    Mapping { vma: u64, address: u64 },
}

impl Place {
    /// User address or offset in the file, bytes.
    #[inline(always)]
    fn address(&self, folio: u64) -> u64 {
        match self {
            Place::Index => folio::position(folio),
            Place::Mapping { address, .. } => *address,
        }
    }

    /// Task whose memory it is, if that may be another than the current one; 0 for current. khugepaged, remote get_user_pages and io_uring
    /// touch the memory of other tasks: charged is the owner of the mm.
    #[inline(always)]
    fn task(&self) -> u64 {
        match self {
            Place::Index => 0,
            Place::Mapping { vma, .. } => match pointer(*vma, layout!(vma_mm)) {
                0 => 0,
                mm => pointer(mm, layout!(mm_owner)),
            },
        }
    }
}

/// Handles a commit in the context of the task that caused it.
#[inline(always)]
pub fn here(ctx: *mut c_void, slot: Slot, commit: &Commit) {
    let Some(control) = control() else { return };
    let folio = commit.folio.address;
    let Some(order) = commit.folio.order() else { return };
    let Some(frame) = folio::frame_of(folio) else {
        loss::count(Loss::FrameOutOfRange, tracer_common::FRAME_BYTES << (order & 31));
        return;
    };
    if control.baseline != 0 {
        frames::set(&NEW_FRAMES, frame, order);
    }
    // What stands here already was charged another way first (swap cache of shmem), or its end was missed. This commit decides anew,
    // or such folios would have two chances.
    end::folio(frame, order);
    let totals = control.owner_totals != 0;
    let taken = decide::take(order);
    if taken == 0 && !totals {
        return;
    }
    let owner = match memcg::owner(folio) {
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
    let task = commit.place.task();
    if !followed::wants(task) {
        return;
    }
    let weight = filtered(owner, order, taken, 1);
    if weight == 0 {
        return;
    }
    sample(ctx, slot, control, commit, task, frame, order, owner, weight);
}

/// Thins or refuses a taken folio by its owner: the weight per frame that it has from now on, 0 if it is let go. `count` is 1 if it is
/// kept then, 0 if that is not decided yet.
#[inline(always)]
pub fn filtered(owner: u64, order: u32, weight_per_frame: u64, count: u64) -> u64 {
    if setting!(filtered) == 0 && setting!(log2_mean) == setting!(log2_coarsest) {
        return weight_per_frame;
    }
    filter(owner, order as u64, weight_per_frame, count)
}

/// A global function, so that it is verified once (see [`super::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn filter(owner: u64, order: u64, weight_per_frame: u64, count: u64) -> u64 {
    let mut log2_mean = setting!(log2_coarsest);
    let entry = OWNERS.get_ptr_mut(owner);
    if let Some(entry) = entry {
        // SAFETY: a map value of plain numbers.
        let entry = unsafe { &*entry };
        if entry.verdict == OWNER_REFUSED || entry.verdict == OWNER_REFUSED_ALONE {
            return 0;
        }
        log2_mean = entry.log2_mean_now(setting!(log2_step), log2_mean);
    }
    let weight = thinned(weight_per_frame, order as u32 & 31, log2_mean, decide::random());
    if weight != 0
        && let Some(entry) = entry
    {
        // SAFETY: a map value.
        unsafe { atomic::add(&raw mut (*entry).kept, count) };
    }
    weight
}

/// Whether the filter is known not to want that owner.
#[inline(always)]
pub fn refused(owner: u64) -> bool {
    if setting!(filtered) == 0 {
        return false;
    }
    match OWNERS.get_ptr(owner) {
        // SAFETY: a map value of plain numbers.
        Some(filter) => unsafe { (*filter).verdict == OWNER_REFUSED || (*filter).verdict == OWNER_REFUSED_ALONE },
        None => false,
    }
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

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call, inlined; a struct would cost stack")]
fn sample(ctx: *mut c_void, slot: Slot, control: &Control, commit: &Commit, task: u64, frame: u64, order: u32, owner: u64, weight: u64) {
    // Here and not below, where there is less stack left.
    let file = if commit.kind as u32 == Kind::Anon as u32 { 0 } else { file::identity(commit.folio.address, slot) };
    // Without a closure: it would be a function of its own, with all that it uses on the stack.
    let Some(scratch) = scratch::enter(slot) else { return };
    // SAFETY: plain helper.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut toucher = task::current(now);
    let mut remote = false;
    if task != 0 {
        let other = task::of(task, now);
        if other.process != toucher.process {
            toucher = Toucher { tid: 0, ..other };
            // A child of vfork runs in its parent's memory, and has a stack in it.
            // SAFETY: plain helper.
            remote = !task::shares_memory(unsafe { bpf_get_current_task() }, task);
        }
    }
    // SAFETY: plain helper.
    let collapsed = task::collapse_flag(unsafe { bpf_get_current_task() });
    let page_cache = commit.kind as u32 == Kind::File as u32;
    fill(ctx, slot, control, scratch, &toucher, remote, page_cache, weight, order, now);
    scratch.sample.address = commit.place.address(commit.folio.address);
    scratch.sample.file = file;
    let (user_stack, kernel_stack) = (scratch.sample.user_stack, scratch.sample.kernel_stack);
    let flags = own_flag(toucher.tgid) | collapsed;
    let key = Key { owner, process: toucher.process, user_stack, kernel_stack, kind: commit.kind as u32, flags };
    if keep(scratch, control, frame, &key).is_some() && collapsed != 0 {
        collapse::collapse_made(sample_slot(frame, order));
    }
    scratch::leave(scratch);
}

/// Captures the stacks and fills the sample in `scratch`, without key, address and file. The walk of the kernel's stack costs as much as the
/// rest, so it is left out where how the kernel was entered says enough, unless it is asked for.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two calls, inlined; a struct would cost stack")]
pub fn fill(
    ctx: *mut c_void,
    slot: Slot,
    control: &Control,
    scratch: &mut Scratch,
    toucher: &Toucher,
    remote: bool,
    page_cache: bool,
    weight_per_frame: u64,
    order: u32,
    now: u64,
) {
    let user_stack = if toucher.kernel_thread || remote { 0 } else { stack::record(ctx, slot, stack::Side::User, scratch) };
    // Which system call says too little for page cache: a write's buffer may be what is read in.
    let mut kernel_stack = if page_cache || user_stack == 0 || setting!(kernel_stacks) != 0 { 0 } else { registers::entry() };
    if kernel_stack == 0 {
        kernel_stack = stack::record(ctx, slot, stack::Side::Kernel, scratch);
    }
    scratch.sample = Sample {
        key: 0,
        weight_per_frame,
        address: 0,
        file: 0,
        charged_ns: now,
        epoch: control.epoch,
        process: toucher.process,
        user_stack,
        kernel_stack,
        frames_left: 1 << (order & 31),
        tid: toucher.tid,
        order,
    };
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
        if key.flags & KEY_BASELINE == 0 {
            count_size(key.owner, order, weight);
        }
        return Some(identity);
    }
    // No room: take it back, so that what is charged is also uncharged one day. The loss was counted.
    key::debit(identity, weight, order, 1 << (order & 31), control.epoch);
    None
}

/// Adds a taken folio to the distribution of sizes, with as many as it stands for.
#[inline(always)]
pub fn count_size(owner: u64, order: u32, weight_per_frame: u64) {
    histogram::add_weighted(owner, Metric::ChargeBytes, FRAME_BYTES << (order & 31), weight_per_frame / FRAME_BYTES);
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

/// Takes a folio out of the exact totals of a kind that it was counted as by mistake.
#[inline(always)]
pub fn take_back(folio: Folio, kind: Kind) {
    if control().is_none_or(|control| control.owner_totals == 0) {
        return;
    }
    if let Some(Owner::Cgroup(owner)) = memcg::owner(folio.address)
        && let Some(order) = folio.order()
    {
        add_total(owner, kind, order, false);
    }
}

/// Adds to the exact totals of an owner.
#[inline(always)]
pub fn add_total(owner: u64, kind: Kind, order: u32, charged: bool) {
    let bytes = tracer_common::FRAME_BYTES << (order & 31);
    let Some(totals) = totals_of(owner) else {
        loss::count(Loss::OwnerTableFull, bytes);
        return;
    };
    // SAFETY: this CPU's own value. An interrupt may uncharge something between any two instructions, so it is added to in one.
    unsafe {
        let sum = match (kind, charged) {
            (Kind::Anon, true) => &raw mut (*totals).charged[0],
            (Kind::File, true) => &raw mut (*totals).charged[1],
            (Kind::Shmem, true) => &raw mut (*totals).charged[2],
            (Kind::Hugetlb, true) => &raw mut (*totals).charged[3],
            (Kind::Anon, false) => &raw mut (*totals).uncharged[0],
            (Kind::File, false) => &raw mut (*totals).uncharged[1],
            (Kind::Shmem, false) => &raw mut (*totals).uncharged[2],
            (Kind::Hugetlb, false) => &raw mut (*totals).uncharged[3],
        };
        atomic::add(sum, bytes);
    }
}

/// Adds to what an owner was charged as a kind what another one had, which is no more: `bytes` in two's complement.
#[inline(always)]
pub fn hand_over(owner: u64, kind: u64, bytes: u64) {
    let Some(totals) = totals_of(owner) else {
        loss::count(Loss::OwnerTableFull, 0);
        return;
    };
    // SAFETY: as above; the masked kind is one of four.
    unsafe { atomic::add(&raw mut (*totals).charged[(kind & 3) as usize], bytes) };
}

#[inline(always)]
fn totals_of(owner: u64) -> Option<*mut OwnerTotals> {
    let totals = OWNER_TOTALS.get_ptr_mut(owner);
    if totals.is_some() {
        return totals;
    }
    let _ = OWNER_TOTALS.insert(owner, OwnerTotals { charged: [0; 4], uncharged: [0; 4] }, 1);
    OWNER_TOTALS.get_ptr_mut(owner)
}
