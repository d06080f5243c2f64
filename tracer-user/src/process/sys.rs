//! The system calls that the standard library has no safe form of. The only `unsafe` of this half of the program's process and
//! symbol code. Knows nothing of processes or symbols.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Clock ticks a second, the unit of start times in `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|&t| t > 0).unwrap_or(100)
}

/// Waits until one of the descriptors is readable or the time is over. True if one is.
pub fn poll_readable(descriptors: &[RawFd], timeout: Duration) -> io::Result<bool> {
    let mut polled: Vec<libc::pollfd> = descriptors.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let milliseconds = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `polled` is an array of that many pollfd structures.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
    match ready {
        0 => Ok(false),
        n if n > 0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Finds `path` below `root` as if `root` were the root directory, also through absolute symlinks (openat2, Linux 5.6), without
/// opening it (O_PATH): opening a device or a FIFO can have effects. Kernel magic links inside are refused. With `O_NOFOLLOW` in `flags` a
/// symlink at the end is found itself.
pub fn find_in_root(root: BorrowedFd<'_>, path: &CString, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain integers; all zero is its neutral value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC | flags) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `path` is NUL-terminated, `how` has the size given.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), std::ptr::from_ref(&how), std::mem::size_of::<libc::open_how>())
    };
    owned(fd)
}

/// An anonymous file in memory, closed on exec.
pub fn memory_file(name: &CString) -> io::Result<File> {
    // SAFETY: `name` is NUL-terminated.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    owned(libc::c_long::from(fd)).map(File::from)
}

/// The type number of the file system that a descriptor lies on.
pub fn file_system_type(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: `statfs` is plain integers.
    let mut out: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `out` is a statfs that the call fills.
    if unsafe { libc::fstatfs(fd.as_raw_fd(), &mut out) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(out.f_type)
}

/// The generation of an inode, where the file system tells it.
pub fn inode_generation(file: &File) -> Option<u64> {
    // FS_IOC_GETVERSION, _IOR('v', 1, long): the kernel writes an int, whatever the number says.
    const GET_VERSION: libc::c_ulong = 0x8008_7601;
    let mut generation: [u32; 2] = [0; 2];
    // SAFETY: the kernel writes at most a long into the eight bytes given.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_VERSION, generation.as_mut_ptr()) };
    (result == 0).then_some(u64::from(generation[0]))
}

/// How many files this process may have open.
pub fn open_files_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is an rlimit that the call fills.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (result == 0).then_some(limit.rlim_cur)
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

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the system call just returned this descriptor, nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
