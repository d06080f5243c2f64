//! Whether the kernel half reads the kernel's figures rightly: what it reads of this process's cgroups is compared with their files.

use crate::{
    analyse::oom::figures,
    cgroup::{CgroupId, StatReading},
    kernel_half::{BpfError, KernelHalf, tables::oom::own_levels},
};
use tracer_common::{layout::STAT_NAMES, oom::OOM_STATS};

/// Compares what the kernel half reads of this process's cgroups with their files: a figure counts only if it is equal at each level, but
/// for what CPUs hold back.
pub(super) fn verify(
    bpf: &mut KernelHalf,
    mut read: impl FnMut(CgroupId) -> Option<StatReading>,
    page_bytes: u64,
) -> Result<[bool; OOM_STATS], BpfError> {
    let mut trusted = [true; OOM_STATS];
    let ids: Vec<u64> = own_levels(bpf)?.iter().map(|level| level.cgroup).collect();
    let mut compared = 0;
    for id in ids {
        // The reading makes the kernel flush: what is read next is as new.
        let Some(reading) = read(CgroupId(id)) else { continue };
        let Some(level) = own_levels(bpf)?.into_iter().find(|level| level.cgroup == id) else { continue };
        compared += 1;
        for (at, name) in STAT_NAMES.iter().enumerate() {
            let in_kernel = figures::stat(&level, name, &[true; OOM_STATS], page_bytes);
            let in_file = file_figure(&reading, name);
            // Other tasks go on meanwhile: 1 % or 4 MiB.
            let agree = |a: u64, b: u64| a.abs_diff(b) <= (b / 100).max(4 << 20);
            match (in_kernel, in_file) {
                (Some(a), Some(b)) if !agree(a, b) => {
                    ::log::debug!("{name} of cgroup {id}: {a} in the kernel, {b} in its file: not trusted");
                    trusted[at] = false;
                }
                _ => {}
            }
        }
    }
    Ok(if compared > 0 { trusted } else { [false; OOM_STATS] })
}

/// The line of memory.stat behind a figure.
fn file_figure(reading: &StatReading, name: &str) -> Option<u64> {
    let kind = |kind: &str| reading.subtree.kinds.get(kind).map(|figure| figure.bytes);
    match name {
        "file" => Some(kind("file")? + kind("shmem")?),
        "file_dirty" => reading.subtree.dirty,
        "file_writeback" => reading.subtree.writeback,
        "kernel_stack" => kind("kernel.stack"),
        "percpu" => kind("kernel.percpu"),
        // One line for both: their sum is in the kernel's.
        "slab_reclaimable" | "slab_unreclaimable" => None,
        name => kind(name),
    }
}
