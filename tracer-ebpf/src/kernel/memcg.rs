//! From a folio to the memory cgroup that it is charged to, and from a cgroup to its id and to the one above it.

use super::{pointer, read, read_pointer, word};
use crate::globals::layout;
use tracer_common::oom::UNKNOWN;

/// Tag bits of the owner word: object vector, kernel memory, no-map (5.11 and later). Pointers are aligned to more.
const TAGS: u64 = 7;
/// The word is an obj_cgroup of a kernel allocation, not of an LRU folio.
const KERNEL: u64 = 2;
/// Stands for the owner of kernel memory: no address.
const KERNEL_MEMORY: u64 = 1;

/// What a folio's owner word says.
pub enum Owner {
    /// Not charged.
    None,
    /// kernfs id of the memory cgroup.
    Cgroup(u64),
    /// Kernel memory: slab, stacks, page tables.
    Kernel,
}

/// Reads the owner of a folio; `None` if the kernel's layout is not known or a read failed.
#[inline(always)]
pub fn owner(folio: u64) -> Option<Owner> {
    match of_folio(folio) {
        0 => Some(Owner::None),
        KERNEL_MEMORY => Some(Owner::Kernel),
        UNKNOWN => None,
        memcg => match id(memcg) {
            UNKNOWN => None,
            id => Some(Owner::Cgroup(id)),
        },
    }
}

/// Address of the cgroup that a folio is charged to; 0 for none, for kernel memory, or if it cannot be read.
#[inline(always)]
pub fn cgroup_of(folio: u64) -> u64 {
    match of_folio(folio) {
        0 | KERNEL_MEMORY | UNKNOWN => 0,
        memcg => cgroup(memcg),
    }
}

/// The `struct mem_cgroup` that a folio is charged to; 0 for none, [`KERNEL_MEMORY`], or [`UNKNOWN`].
#[inline(always)]
fn of_folio(folio: u64) -> u64 {
    let offset = match (layout!(folio_memcg_data), layout!(page_memcg_data)) {
        (Some(offset), _) | (None, Some(offset)) => Some(offset),
        (None, None) => layout!(page_mem_cgroup),
    };
    let word = word(folio, offset);
    if word == 0 || word == UNKNOWN {
        return word;
    }
    if layout!(page_mem_cgroup).is_none() && word & KERNEL != 0 {
        return KERNEL_MEMORY;
    }
    if layout!(per_node_objcg).is_none() {
        return word & !TAGS;
    }
    // Here every charged folio holds an obj_cgroup; read as a memcg it would give garbage silently.
    match pointer(word & !TAGS, layout!(objcg_memcg)) {
        0 => UNKNOWN,
        memcg => memcg,
    }
}

/// kernfs id of a `struct mem_cgroup`, or [`UNKNOWN`].
#[inline(always)]
pub fn id(memcg: u64) -> u64 {
    let cgroup = cgroup(memcg);
    let node = if cgroup == 0 { 0 } else { pointer(cgroup, layout!(cgroup_kn)) };
    if node == 0 { UNKNOWN } else { word(node, layout!(kn_id)) }
}

/// The `struct cgroup` of a `struct mem_cgroup`; 0 if it cannot be read.
#[inline(always)]
pub fn cgroup(memcg: u64) -> u64 {
    let Some(css) = layout!(memcg_css) else { return 0 };
    pointer(memcg + css, layout!(css_cgroup))
}

/// The memory cgroup above; 0 for none.
#[inline(always)]
pub fn parent(memcg: u64) -> u64 {
    let Some(css) = layout!(memcg_css) else { return 0 };
    let state = pointer(memcg + css, layout!(css_parent));
    if state == 0 { 0 } else { state - css }
}

/// The `struct mem_cgroup` of a task; 0 if it cannot be read.
#[inline(always)]
pub fn of_task(task: u64) -> u64 {
    let (Some(subsys), Some(number), Some(css)) = (layout!(css_set_subsys), layout!(memory_cgrp_id), layout!(memcg_css)) else { return 0 };
    let sets = pointer(task, layout!(task_cgroups));
    let state = if sets == 0 { 0 } else { pointer(sets, Some(subsys + number * 8)) };
    if state == 0 { 0 } else { state - css }
}

/// kernfs id of a task's memory cgroup, or [`UNKNOWN`].
#[inline(always)]
pub fn id_of_task(task: u64) -> u64 {
    match of_task(task) {
        0 => UNKNOWN,
        memcg => id(memcg),
    }
}

/// kernfs id of a `struct cgroup`.
#[inline(always)]
pub fn cgroup_id(cgroup: u64) -> Option<u64> {
    let node = read_pointer(cgroup, layout!(cgroup_kn))?;
    read(node, layout!(kn_id))
}
