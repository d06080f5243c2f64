//! Removes what memtrails that were killed, together with their janitor, left behind: empty cgroups below `memtrail/`.
//!
//! Never removes a cgroup with processes (the kernel refuses), nor one of a memtrail that lives.

use super::place::{LEVELS, PARENT, levels, remove_tree};
use crate::cgroup::CgroupPath;
use crate::cgroup::hierarchy::{Hierarchy, Namespace};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What [`sweep_stale`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Cgroups of dead memtrails that were removed.
    pub removed: u32,
    /// Those in which something still runs.
    pub populated: Vec<CgroupPath>,
    /// Entries not looked at: there were too many.
    pub passed_over: u32,
}

/// Removes the empty cgroups of memtrails that were killed together with their janitor. Call it at start. Does nothing in a pid
/// namespace of its own, where another memtrail's pid cannot be told from a dead one's.
#[must_use]
pub fn sweep_stale(hierarchy: &Hierarchy) -> Sweep {
    let mut sweep = Sweep::default();
    if hierarchy.pid_namespace == Namespace::Other {
        return sweep;
    }
    for level in levels(hierarchy.version, hierarchy.own.as_ref()) {
        let parent = level.join(PARENT.as_bytes());
        sweep_level(&hierarchy.directory(&parent), &parent, &mut sweep, |pid| Path::new(&format!("/proc/{pid}")).exists());
    }
    sweep
}

const MOST_SWEPT: usize = 4096;

fn sweep_level(directory: &Path, path: &CgroupPath, sweep: &mut Sweep, is_alive: impl Fn(u32) -> bool) {
    // No such directory is the usual case: nobody runs commands.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for (index, entry) in entries.flatten().enumerate() {
        let Some(pid) = pid_of(&entry.file_name()) else { continue };
        if index >= MOST_SWEPT {
            sweep.passed_over += 1;
        } else if pid != std::process::id() && !is_alive(pid) && entry.file_type().is_ok_and(|t| t.is_dir()) {
            match remove_tree(&entry.path(), LEVELS) {
                Ok(()) => sweep.removed += 1,
                Err(_) => sweep.populated.push(path.join(entry.file_name().as_bytes())),
            }
        }
    }
    // Fails, as it should, while it is in use.
    drop(fs::remove_dir(directory));
}

/// The pid in `1234` or `1234-2`.
fn pid_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let (pid, number) = name.split_once('-').unwrap_or((name, "1"));
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_memtrails_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join(PARENT);
        for name in ["100", "100-2", "200", "300/below", "not-a-pid", "400"] {
            fs::create_dir_all(parent.join(name)).unwrap();
        }
        // A regular file keeps a directory here, as a process keeps a cgroup.
        fs::write(parent.join("400/process"), "").unwrap();
        let mut sweep = Sweep::default();
        sweep_level(&parent, &CgroupPath::root().join(b"memtrail"), &mut sweep, |pid| pid == 200);
        assert_eq!(sweep, Sweep { removed: 3, populated: vec![CgroupPath::root().join(b"memtrail").join(b"400")], passed_over: 0 });
        let mut left: Vec<_> = fs::read_dir(&parent).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["200", "400", "not-a-pid"]);
    }

    #[test]
    fn names_with_a_pid() {
        for (name, pid) in [("12", Some(12)), ("12-3", Some(12)), ("x", None), ("12-x", None), ("-1", None), ("99999999999", None)] {
            assert_eq!(pid_of(OsStr::new(name)), pid, "{name}");
        }
    }
}
