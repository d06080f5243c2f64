//! Tasks and process identity.

use super::{pointer, read, read_pointer};
use crate::{globals::layout, loss, maps::PROCESSES};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use core::mem::transmute;
use tracer_common::{
    attribution::KEY_COLLAPSED,
    loss::Loss,
    process::{COMM_BYTES, ProcessRecord, process_identity},
};

/// PF_KTHREAD (include/linux/sched.h, unchanged since 2.6).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// PF_IO_WORKER (since 5.12) and PF_USER_WORKER (since 6.4): threads that the kernel adds to a process and that never run in user space, as those
/// of io_uring. Before, the first said that a virtual CPU runs, in which nothing is charged, and the second is one of module loading.
const WORKERS: u32 = 0x10 | 0x4000;

/// The process behind a charge.
#[derive(Clone, Copy)]
pub struct Toucher {
    /// Identity, 0 if unknown.
    pub process: u64,
    /// Thread-group id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Has no user stack.
    pub kernel_thread: bool,
}

/// Id of a thread-group leader in the innermost pid namespace that it is in; 0 if it cannot be read.
///
/// A global function, so that it is verified once (see [`crate::attribute::stack`]) and takes none of the callers' stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn own_namespace_id(leader: u64) -> u64 {
    let Some(pid) = read_pointer(leader, layout!(task_thread_pid)) else { return 0 };
    let (Some(numbers), Some(size), Some(number)) = (layout!(pid_numbers), layout!(upid_size), layout!(upid_nr)) else { return 0 };
    // Namespaces nest at most 32 deep (MAX_PID_NS_LEVEL).
    let level = read::<u32>(pid, layout!(pid_level)).unwrap_or(0) as u64 & 63;
    read::<u32>(pid, Some(numbers + level * size + number)).unwrap_or(0) as u64
}

/// When the task's process began, nanoseconds of the boot clock; 0 if it cannot be read. Not an `Option`: see
/// [`crate::attribute::decide::take`].
#[inline(always)]
pub fn process_start(task: u64) -> u64 {
    read_pointer(task, layout!(task_group_leader)).and_then(start_of).unwrap_or(0)
}

/// The same of a thread-group leader.
#[inline(always)]
fn start_of(leader: u64) -> Option<u64> {
    read(leader, layout!(task_start_boottime))
}

/// Whether the task has a stack of user space; `true` if that cannot be read. One that exits or executes has given its memory up, and a kernel
/// thread may work in the memory of a process.
#[inline(always)]
pub fn has_user_stack(task: u64) -> bool {
    let flags = read::<u32>(task, layout!(task_flags)).unwrap_or(0);
    flags & (KERNEL_THREAD | WORKERS) == 0 && read::<u64>(task, layout!(task_mm)).unwrap_or(1) != 0
}

/// Whether two tasks run in the same memory.
#[inline(always)]
pub fn shares_memory(task: u64, other: u64) -> bool {
    pointer(task, layout!(task_mm)) == pointer(other, layout!(task_mm))
}

/// Whether the task is a kernel thread; `false` if it cannot be read.
#[inline(always)]
pub fn is_kernel_thread(task: u64) -> bool {
    read::<u32>(task, layout!(task_flags)).unwrap_or(0) & KERNEL_THREAD != 0
}

/// [`KEY_COLLAPSED`] if the task is khugepaged.
#[inline(always)]
pub fn collapse_flag(task: u64) -> u32 {
    // The first eight bytes tell it from every other kernel thread; a process may call itself so, a kernel thread cannot be one.
    const NAME: u64 = u64::from_le_bytes(*b"khugepag");
    let name = read::<u64>(task, layout!(task_comm)).unwrap_or(0);
    if name == NAME && is_kernel_thread(task) { KEY_COLLAPSED } else { 0 }
}

/// The current task's process; its record is made if it is new.
#[inline(always)]
pub fn current(now: u64) -> Toucher {
    // SAFETY: plain helpers.
    let (task, ids) = unsafe { (bpf_get_current_task(), bpf_get_current_pid_tgid()) };
    let mut toucher = of(task, now);
    toucher.tid = ids as u32;
    toucher
}

