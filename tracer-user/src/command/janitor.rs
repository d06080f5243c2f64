//! A small process that outlives a memtrail that was killed, and removes the command's cgroup once it is empty.
//!
//! A fork without exec: it needs no binary to be found, and holds three descriptors and nothing else. It never signals anybody. It waits for
//! memtrail's end by a pidfd rather than a pipe, since no copy of a descriptor in another child can delay that.

use super::sys;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What the janitor is to remove: `name` in `parent`, then `parent` itself, which is called `parent_name` in `grandparent`.
pub struct Task<'a> {
    /// Directory above `parent`.
    pub grandparent: &'a File,
    /// The name of `parent`.
    pub parent_name: CString,
    /// Directory of all commands' cgroups.
    pub parent: &'a File,
    /// The command's.
    pub name: CString,
    /// Inode number of the command's: another cgroup of that name is left alone.
    pub inode: u64,
}

/// The running janitor. Dismissed when dropped.
#[derive(Debug)]
pub struct Janitor {
    pid: libc::pid_t,
}

const LONGEST_PAUSE_MS: u32 = 1000;
/// Cgroups that the command made below its own are removed this deep.
const LEVELS: u32 = 16;

impl Janitor {
    /// Starts it.
    pub fn start(task: &Task<'_>) -> io::Result<Self> {
        let own = sys::pidfd_open(libc::pid_t::try_from(std::process::id()).map_err(io::Error::other)?)?;
        let keep = [own.as_raw_fd(), task.parent.as_raw_fd(), task.grandparent.as_raw_fd()];
        let pid = sys::forked(|_| {
            if sys::become_janitor(keep).is_none() {
                return 1;
            }
            sys::unblock_signals();
            wait_for_end(0);
            clean(1, 2, task);
            0
        })?;
        Ok(Janitor { pid })
    }

    /// Its process id.
    #[cfg(test)]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // It holds nothing that needs an orderly end. If it is gone already, there is nobody to signal or reap.
        if sys::signal(self.pid, libc::SIGKILL).is_ok() {
            let _ = sys::reap(self.pid, true);
        }
    }
}

fn wait_for_end(pidfd: i32) {
    loop {
        match sys::readable([pidfd], -1) {
            Ok([false]) => {}
            Ok([true]) | Err(_) => return,
        }
    }
}

fn clean(parent: i32, grandparent: i32, task: &Task<'_>) {
    let mut pause = 50;
    while sys::entry_inode(parent, &task.name) == Some(task.inode) {
        sys::remove_below(parent, &task.name, LEVELS);
        match sys::remove_directory(parent, &task.name) {
            // Also fails, as it should, while another command has its cgroup there.
            Ok(()) => {
                let _ = sys::remove_directory(grandparent, &task.parent_name);
                return;
            }
            Err(libc::EBUSY | libc::ENOTEMPTY | libc::EINTR) => {}
            Err(_) => return,
        }
        sys::sleep_ms(pause);
        pause = (pause * 2).min(LONGEST_PAUSE_MS);
    }
}
