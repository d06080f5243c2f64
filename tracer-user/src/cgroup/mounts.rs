//! Decides from the text of /proc which hierarchy holds the memory controller. Pure: text in, decision out.

use super::{CgroupPath, Version};
use crate::host::proc::mountinfo;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One cgroup file system in /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Interface.
    pub version: Version,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which part of the hierarchy it shows, as bytes: `/` for all of it, `/..` for one outside the cgroup namespace.
    pub root: Vec<u8>,
    /// Device number as in `st_dev`: major, minor.
    pub device: (u32, u32),
    /// Controllers, from the mount options (v1) or `cgroup.controllers` (v2, filled in by the caller).
    pub controllers: Vec<String>,
}

/// What /proc/cgroups says of the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryController {
    /// Number of the v1 hierarchy that holds it, 0 for the unified one or none.
    pub hierarchy: u32,
    /// False when it was switched off on the kernel's command line.
    pub enabled: bool,
}

/// The cgroup mounts of a mountinfo text, in its order. Lines that do not parse are passed over.
#[must_use]
pub fn cgroup_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo::mounts(mountinfo).filter_map(cgroup_mount).collect()
}

fn cgroup_mount(line: mountinfo::Mount) -> Option<Mount> {
    let (version, controllers) = match line.kind.as_slice() {
        b"cgroup2" => (Version::V2, Vec::new()),
        b"cgroup" => (Version::V1, v1_controllers(&line)),
        _ => return None,
    };
    Some(Mount { version, point: PathBuf::from(OsString::from_vec(line.point)), root: line.root, device: line.device, controllers })
}

/// Controllers among the mount options of a v1 hierarchy. `name=` hierarchies have none.
fn v1_controllers(line: &mountinfo::Mount) -> Vec<String> {
    const NOT_CONTROLLERS: [&str; 8] = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "none"];
    line.options()
        .filter_map(|o| std::str::from_utf8(o).ok())
        .filter(|o| !o.is_empty() && !o.contains('=') && !NOT_CONTROLLERS.contains(o))
        .map(str::to_owned)
        .collect()
}

/// The line of the memory controller in /proc/cgroups; `None` without one. Kernels built without v1 memory cgroups may omit it.
#[must_use]
pub fn memory_controller(proc_cgroups: &str) -> Option<MemoryController> {
    let mut fields = proc_cgroups.lines().find(|l| l.split_whitespace().next() == Some("memory"))?.split_whitespace().skip(1);
    let hierarchy = fields.next()?.parse().ok()?;
    Some(MemoryController { hierarchy, enabled: fields.nth(1)? != "0" })
}

/// The path of a process in a hierarchy, from its /proc/PID/cgroup; as the reader's cgroup namespace shows it. `None` if it is not
/// named or outside the namespace.
#[must_use]
pub fn path_in(proc_pid_cgroup: &[u8], version: Version) -> Option<CgroupPath> {
    proc_pid_cgroup.split(|&b| b == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&b| b == b':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let here = match version {
            Version::V1 => controllers.split(|&b| b == b',').any(|c| c == b"memory"),
            Version::V2 => id == b"0" && controllers.is_empty(),
        };
        if here { CgroupPath::from_bytes(path) } else { None }
    })
}

/// Where the memory controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// In this mount.
    Mounted(Mount),
    /// In a hierarchy that no mount shows.
    NotMounted(Version),
    /// Switched off.
    Disabled,
}

/// Chooses the mount that holds the memory controller. `mounts` are those that can be seen (not covered by another mount), with
/// the controllers of each. One that shows the whole hierarchy is preferred to one that shows a part.
#[must_use]
pub fn choose(mounts: &[Mount], memory: Option<MemoryController>) -> Choice {
    let holds = |mount: &&Mount| mount.controllers.iter().any(|c| c == "memory");
    let whole = |mount: &&Mount| mount.root == b"/";
    match mounts.iter().filter(holds).find(whole).or_else(|| mounts.iter().find(holds)) {
        Some(mount) => Choice::Mounted(mount.clone()),
        None => match memory {
            Some(MemoryController { enabled: false, .. }) => Choice::Disabled,
            Some(MemoryController { hierarchy, .. }) if hierarchy != 0 => Choice::NotMounted(Version::V1),
            _ => Choice::NotMounted(Version::V2),
        },
    }
}

/// "v1", "v2", or "hybrid" when both interfaces are mounted and memory is in one of them. A v1 hierarchy without controllers
/// (systemd's own) makes nothing hybrid.
#[must_use]
pub fn kind_label(version: Version, mounts: &[Mount]) -> &'static str {
    let v1 = version == Version::V1 || mounts.iter().any(|m| m.version == Version::V1 && !m.controllers.is_empty());
    let v2 = version == Version::V2 || mounts.iter().any(|m| m.version == Version::V2);
    match (v1, v2) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        _ => "v2",
    }
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
