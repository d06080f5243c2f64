//! fork, exec and wait: the only unsafe code of [`super`].
//!
//! Between fork and exec only async-signal-safe calls are made on memory prepared before: other threads of memtrail may have held any
//! lock at the fork.

use super::{Exit, Program};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the child tells through its report pipe: a stage and an errno, each 4 bytes. Nothing more comes after a successful exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is in its cgroup and waits.
    Ready,
    /// It could not enter the cgroup.
    Cgroup,
    /// exec failed.
    Exec,
}

impl Stage {
    /// The stage and error of a report; `None` if it is not one.
    pub fn decode(report: [u8; 8]) -> Option<(Stage, i32)> {
        let [a, b, c, d, errno @ ..] = report;
        let stage = match u32::from_ne_bytes([a, b, c, d]) {
            1 => Stage::Ready,
            2 => Stage::Cgroup,
            3 => Stage::Exec,
            _ => return None,
        };
        Some((stage, i32::from_ne_bytes(errno)))
    }

    fn encode(self, errno: i32) -> [u8; 8] {
        let number: u32 = match self {
            Stage::Ready => 1,
            Stage::Cgroup => 2,
            Stage::Exec => 3,
        };
        let (mut report, errno) = ([0; 8], errno.to_ne_bytes());
        report[..4].copy_from_slice(&number.to_ne_bytes());
        report[4..].copy_from_slice(&errno);
        report
    }
}

/// Descriptors that the child uses between fork and exec.
pub struct ChildEnds<'a> {
    /// One byte from here lets it go on; end of file ends it.
    pub gate: BorrowedFd<'a>,
    /// Reports go here.
    pub report: BorrowedFd<'a>,
    /// `cgroup.procs` of its cgroup, open for writing.
    pub procs: Option<BorrowedFd<'a>>,
    /// The parent's end of the gate, which the child must not keep open.
    pub parents_gate: BorrowedFd<'a>,
}

/// Forks a child that enters its cgroup, waits at the gate and executes the program. Returns its pid.
pub fn fork_gated(program: &Program, ends: &ChildEnds<'_>) -> io::Result<libc::pid_t> {
    let arguments = pointers(program.arguments());
    let environment = pointers(program.environment());
    forked(|blocked| {
        // SAFETY: the arrays end in null and their strings live as long as `program`; only async-signal-safe calls are made.
        unsafe { child(program.candidates(), &arguments, &environment, ends, blocked) }
    })
}

