//! Finds the memory hierarchy of the running kernel: reads /proc, lets [`super::mounts`] decide, and mounts privately if need be.

use super::mounts::{self, Choice, Mount};
use super::{CgroupPath, Version, sys};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the memory hierarchy cannot be used. Each message names the way out.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// /proc could not be read.
    #[error("cannot read {path}: {source}; is /proc mounted?")]
    Proc {
        /// Which file.
        path: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// Switched off on the kernel's command line.
    #[error("the memory cgroup controller is off: boot without cgroup_disable=memory (or with cgroup_enable=memory)")]
    Disabled,
    /// Neither mounted nor mountable.
    #[error("no mounted cgroup hierarchy holds the memory controller, and mounting one failed ({source}): run as root, or `{mount}`")]
    NotMounted {
        /// What the user can do.
        mount: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The unified hierarchy is there, but does not offer memory here.
    #[error(
        "no cgroup hierarchy offers the memory controller here: inside a container, run with the host's cgroup namespace \
         (docker: --cgroupns=host) and /sys/fs/cgroup"
    )]
    NotOffered,
}

/// Whether a namespace of this process is the one that the kernel started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The initial one.
    Initial,
    /// Another one.
    Other,
    /// Could not be told.
    Unknown,
}

/// The memory hierarchy. Paths below `mount` are good only as long as this or a clone of it lives: it may hold a private mount.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Interface.
    pub version: Version,
    /// "v1", "v2" or "hybrid".
    pub kind_label: &'static str,
    /// Directory of the hierarchy's root (or of the part of it that can be seen).
    pub mount: PathBuf,
    /// Which part of the hierarchy `mount` shows; `/` for all of it, `None` if it lies outside this cgroup namespace.
    pub mount_root: Option<CgroupPath>,
    /// Number of the hierarchy as in `cgroup_root.hierarchy_id`: 0 for v2.
    pub hierarchy_id: u32,
    /// memtrail's own cgroup, below `mount`; `None` if it cannot be seen there.
    pub own: Option<CgroupPath>,
    /// Cgroup namespace of this process: in another than the initial one, paths are not the host's.
    pub cgroup_namespace: Namespace,
    /// Pid namespace of this process: in another one, pids are not the host's.
    pub pid_namespace: Namespace,
    /// Keeps a private mount.
    private: Option<Arc<OwnedFd>>,
}

impl Hierarchy {
    /// Finds the memory hierarchy, mounting it privately if no mount shows it.
    ///
    /// # Errors
    /// [`HierarchyError`], each with the way out.
    pub fn find() -> Result<Self, HierarchyError> {
        let read = |path: &'static str| fs::read(path).map_err(|source| HierarchyError::Proc { path, source });
        let mut found = mounts::cgroup_mounts(&read("/proc/self/mountinfo")?);
        found.retain(is_visible);
        for mount in found.iter_mut().filter(|m| m.version == Version::V2) {
            mount.controllers = v2_controllers(&mount.point);
        }
        let proc_cgroups = read("/proc/cgroups")?;
        let memory = mounts::memory_controller(&String::from_utf8_lossy(&proc_cgroups));
        let (mount, private) = match mounts::choose(&found, memory) {
            Choice::Mounted(mount) => (mount, None),
            Choice::Disabled => return Err(HierarchyError::Disabled),
            Choice::NotMounted(version) => mount_privately(version).map(|(mount, fd)| (mount, Some(Arc::new(fd))))?,
        };
        // Read last: the unified hierarchy's line is not there before its first mount.
        let own_cgroups = read("/proc/self/cgroup")?;
        let version = mount.version;
        let mount_root = CgroupPath::from_bytes(&mount.root);
        let own = mounts::path_in(&own_cgroups, version).and_then(|own| own.below(mount_root.as_ref()?));
        Ok(Hierarchy {
            version,
            kind_label: mounts::kind_label(version, &found),
            mount: mount.point,
            mount_root,
            hierarchy_id: if version == Version::V1 { memory.map_or(0, |m| m.hierarchy) } else { 0 },
            own,
            cgroup_namespace: namespace("/proc/self/ns/cgroup", INITIAL_CGROUP_NAMESPACE),
            pid_namespace: namespace("/proc/self/ns/pid", INITIAL_PID_NAMESPACE),
            private,
        })
    }

