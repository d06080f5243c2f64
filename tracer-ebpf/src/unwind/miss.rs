//! Files that user space does not have open, or has no tables of: it is told of each once a second at the most.

use crate::{
    kernel::task,
    loss,
    maps::{UNWIND_FILES, UNWIND_MISSES},
    values::Unwind,
};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_common::{loss::Loss, unwind::Miss};

/// A file that is met for the first time.
#[inline(always)]
pub fn first(s: &mut Unwind) {
    s.asked.first_page = 0;
    s.asked.pages = 0;
    s.asked.entry = 0;
    s.asked.state = 0;
    s.asked.asked_s = s.now_s as u32;
    s.asked.used_s = s.now_s as u32;
    // BPF_NOEXIST: another CPU may have been first, and then has told of it.
    match UNWIND_FILES.insert(&s.current.key, &s.asked, 1) {
        Ok(()) => tell(s),
        Err(EEXIST) => {}
        Err(error) => loss::count(loss::of_insert(error, Loss::UnwindFileTableFull), 0),
    }
}

/// Tells user space which file it is, and where it is mapped.
#[inline(always)]
pub fn tell(s: &mut Unwind) {
    s.miss.key = s.current.key;
    s.miss.start = s.current.start;
    s.miss.end = s.current.end;
    s.miss.process = task::own_identity();
    s.miss.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    s.miss.reserved = 0;
    if UNWIND_MISSES.output::<Miss>(&s.miss, 0).is_err() {
        loss::count(Loss::UnwindMissLost, 0);
    }
}

const EEXIST: i32 = -17;
