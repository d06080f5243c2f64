//! System calls on maps that the loader's crate does not have: many entries at once, and reading with removal.

use aya::Pod;
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Command of bpf(2) that runs a program (include/uapi/linux/bpf.h).
const PROG_TEST_RUN: libc::c_long = 10;
/// Commands of bpf(2) (include/uapi/linux/bpf.h); for hash tables the first since 5.14, the second since 5.6.
const LOOKUP_AND_DELETE: libc::c_long = 21;
const LOOKUP_BATCH: libc::c_long = 24;

/// The attribute of the first.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// That of the second.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Attribute of the one that runs a program.
#[repr(C)]
#[derive(Default)]
struct Run {
    program_fd: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
}

/// Runs a raw tracepoint's program on this thread, with these as the tracepoint's arguments.
pub(in super::super) fn test_run(program: BorrowedFd<'_>, arguments: [u64; 4]) -> io::Result<()> {
    let mut attribute = Run {
        program_fd: number(program)?,
        context_size_in: size_of_val(&arguments) as u32,
        context_in: arguments.as_ptr() as u64,
        ..Run::default()
    };
    // SAFETY: the attribute is that of the command; the arguments that it names outlive the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attribute, size_of::<Run>()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn number(map: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(map.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
}

/// Removes the entry of `key` and gives its last value, in one step under the table's lock. The map's keys and values must be of these types'
/// sizes.
pub(super) fn lookup_and_delete<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attribute =
        Element { map_fd: number(map)?, padding: 0, key: (&raw const *key) as u64, value: value.as_mut_ptr() as u64, flags: 0 };
    // SAFETY: the attribute is that of the command; it names a key and room for a value of the map's sizes (the caller's promise), which
    // outlive the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_AND_DELETE, &raw mut attribute, size_of::<Element>()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written a whole value, and every bit pattern is one.
    Ok(unsafe { value.assume_init() })
}

/// What one call of [`lookup_batch`] gave, besides the entries.
pub(super) struct Step {
    /// Where the kernel goes on, for hash tables the number of a bucket: after an error the one that it could not read.
    pub next: u32,
    /// What ended the call early.
    pub error: Option<io::Error>,
}

/// Reads up to `room` entries of a hash table into `keys` and `values`, in place of what is in them, from the bucket `from` on (`None`: the first). The
/// map's keys and values must be of these types' sizes.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    room: usize,
    keys: &mut Vec<K>,
    values: &mut Vec<V>,
) -> io::Result<Step> {
    keys.clear();
    values.clear();
    keys.reserve_exact(room);
    values.reserve_exact(room);
    let mut next = from.unwrap_or(0);
    let mut attribute = Batch {
        in_batch: from.as_ref().map_or(0, |from| (&raw const *from) as u64),
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(room).unwrap_or(u32::MAX),
        map_fd: number(map)?,
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute is that of the command; its buffers hold `count` keys and values of the map's sizes (the caller's promise), and its
    // batches a u32 each, which is what hash tables have; all outlive the call.
    let status = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attribute, size_of::<Batch>()) };
    let error = (status != 0).then(io::Error::last_os_error);
    // The kernel sets the count to zero before it reads, and to what it has read at the end; with errors of other kinds it says nothing of it.
    let counts = match error.as_ref().and_then(io::Error::raw_os_error) {
        None => true,
        Some(code) => matches!(code, libc::ENOENT | libc::EBUSY | libc::EDEADLK | libc::ETIMEDOUT),
    };
    let count = if counts { (attribute.count as usize).min(room) } else { 0 };
    // SAFETY: the kernel has written this many of each, and every bit pattern is a value.
    unsafe {
        keys.set_len(count);
        values.set_len(count);
    }
    Ok(Step { next, error })
}
