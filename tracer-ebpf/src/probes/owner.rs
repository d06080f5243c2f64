//! Owners that were removed before the trace began: no event and no listing has their names, but the kernel keeps them as long as a
//! page is charged there.

use crate::{
    globals::{layout, setting},
    kernel::{folio, memcg, read_pointer},
    maps::{OWNER_NAME, OWNERS},
};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use core::arch::asm;
use tracer_common::{
    attribution::frame_and_order,
    file::NAME_START_BYTES,
    owner::{LEVEL_BYTES, MOST_LEVELS},
    settings::{OWNER_WANTED, OwnerFilter},
};

/// Leaves the path of the owner of the sample in `slot` in `OWNER_NAME`.
#[inline(always)]
pub fn name(slot: u64) {
    let (frame, _) = frame_and_order(slot);
    let cgroup = memcg::cgroup_of(folio::page_of(frame));
    let node = if cgroup == 0 { 0 } else { read_pointer(cgroup, layout!(cgroup_kn)).unwrap_or(0) };
    walk_levels(node);
}

/// Whether a cgroup above the owner of a folio is wanted, while the owner itself is not decided: then it is from now on.
#[inline(always)]
pub fn wanted_above(folio: u64, owner: u64) -> bool {
    OWNERS.get_ptr(owner).is_none() && inherit_from_above(folio, owner) != 0
}

/// A global function, so that it is verified once (see [`crate::attribute::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inherit_from_above(folio: u64, owner: u64) -> u64 {
    let mut cgroup = memcg::cgroup_of(folio);
    let mut level = 0;
    while level < MOST_LEVELS {
        // `cgroup.self`, a css, is a cgroup's first member.
        let Some(css) = read_pointer(cgroup, layout!(css_parent)) else { return 0 };
        let Some(above) = read_pointer(css, layout!(css_cgroup)) else { return 0 };
        let Some(id) = memcg::cgroup_id(above) else { return 0 };
        if let Some(filter) = OWNERS.get_ptr(id) {
            // SAFETY: a map value of plain numbers.
            if unsafe { (*filter).verdict } == OWNER_WANTED {
                // Without room the next folio asks again.
                let _ = OWNERS.insert(owner, OwnerFilter { verdict: OWNER_WANTED, log2_mean: setting!(log2_mean), kept: 0 }, 0);
                return 1;
            }
        }
        cgroup = above;
        level += 1;
    }
    0
}

/// A position below [`NAME_START_BYTES`]. The compiler knows that it is and leaves a mask out, but 6.1's verifier does not know.
#[inline(always)]
fn masked(at: u64) -> u64 {
    let mut at = at;
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{at} &= {mask}", at = inout(reg) at, mask = const NAME_START_BYTES - 1, options(pure, nomem, nostack)) };
    at
}

/// Writes ids and names from a kernfs node up to its root into `OWNER_NAME`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_levels(node: u64) -> u64 {
    let Some(record) = OWNER_NAME.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value; only the tracer's one thread runs this program.
    let record = unsafe { &mut *record };
    record.levels = 0;
    record.whole = 0;
    let above = match layout!(kn_parent_rcu) {
        Some(offset) => Some(offset),
        None => layout!(kn_parent),
    };
    let (Some(above), Some(id_at), Some(name_at)) = (above, layout!(kn_id), layout!(kn_name)) else { return 0 };
    let mut node = node;
    let mut at = 0_u64;
    let mut level = 0;
    while level < MOST_LEVELS {
        if node == 0 || at >= NAME_START_BYTES as u64 {
            break;
        }
        let Some(parent) = crate::kernel::read::<u64>(node, Some(above)) else { break };
        if parent == 0 {
            record.whole = 1;
            break;
        }
        let name = read_pointer(node, Some(name_at)).unwrap_or(0);
        let start = masked(at) as usize;
        // SAFETY: the masked start and the length stay within the buffer, the level is below the bound; the helpers check the addresses.
        let length = unsafe {
            bpf_probe_read_kernel((&raw mut record.ids[level & (MOST_LEVELS - 1)]).cast(), 8, (node + id_at) as *const _);
            bpf_probe_read_kernel_str(record.names.as_mut_ptr().add(start).cast(), LEVEL_BYTES as u32, name as *const _)
        };
        if length <= 0 {
            break;
        }
        at += length as u64;
        level += 1;
        node = parent;
    }
    record.levels = level as u32;
    0
}
