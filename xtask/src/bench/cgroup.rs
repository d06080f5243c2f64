//! The memory cgroup that the storms run in: they must be charged to one of their own for `--cgroup`.

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::cgroup;

/// Above what any storm keeps; `--exact` plans its tables from it.
const LIMIT_BYTES: u64 = 512 << 20;
/// Processes that ended are some milliseconds on their way out.
const REMOVE_ATTEMPTS: u32 = 100;

/// A cgroup, removed on drop.
pub struct Cgroup {
    folder: PathBuf,
    name: String,
}

impl Cgroup {
    /// Makes it, below the root of the hierarchy that has the memory controller.
    pub fn new() -> Result<Cgroup> {
        let (root, v1) = cgroup::memory_root()?;
        if !v1 {
            fs::write(root.join("cgroup.subtree_control"), "+memory").context("memory controller of the root's children")?;
        }
        let name = format!("/memtrail-bench-{}", std::process::id());
        let folder = root.join(&name[1..]);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let cgroup = Cgroup { folder, name };
        let limit = cgroup.folder.join(if v1 { "memory.limit_in_bytes" } else { "memory.max" });
        fs::write(&limit, LIMIT_BYTES.to_string()).with_context(|| limit.display().to_string())?;
        let procs = cgroup.procs();
        ensure!(procs.is_file(), "{} is missing", procs.display());
        Ok(cgroup)
    }

    /// Path below the root of the hierarchy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that takes the processes.
    pub fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_ATTEMPTS {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("{} could not be removed", self.folder.display());
    }
}
