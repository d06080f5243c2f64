//! Cgroups come and go (`cgroup:cgroup_mkdir`, `cgroup:cgroup_rmdir`): their names must be known before they are gone, and a new
//! one inherits its parent's filter at once, so that a container which lives 50 ms is not missed.

use crate::{
    globals::{layout, setting},
    kernel::{memcg, read, read_pointer},
    loss,
    maps::{BIRTHS, EVENTS, OWNERS},
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str};
use tracer_common::{
    event::{CgroupChange, CgroupEvent, PATH_BYTES},
    loss::Loss,
    settings::{OWNER_REFUSED_ALONE, OwnerFilter},
};

/// Handles a change of the cgroup at `cgroup`, whose path below its root is the string at `path`.
#[inline(always)]
pub fn changed(change: CgroupChange, cgroup: u64, path: u64) {
    let hierarchy = read_pointer(cgroup, layout!(cgroup_root)).and_then(|root| read::<u32>(root, layout!(root_hierarchy_id)));
    if !hierarchy.is_some_and(|hierarchy| hierarchy == setting!(hierarchy)) {
        return;
    }
    let Some(id) = memcg::cgroup_id(cgroup) else { return };
    if matches!(change, CgroupChange::Made) {
        inherit(cgroup, id);
    }
    let Some(mut entry) = EVENTS.reserve::<CgroupEvent>(0) else {
        loss::count(Loss::RingFull, 0);
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; every field is written.
    unsafe {
        (*event).change = change as u32;
        (*event).hierarchy = setting!(hierarchy);
        (*event).id = id;
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).level = read::<u32>(cgroup, layout!(cgroup_level)).unwrap_or(0);
        let length = bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), PATH_BYTES as u32, path as *const _);
        // The length counts the terminator. A path that fills the buffer may have been longer: it is given as cut.
        (*event).path_length = match length {
            1.. if length as usize == PATH_BYTES => PATH_BYTES as u32 + 1,
            1.. => length as u32 - 1,
            _ => 0,
        };
    }
    entry.submit(0);
}

/// A new cgroup takes its parent's filter: the parent is the one before it in `ancestors`, found through the kernfs parent.
#[inline(always)]
fn inherit(cgroup: u64, id: u64) {
    let parent = read_pointer(cgroup, layout!(css_parent)).and_then(|css| read_pointer(css, layout!(css_cgroup)));
    let Some(parent) = parent.and_then(memcg::cgroup_id) else { return };
    if let Some(filter) = OWNERS.get_ptr(parent) {
        // SAFETY: a map value of plain numbers.
        let verdict = unsafe { (*filter).verdict };
        if verdict == OWNER_REFUSED_ALONE {
            return;
        }
        if OWNERS.insert(id, OwnerFilter { verdict, log2_mean: newborn_mean(), kept: 0 }, 0).is_err() {
            loss::count(Loss::OwnerTableFull, 0);
        }
    }
}

/// log2 of M of a cgroup that has nothing yet: the smallest, unless many are made.
#[inline(always)]
fn newborn_mean() -> u32 {
    let (finest, coarsest) = (setting!(log2_mean), setting!(log2_coarsest));
    let Some(births) = BIRTHS.get_ptr_mut(0) else { return finest };
    // SAFETY: a map value; the tracepoint is within cgroup_mutex (kernel/cgroup/cgroup.c, cgroup_mkdir).
    let mean = finest + unsafe { (*births).doublings(bpf_ktime_get_ns()) };
    if mean < coarsest { mean } else { coarsest }
}
