//! What CPython knows of the current thread.
//!
//! Interpreters stand in a list, and their threads in one each. A thread is found by its `pthread_t`, which is where its thread-local storage is
//! (glibc and musl); where it was found is remembered by its id. A thread that runs no Python is in no list.

use super::{fetch, state};
use crate::{
    globals::layout,
    maps::{PYTHONS, RUNTIME_THREADS},
    unwind::begin::fetch as fetch_kernel,
    values::Managed,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use tracer_common::{layout::ABSENT, managed::python::Python};

/// Threads and interpreters that are looked at: new threads stand at the beginning of their list.
const STEPS: u64 = 128;

/// Finds the innermost frame of the current thread; 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_thread() -> u64 {
    let Some(m) = state() else { return 0 };
    let (Some(task_thread), Some(fsbase)) = (layout!(task_thread), layout!(thread_fsbase)) else { return 0 };
    let Some(python) = PYTHONS.get(m.build as u32) else { return 0 };
    // SAFETY: plain helpers.
    let (task, own) = unsafe { (bpf_get_current_task(), bpf_get_current_pid_tgid()) };
    if !fetch_kernel(&raw mut m.word, 8, task + task_thread + fsbase) {
        return 0;
    }
    let id = m.word;
    let mut thread = 0;
    if let Some(known) = RUNTIME_THREADS.get_ptr(own) {
        // SAFETY: a map value, an aligned word.
        thread = unsafe { *known };
        // It may be one without a frame: a thread can have several records, of which one is in use.
        if !fetch(&raw mut m.word, 8, thread + python.thread_id as u64) || m.word != id || !has_frame(m, python, thread) {
            thread = 0;
        }
    }
    if thread == 0 {
        thread = search_threads(id);
        if thread == 0 {
            return 0;
        }
        // Where there is no room it is looked for again.
        let _ = RUNTIME_THREADS.insert(own, thread, 0);
    }
    m.process = crate::kernel::task::own_identity();
    1
}

/// Reads where a thread's innermost frame is; false if it has none.
#[inline(always)]
fn has_frame(m: &mut Managed, python: &Python, thread: u64) -> bool {
    if !fetch(&raw mut m.frame, 8, thread + python.thread_frame as u64) || m.frame == 0 {
        return false;
    }
    python.frame_in == ABSENT || fetch(&raw mut m.frame, 8, m.frame + python.frame_in as u64) && m.frame != 0
}

/// The record of the thread with that `pthread_t`; 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_threads(id: u64) -> u64 {
    let Some(m) = state() else { return 0 };
    let Some(python) = PYTHONS.get(m.build as u32) else { return 0 };
    if !fetch(&raw mut m.word, 8, m.base.wrapping_add(python.runtime) + python.first_interpreter as u64) || m.word == 0 {
        return 0;
    }
    let mut interpreter = m.word;
    let mut at = interpreter + python.first_thread as u64;
    let mut step = 0;
    while step < STEPS {
        step += 1;
        if !fetch(&raw mut m.word, 8, at) {
            return 0;
        }
        let thread = m.word;
        if thread == 0 {
            if !fetch(&raw mut m.word, 8, interpreter + python.next_interpreter as u64) || m.word == 0 {
                return 0;
            }
            interpreter = m.word;
            at = interpreter + python.first_thread as u64;
            continue;
        }
        if !fetch(&raw mut m.word, 8, thread + python.thread_id as u64) {
            return 0;
        }
        // One that is being made still has the id of the thread that makes it, in front of that one and without a frame.
        if m.word == id && has_frame(m, python, thread) {
            return thread;
        }
        at = thread + python.next_thread as u64;
    }
    0
}
