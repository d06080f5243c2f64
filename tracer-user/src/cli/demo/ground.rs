//! Where the demo's workloads run: a cgroup for each, and two files with names, since names are what the demo is to find.

use super::workloads::Workload;
use crate::{
    cgroup::{Hierarchy, Version},
    command::{Place, Placement, Removal, sweep_stale},
    host::proc::mountinfo,
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tempfile::NamedTempFile;

/// A cgroup with one below it for each workload. Dropped, it is removed.
pub struct Ground {
    place: Place,
    used: Vec<Workload>,
    log: Option<NamedTempFile>,
    tmpfs: Option<NamedTempFile>,
}

impl Ground {
    /// Makes the cgroup, with the janitor that removes it if memtrail is killed.
    pub fn prepare(hierarchy: &Hierarchy) -> Result<Ground> {
        let _left = sweep_stale(hierarchy);
        let place = match Placement::make(hierarchy, None)? {
            Placement::Own(place) => place,
            Placement::Inherited { warning } => bail!("the demo needs cgroups of its own, and none can be made: {warning}"),
        };
        place.warnings().iter().for_each(|warning| eprintln!("memtrail: {warning}"));
        if hierarchy.version == Version::V2 {
            fs::write(place.directory().join("cgroup.subtree_control"), "+memory").context("cannot enable the memory controller")?;
        }
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let on_disk = [PathBuf::from("/var/tmp"), std::env::temp_dir(), PathBuf::from("/root"), PathBuf::from(".")];
        let in_memory = ["/dev/shm", "/run", "/tmp"].map(PathBuf::from);
        let log = file_in(&mounts, &on_disk, ".log", |kind| !matches!(kind, "tmpfs" | "ramfs" | "rootfs" | "devtmpfs"))?;
        let tmpfs = file_in(&mounts, &in_memory, ".cache", |kind| kind == "tmpfs")?;
        Ok(Ground { place, used: Vec::new(), log, tmpfs })
    }

    /// Path of the cgroup above all workloads'.
    pub fn path(&self) -> String {
        self.place.path().to_string()
    }

    /// Path of a workload's cgroup.
    pub fn path_of(&self, workload: Workload) -> String {
        self.place.path().join(workload.name().as_bytes()).to_string()
    }

    /// Workloads that ran, in order.
    pub fn used(&self) -> &[Workload] {
        &self.used
    }

    /// Makes a workload's cgroup; its `cgroup.procs`.
    pub fn add(&mut self, workload: Workload) -> Result<PathBuf> {
        let directory = self.place.directory().join(workload.name());
        fs::create_dir(&directory).with_context(|| format!("cannot make the cgroup {}", self.path_of(workload)))?;
        self.used.push(workload);
        Ok(directory.join("cgroup.procs"))
    }

    /// Removes a workload's cgroup, whose processes have ended.
    pub fn remove(&self, workload: Workload) -> Result<()> {
        let directory = self.place.directory().join(workload.name());
        for _ in 0..100 {
            // The kernel lists a process for a moment after its end.
            if fs::remove_dir(&directory).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        fs::remove_dir(&directory).with_context(|| format!("cannot remove the cgroup {}", self.path_of(workload)))
    }

    /// The file of the workload on a file system that keeps its files on disk (the log), or on a tmpfs; `None` if there is no such file
    /// system.
    pub fn file(&self, workload: Workload) -> Option<Result<File>> {
        let file = match workload {
            Workload::Arenas => None,
            Workload::Log => self.log.as_ref(),
            Workload::Tmpfs => self.tmpfs.as_ref(),
        };
        file.map(|file| file.as_file().try_clone().context("cannot use the workload's file"))
    }

    /// Paths of the files, for a process that outlives memtrail to remove.
    pub fn file_paths(&self) -> impl Iterator<Item = &Path> {
        [&self.log, &self.tmpfs].into_iter().flatten().map(NamedTempFile::path)
    }

    /// Ends it all: the files, and the cgroups. Their processes have ended.
    pub fn clear(&mut self) {
        (self.log, self.tmpfs) = (None, None);
        match self.place.remove() {
            Removal::Removed => {}
            Removal::Populated { pids } => eprintln!("memtrail: {} is left: processes {pids:?} are in it", self.place.path()),
            Removal::Failed(reason) => eprintln!("memtrail: {} is left: {reason}", self.place.path()),
        }
    }
}

/// A file with a name of its own in the first folder on a file system that suits; `None` if there is none.
fn file_in(mounts: &[u8], folders: &[PathBuf], suffix: &str, suits: impl Fn(&str) -> bool) -> Result<Option<NamedTempFile>> {
    let Some(folder) = folders.iter().find(|folder| file_system_of(mounts, folder).as_deref().is_some_and(&suits)) else { return Ok(None) };
    let file = tempfile::Builder::new().prefix("memtrail-demo-").suffix(suffix).tempfile_in(folder);
    Ok(Some(file.with_context(|| format!("cannot make a file in {}", folder.display()))?))
}

/// Type of the file system that holds a folder.
fn file_system_of(mountinfo: &[u8], folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.st_dev();
    type_of(mountinfo, (libc::major(device), libc::minor(device)))
}

fn type_of(mountinfo: &[u8], device: (u32, u32)) -> Option<String> {
    let mount = mountinfo::mounts(mountinfo).find(|mount| mount.device == device)?;
    Some(String::from_utf8_lossy(&mount.kind).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_found_by_device() {
        let mountinfo =
            b"22 1 254:1 / / rw,relatime - ext4 /dev/root rw\n23 22 0:21 / /dev/shm rw shared:2 master:3 - tmpfs tmpfs rw\n\nbad\n";
        assert_eq!(type_of(mountinfo, (254, 1)).as_deref(), Some("ext4"));
        assert_eq!(type_of(mountinfo, (0, 21)).as_deref(), Some("tmpfs"));
        assert_eq!(type_of(mountinfo, (0, 2)), None);
        assert_eq!(type_of(b"1 2 3:4 / /", (3, 4)), None);
    }
}