/// The process of a task.
#[inline(always)]
pub fn of(task: u64, now: u64) -> Toucher {
    let mut toucher = Toucher { process: 0, tgid: 0, tid: 0, kernel_thread: false };
    let Some(leader) = read_pointer(task, layout!(task_group_leader)) else { return toucher };
    let Some(tgid) = read::<u32>(leader, layout!(task_tgid)) else { return toucher };
    let process = identity(leader, tgid);
    if process == 0 {
        return toucher;
    }
    let flags = read::<u32>(leader, layout!(task_flags)).unwrap_or(0);
    toucher.tgid = tgid;
    toucher.kernel_thread = flags & KERNEL_THREAD != 0;
    toucher.process = process;
    if PROCESSES.get_ptr(toucher.process).is_none() {
        make_record(toucher.process, leader, now);
    }
    note(toucher.process, leader);
    toucher
}

/// The identity of the process with that leader; 0 if it cannot be read. Makes no record.
#[inline(always)]
pub fn identity(leader: u64, tgid: u32) -> u64 {
    let start = start_of(leader);
    let exec_id = read::<u32>(leader, layout!(task_self_exec_id)).unwrap_or(0) as u64;
    match start {
        Some(start_ns) => process_identity(tgid, start_ns, exec_id),
        None => 0,
    }
}

/// The identity of the current task's process; 0 if it cannot be read. A global function: it takes none of the callers' stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn own_identity() -> u64 {
    // SAFETY: plain helpers.
    let (task, tgid) = unsafe { (bpf_get_current_task(), (bpf_get_current_pid_tgid() >> 32) as u32) };
    match read_pointer(task, layout!(task_group_leader)) {
        Some(leader) => identity(leader, tgid),
        None => 0,
    }
}

/// The image of a process that a task ended has ended: the task's own, or the one before it. `executed` is how many times that process has executed
/// another program since.
#[inline(always)]
pub fn end(task: u64, executed: u32, now: u64) {
    let Some(leader) = read_pointer(task, layout!(task_group_leader)) else { return };
    let (Some(tgid), Some(start)) = (read::<u32>(leader, layout!(task_tgid)), start_of(leader)) else { return };
    let exec_id = read::<u32>(leader, layout!(task_self_exec_id)).unwrap_or(0).wrapping_sub(executed);
    let identity = process_identity(tgid, start, exec_id as u64);
    let Some(record) = PROCESSES.get_ptr_mut(identity) else { return };
    if executed == 0 {
        note(identity, leader);
    }
    // SAFETY: a map value; an aligned word.
    unsafe { (*record).ended_ns = now };
}

/// Makes the record of a process image. A global function, like the next, so that its values do not stand on the callers' stacks.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn make_record(identity: u64, leader: u64, now: u64) -> u64 {
    // As two words: a byte array would be cleared by a call, which costs a frame of the stack.
    let comm = [read::<u64>(leader, layout!(task_comm)).unwrap_or(0), read::<u64>(leader + 8, layout!(task_comm)).unwrap_or(0)];
    let record = ProcessRecord {
        start_ns: start_of(leader).unwrap_or(0),
        first_seen_ns: now,
        ended_ns: 0,
        exec_id: read::<u32>(leader, layout!(task_self_exec_id)).unwrap_or(0),
        ns_tgid: 0,
        tgid: read::<u32>(leader, layout!(task_tgid)).unwrap_or(0),
        kernel_thread: is_kernel_thread(leader) as u32,
        // SAFETY: sixteen bytes are sixteen bytes.
        comm: unsafe { transmute::<[u64; 2], [u8; COMM_BYTES]>(comm) },
    };
    // BPF_NOEXIST: another CPU may have been first; that is no loss.
    if let Err(error) = PROCESSES.insert(identity, record, 1) {
        const EEXIST: i32 = -17;
        if error != EEXIST {
            loss::count(loss::of_insert(error, Loss::ProcessTableFull), 0);
        }
    }
    0
}

/// Notes in the record the process's id in its own namespace and its name of now: an image is seen while exec still builds it, and programs
/// give themselves names.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(identity: u64, leader: u64) -> u64 {
    let Some(record) = PROCESSES.get_ptr_mut(identity) else { return 0 };
    let Some(first) = read::<u64>(leader, layout!(task_comm)) else { return 0 };
    let Some(last) = read::<u64>(leader + 8, layout!(task_comm)) else { return 0 };
    // SAFETY: a map value; whoever writes writes the same, and words that change are written whole.
    unsafe {
        if (*record).ns_tgid == 0 {
            (*record).ns_tgid = own_namespace_id(leader) as u32;
        }
        let comm = (&raw mut (*record).comm).cast::<u64>();
        if *comm != first || *comm.add(1) != last {
            *comm = first;
            *comm.add(1) = last;
        }
    }
    0
}
