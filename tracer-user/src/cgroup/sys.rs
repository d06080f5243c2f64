//! The system calls of [`super`] that the standard library does not offer: a mount that nobody else sees.

use super::Version;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

// linux/mount.h; not all of them are in the libc crate.
const FSOPEN_CLOEXEC: libc::c_long = 1;
const FSMOUNT_CLOEXEC: libc::c_long = 1;
const FSCONFIG_SET_FLAG: libc::c_long = 0;
const FSCONFIG_CMD_CREATE: libc::c_long = 6;
const MOUNT_ATTR_NOSUID_NODEV_NOEXEC: libc::c_long = 2 | 4 | 8;

/// Mounts the memory hierarchy detached (fsopen(2), fsmount(2), Linux 5.2): no path leads to it but the descriptor, nothing is
/// propagated, and it is gone with the last descriptor, however the process ends.
///
/// # Errors
/// The kernel's, EPERM without CAP_SYS_ADMIN.
pub fn mount_detached(version: Version) -> io::Result<OwnedFd> {
    let (kind, flag) = match version {
        Version::V1 => (c"cgroup", Some(c"memory")),
        Version::V2 => (c"cgroup2", None),
    };
    // SAFETY: the name is a NUL-terminated string, and the call returns a new descriptor or an error.
    let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC)) }?;
    if let Some(flag) = flag {
        configure(context.as_raw_fd(), FSCONFIG_SET_FLAG, Some(flag))?;
    }
    configure(context.as_raw_fd(), FSCONFIG_CMD_CREATE, None)?;
    // SAFETY: plain integers; the call returns a new descriptor or an error.
    unsafe {
        let context = libc::c_long::from(context.as_raw_fd());
        owned(libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID_NODEV_NOEXEC))
    }
}

fn configure(context: RawFd, command: libc::c_long, key: Option<&CStr>) -> io::Result<()> {
    let key = key.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: `key` is null, as FSCONFIG_CMD_CREATE wants it, or a NUL-terminated string that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, libc::c_long::from(context), command, key, ptr::null::<libc::c_void>(), 0_i64) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Owns the descriptor that a system call returned.
///
/// # Safety
/// `result` must be a descriptor that nobody else owns, or negative with errno set.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the caller vouches that it is open and not owned.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