    /// Whether memtrail had to mount the hierarchy itself.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Directory of a cgroup.
    #[must_use]
    pub fn directory(&self, path: &CgroupPath) -> PathBuf {
        path.on_disk(&self.mount)
    }

    /// What a user should know before reading paths and pids; empty on a plain host.
    #[must_use]
    pub fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        if self.cgroup_namespace == Namespace::Other {
            facts.push("memtrail runs in a cgroup namespace of its own: cgroup paths are relative to it".to_owned());
        }
        if self.pid_namespace == Namespace::Other {
            facts.push("memtrail runs in a pid namespace of its own: the pids in reports are the host's".to_owned());
        }
        match &self.mount_root {
            Some(root) if root.is_root() => {}
            Some(root) => facts.push(format!("{} shows only {root} of the memory hierarchy", self.mount.display())),
            None => facts.push(format!("{} shows a part of the memory hierarchy outside this cgroup namespace", self.mount.display())),
        }
        if self.is_private() {
            facts.push("no mount shows the memory hierarchy: memtrail uses a private one".to_owned());
        }
        facts
    }
}

/// `PROC_CGROUP_INIT_INO` of the kernel's proc_ns.h.
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;
/// `PROC_PID_INIT_INO`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

fn namespace(path: &str, initial: u64) -> Namespace {
    match fs::metadata(path) {
        Ok(meta) if meta.ino() == initial => Namespace::Initial,
        Ok(_) => Namespace::Other,
        Err(_) => Namespace::Unknown,
    }
}

/// Whether the path of a mount leads to it and not to another one mounted over it.
fn is_visible(mount: &Mount) -> bool {
    fs::metadata(&mount.point).is_ok_and(|meta| (libc::major(meta.dev()), libc::minor(meta.dev())) == mount.device)
}

fn v2_controllers(point: &Path) -> Vec<String> {
    // A mount that cannot be read offers nothing to us; the choice then falls on another one or on the error with the way out.
    let text = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn mount_privately(version: Version) -> Result<(Mount, OwnedFd), HierarchyError> {
    let way_out = match version {
        Version::V1 => "mount -t cgroup -o memory memory /sys/fs/cgroup/memory",
        Version::V2 => "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    };
    let fd = sys::mount_detached(version).map_err(|source| HierarchyError::NotMounted { mount: way_out, source })?;
    let point = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let controllers = match version {
        Version::V1 => vec!["memory".to_owned()],
        Version::V2 => v2_controllers(&point),
    };
    if !controllers.iter().any(|c| c == "memory") {
        return Err(HierarchyError::NotOffered);
    }
    Ok((Mount { version, point, root: b"/".to_vec(), device: (0, 0), controllers }, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_namespace_is_not_another_one() {
        assert_eq!(namespace("/proc/self/ns/none", 1), Namespace::Unknown);
        assert_eq!(namespace("/proc/self/ns/pid", 1), Namespace::Other);
    }

    #[test]
    #[ignore = "needs root and a memory hierarchy"]
    fn root_found_hierarchy_has_memory_files() {
        let hierarchy = Hierarchy::find().unwrap();
        assert!(hierarchy.mount.join("memory.stat").exists() || hierarchy.version == Version::V2);
        let own = hierarchy.own.as_ref().unwrap();
        assert!(hierarchy.directory(own).join("cgroup.procs").exists());
        assert_eq!(hierarchy.version == Version::V2, hierarchy.hierarchy_id == 0);
    }

    #[test]
    #[ignore = "needs root"]
    fn root_private_mount_shows_the_same_hierarchy() {
        let hierarchy = Hierarchy::find().unwrap();
        let (mount, fd) = mount_privately(hierarchy.version).unwrap();
        let point = mount.point;
        let own = hierarchy.own.as_ref().unwrap();
        let ino = |dir: PathBuf| fs::metadata(dir).unwrap().ino();
        assert_eq!(ino(own.on_disk(&point)), ino(hierarchy.directory(own)));
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mountinfo.contains(&*point.to_string_lossy()));
        drop(fd);
        assert!(!point.join("cgroup.procs").exists());
    }
}