/// Forks; the child runs `body`, which must be async-signal-safe, and ends with the code it returns. All signals are blocked in the child
/// until `body` unblocks them; it gets those that were blocked before. None has a handler of ours.
pub fn forked(body: impl FnOnce(&libc::sigset_t) -> i32) -> io::Result<libc::pid_t> {
    // SAFETY: the sets are valid memory, the mask is restored in the parent, and the child never returns from this block.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::fork();
        let error = io::Error::last_os_error();
        if pid == 0 {
            reset_signals();
            libc::_exit(body(&before));
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// Signals that [`handle`] took although they were ignored: bit N-1 for signal N.
static IGNORED_BEFORE: AtomicU64 = AtomicU64::new(0);

/// A signal's bit in the masks of /proc/PID/status.
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether a signal was ignored when memtrail began.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: `action` is valid memory.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        match libc::sigaction(signal, ptr::null(), &raw mut action) {
            0 => Ok(action.sa_sigaction == libc::SIG_IGN || IGNORED_BEFORE.load(Ordering::Relaxed) & bit(signal) != 0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Gives every signal that has a handler the action that it had when memtrail began: a handler of ours would write to pipes shared with the parent.
/// What was ignored then (nohup) stays ignored, but for SIGPIPE: Rust ignores it before anybody could look.
unsafe fn reset_signals() {
    let ignored_before = IGNORED_BEFORE.load(Ordering::Relaxed);
    for signal in 1..=64 {
        // SAFETY: `action` is valid memory; numbers that are no signals give EINVAL and change nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            let ignored = action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
            if !ignored && action.sa_sigaction != libc::SIG_DFL {
                action = std::mem::zeroed();
                if ignored_before & bit(signal) != 0 {
                    action.sa_sigaction = libc::SIG_IGN;
                }
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
    }
}

/// Lets every signal through.
pub fn unblock_signals() {
    // SAFETY: `none` is valid memory; async-signal-safe.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// # Safety
/// `arguments` and `environment` must be arrays of C strings ending in null. Runs in a forked child.
unsafe fn child(
    files: &[CString],
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    ends: &ChildEnds<'_>,
    blocked: &libc::sigset_t,
) -> i32 {
    // SAFETY: closes a descriptor of the child's own table, which nothing here uses again.
    unsafe { libc::close(ends.parents_gate.as_raw_fd()) };
    if let Some(procs) = ends.procs {
        // "0" stands for the writer itself.
        if let Err(errno) = write_all(procs.as_raw_fd(), b"0") {
            let _ = write_all(ends.report.as_raw_fd(), &Stage::Cgroup.encode(errno));
            return 125;
        }
    }
    // SAFETY: a valid set; async-signal-safe.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, blocked, ptr::null_mut()) };
    if write_all(ends.report.as_raw_fd(), &Stage::Ready.encode(0)).is_err() || !gate_opened(ends.gate.as_raw_fd()) {
        return 125;
    }
    let mut error = libc::ENOENT;
    for file in files {
        // SAFETY: as the caller vouches.
        unsafe { libc::execve(file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        error = match (errno(), error) {
            // One that may not be executed is the better message than the ones that are not there.
            (libc::ENOENT | libc::ENOTDIR, libc::EACCES) => libc::EACCES,
            (now, _) => now,
        };
        if !matches!(error, libc::ENOENT | libc::ENOTDIR | libc::EACCES) {
            break;
        }
    }
    // Without a reader there is nobody to tell.
    let _ = write_all(ends.report.as_raw_fd(), &Stage::Exec.encode(error));
    if error == libc::ENOENT { 127 } else { 126 }
}

fn errno() -> i32 {
    // last_os_error allocates nothing: it only reads errno.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn write_all(fd: RawFd, bytes: &[u8]) -> Result<(), i32> {
    loop {
        // SAFETY: `bytes` is valid memory of that length.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match errno() {
            _ if written >= 0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(error),
        }
    }
}

fn gate_opened(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte of valid memory.
        let read = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
        if read >= 0 || errno() != libc::EINTR {
            return read == 1;
        }
    }
}

/// A descriptor that becomes readable when the process ends (Linux 5.3).
pub fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the call returns a new descriptor, closed at exec, or an error.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0_i64);
        match RawFd::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits until one of the descriptors can be read, at most `timeout_ms` (-1: for ever). An interruption counts as "none yet".
pub fn readable<const N: usize>(fds: [RawFd; N], timeout_ms: i32) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: N valid entries; negative descriptors are passed over by the kernel.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    match io::Error::last_os_error() {
        error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ if result < 0 => Ok([false; N]),
        _ => Ok(polled.map(|p| p.revents != 0)),
    }
}

/// The end of a child, if it has ended; reaps it. `block`: waits for it.
pub fn reap(pid: libc::pid_t, block: bool) -> io::Result<Option<Exit>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid memory.
        match unsafe { libc::waitpid(pid, &raw mut status, if block { 0 } else { libc::WNOHANG }) } {
            0 => return Ok(None),
            result if result == pid => break,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    let status = ExitStatus::from_raw(status);
    Ok(status.code().map(Exit::Code).or_else(|| status.signal().map(Exit::Signal)))
}

/// Sends a signal to a child that was not reaped yet, so that its pid cannot mean another process.
pub fn signal(pid: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a process is in this one's process group: what the terminal sends to one of them reaches both.
pub fn in_own_process_group(pid: libc::pid_t) -> bool {
    // SAFETY: plain integers.
    unsafe { libc::getpgid(pid) == libc::getpgrp() }
}

/// Installs `handler` for `signal`. System calls that it interrupts are restarted.
pub fn handle(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) -> io::Result<()> {
    if is_ignored(signal)? {
        IGNORED_BEFORE.fetch_or(bit(signal), Ordering::Relaxed);
    }
    // SAFETY: the action is valid memory, and the handler has the form that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        if libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The code of a signal's cause (`si_code`): SI_KERNEL when the terminal sent it.
pub fn signal_code(info: *mut libc::siginfo_t) -> i32 {
    // SAFETY: the kernel passes a valid siginfo to handlers installed with SA_SIGINFO, or null is told from it.
    unsafe { info.as_ref() }.map_or(0, |info| info.si_code)
}

/// Writes 8 bytes to a pipe from a signal handler, leaving errno as it was. A full pipe drops them.
pub fn write_from_handler(fd: RawFd, record: [u8; 8]) {
    // SAFETY: errno's address is always valid; write is async-signal-safe on valid memory.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(fd, record.as_ptr().cast(), record.len());
        *errno = before;
    }
}

/// Makes reads and writes of a descriptor return at once.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain integers on an open descriptor.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// What follows is for the janitor, in its forked process: raw descriptors, no allocation.

/// Leaves the terminal's session, keeps only these descriptors, as 0, 1 and 2, and names the process.
pub fn become_janitor(keep: [RawFd; 3]) -> Option<()> {
    // SAFETY: plain integers and a C string. The descriptors are moved above the targets first, so that none overwrites another.
    unsafe {
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, c"memtrail-clean".as_ptr());
        let mut moved = [0; 3];
        for (to, from) in moved.iter_mut().zip(keep) {
            *to = libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 3);
            if *to < 0 {
                return None;
            }
        }
        for (to, from) in (0..).zip(moved) {
            if libc::dup2(from, to) < 0 {
                return None;
            }
        }
        // Whatever else memtrail had open must not live on in here: BPF programs and maps above all. Linux 5.9.
        if libc::syscall(libc::SYS_close_range, 3_i64, i64::from(u32::MAX), 0_i64) != 0 {
            (3..65_536).for_each(|fd| {
                libc::close(fd);
            });
        }
    }
    Some(())
}

/// Inode number of an entry of an open directory.
pub fn entry_inode(directory: RawFd, name: &CStr) -> Option<u64> {
    // SAFETY: `stat` is valid memory and `name` a C string.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstatat(directory, name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW) == 0).then_some(stat.st_ino)
    }
}

/// Removes an empty directory below an open one. The error is an errno.
pub fn remove_directory(directory: RawFd, name: &CStr) -> Result<(), i32> {
    // SAFETY: `name` is a C string.
    if unsafe { libc::unlinkat(directory, name.as_ptr(), libc::AT_REMOVEDIR) } == 0 { Ok(()) } else { Err(errno()) }
}

/// Removes the directories below `name`, the deepest first, as far as they are empty; at most `levels` deep.
pub fn remove_below(directory: RawFd, name: &CStr, levels: u32) {
    const HEADER: usize = 19; // d_ino 8, d_off 8, d_reclen 2, d_type 1: the name begins here.
    // SAFETY: `name` is a C string; the descriptor is closed at the end; the kernel fills `buffer` with whole records whose names end in NUL.
    unsafe {
        let fd = libc::openat(directory, name.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC);
        if fd < 0 {
            return;
        }
        let mut buffer = [0_u8; 2048];
        while let Ok(filled @ 1..) = usize::try_from(libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len())) {
            let mut rest = buffer.get(..filled).unwrap_or_default();
            while let Some(&[low, high]) = rest.get(16..18) {
                let length = usize::from(u16::from_ne_bytes([low, high]));
                let Some(record) = rest.get(..length).filter(|r| r.len() > HEADER) else { break };
                rest = &rest[length..];
                let Ok(entry) = CStr::from_bytes_until_nul(&record[HEADER..]) else { continue };
                if record[HEADER - 1] == libc::DT_DIR && levels > 0 && !matches!(entry.to_bytes(), b"." | b"..") {
                    remove_below(fd, entry, levels - 1);
                    let _ = remove_directory(fd, entry);
                }
            }
        }
        libc::close(fd);
    }
}

/// Sleeps.
pub fn sleep_ms(ms: u32) {
    let time = libc::timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
    // SAFETY: `time` is valid memory.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}
