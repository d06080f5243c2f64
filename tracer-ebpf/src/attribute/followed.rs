//! Following processes: with `--pid` only what the wanted processes and their later children cause is recorded.
//!
//! Asked for taken samples only, before any stack is walked. Never asked when no process is followed: the setting is a constant then.

use crate::{
    globals::{layout, setting},
    kernel::{read, task},
    maps::FOLLOWED,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};

/// Whether what the current task causes is wanted, or what happens to the memory of `task` (0 for none): khugepaged works for the
/// process whose memory it collapses, and a debugger writes into another's.
#[inline(always)]
pub fn wants(task: u64) -> bool {
    setting!(followed) == 0 || is_followed(task) != 0
}

/// A global function, so that it is verified once (see [`super::stack`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_followed(task: u64) -> u64 {
    // SAFETY: plain helpers.
    let (current, ids) = unsafe { (bpf_get_current_task(), bpf_get_current_pid_tgid()) };
    if contains((ids >> 32) as u32, current) {
        return 1;
    }
    if task == 0 {
        return 0;
    }
    match read::<u32>(task, layout!(task_tgid)) {
        Some(tgid) => contains(tgid, task) as u64,
        None => 0,
    }
}

/// Whether the process of `task` is in the table. One that user space named gets its start here.
#[inline(always)]
pub fn contains(tgid: u32, task: u64) -> bool {
    let Some(followed) = FOLLOWED.get_ptr_mut(tgid) else { return false };
    let start = task::process_start(task);
    // SAFETY: a map value. Two threads of one process write the same number.
    unsafe {
        if (*followed).start_ns == 0 {
            (*followed).start_ns = start;
        }
        (*followed).start_ns == start
    }
}
