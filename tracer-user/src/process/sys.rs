//! System calls on files and descriptors, with the errors of the standard library. What has no safe form elsewhere stands here: the only
//! `unsafe` of this half of the program's process and symbol code. Knows nothing of symbols.

use crate::host::proc::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::process::Resource;
use rustix::time::Timespec;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Waits until one of the descriptors is readable or the time is over. True if one is.
pub fn poll_readable(descriptors: &[impl AsRawFd], timeout: Duration) -> io::Result<bool> {
    let polled = descriptors.iter().map(|owner| {
        // SAFETY: the descriptor belongs to `owner`, which outlives this call and cannot close it meanwhile.
        let descriptor = unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) };
        PollFd::from_borrowed_fd(descriptor, PollFlags::IN)
    });
    let mut polled: Vec<PollFd<'_>> = polled.collect();
    match poll(&mut polled, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A directory, for look-ups below it only.
#[cfg(test)]
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The file that a process has mapped at these addresses, without opening it.
pub fn mapped_file(process: &Process, start: u64, end: u64) -> io::Result<OwnedFd> {
    let path = format!("map_files/{start:x}-{end:x}");
    Ok(rustix::fs::openat(process.directory(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// The program that a process executes, without opening it.
pub fn program(process: &Process) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(process.directory(), "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// What the kernel calls the file that a descriptor stands for.
pub fn path_of(file: &impl AsRawFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Finds `path` below `root` as if `root` were the root directory, also through absolute symlinks (openat2, Linux 5.6), without
/// opening it (O_PATH): opening a device or a FIFO can have effects. Kernel magic links inside are refused. With `O_NOFOLLOW` in `flags` a
/// symlink at the end is found itself.
pub fn find_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve)?)
}

/// Finds a file of the host by its path, without opening it.
pub fn find_on_host(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// An anonymous file in memory, closed on exec.
pub fn memory_file(name: &CStr) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// The type number of the file system that a descriptor lies on.
pub fn file_system_type(fd: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(fd)?.f_type)
}

/// Has this thread run when nothing else wants to.
pub fn give_way() -> io::Result<()> {
    // The least of all (setpriority(2)); of the calling thread alone, on Linux.
    Ok(rustix::process::setpriority_process(None, 19)?)
}

/// How many files this process may have open; `None` for any number.
pub fn open_files_limit() -> Option<u64> {
    rustix::process::getrlimit(Resource::Nofile).current
}

/// Has every large block given back as soon as it is freed. Tables of the kernel half are read every second into tables as large; left to
/// itself, glibc takes blocks of a size that was freed once from the heap from then on, which grows by what lies between them.
pub fn give_large_blocks_back() {
    const LARGE: libc::c_int = 512 << 10;
    // With a threshold of one's own the other stays at 128 KiB, and a thread that fills and empties a buffer of more gives it back each time.
    const KEPT: libc::c_int = 1 << 20;
    for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: plain numbers. A libc that does not know one says so and goes on as before, which is no harm.
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
}

/// Gives memory back that was freed: glibc keeps what lies between what is in use. To be called after what took much at once.
pub fn give_memory_back() {
    // SAFETY: no pointers; the call locks each arena for itself.
    unsafe { libc::malloc_trim(0) };
}
