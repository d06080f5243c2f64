//! Ends of process images that have a record, and what is executed next: the last thread exits (`sched:sched_process_exit`), or the process executes another program
//! (`sched:sched_process_exec`, which comes when the new program is in place and `self_exec_id` is one more).

use crate::{
    globals::layout,
    kernel::{read, read_pointer, task},
    unwind,
};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_ns};

/// The current task exits. It may be one of several: the number of those that live on was reduced before this (kernel/exit.c, do_exit).
#[inline(always)]
pub fn exiting() {
    // SAFETY: plain helpers.
    let (current, now) = unsafe { (bpf_get_current_task(), bpf_ktime_get_ns()) };
    let live = read_pointer(current, layout!(task_signal)).and_then(|signal| read::<u32>(signal, layout!(signal_live)));
    if live == Some(0) {
        task::end(current, 0, now);
    }
}

/// The current task executes another program.
#[inline(always)]
pub fn executed() {
    // SAFETY: plain helpers.
    let (current, now) = unsafe { (bpf_get_current_task(), bpf_ktime_get_ns()) };
    task::end(current, 1, now);
    unwind::executed();
}
