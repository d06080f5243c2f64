//! Which processes are followed: a child of one that is, from its fork on (`sched:sched_process_fork`), until its last thread exits
//! (`sched:sched_process_exit`). What it charged stays with it.

use crate::{
    attribute::followed,
    globals::layout,
    kernel::{read, read_pointer, task},
    loss,
    maps::FOLLOWED,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use tracer_common::{loss::Loss, settings::Followed};

/// The current task has made the task at `child`, which has not run yet. A thread is of a process that is followed already, or is not.
#[inline(always)]
pub fn forked(child: u64) {
    // SAFETY: plain helpers.
    let (current, own) = unsafe { (bpf_get_current_task(), (bpf_get_current_pid_tgid() >> 32) as u32) };
    let Some(tgid) = read::<u32>(child, layout!(task_tgid)) else { return };
    if tgid == own || !followed::contains(own, current) {
        return;
    }
    // An entry that is left of an earlier process with this id is replaced.
    if let Err(error) = FOLLOWED.insert(tgid, Followed { start_ns: task::process_start(child) }, 0) {
        loss::count(loss::of_insert(error, Loss::FollowedTableFull), 0);
    }
}

/// The current task exits. It may be one of several: the number of those that live on was reduced before this.
#[inline(always)]
pub fn exiting() {
    // SAFETY: plain helpers.
    let (current, own) = unsafe { (bpf_get_current_task(), (bpf_get_current_pid_tgid() >> 32) as u32) };
    if FOLLOWED.get_ptr(own).is_none() {
        return;
    }
    let live = read_pointer(current, layout!(task_signal)).and_then(|signal| read::<u32>(signal, layout!(signal_live)));
    // Where it cannot be read the entry stays; its start keeps it from standing for another process.
    if live == Some(0) {
        let _ = FOLLOWED.remove(own);
    }
}
