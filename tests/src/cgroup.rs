//! A memory cgroup of a test's own, below `memtrail-test` in the memory hierarchy.
//!
//! Dropping it kills the processes left in it and below it and removes it. It never touches other cgroups, except that on v2 the memory controller
//! is switched on for its parents.

use crate::hierarchy::{Hierarchy, Version};
use crate::stat::{self, Kinds, Stat};
use crate::watchdog;
use anyhow::{Context, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const FOLDER: &str = "memtrail-test";
/// Begins the paths of all cgroups of tests.
pub(crate) const PREFIX: &str = "/memtrail-test/";
/// The kernel flushes its batched figures every two seconds.
const SETTLE: Duration = Duration::from_millis(2500);
/// Readings before a figure that will not settle is an error.
const SETTLE_READINGS: u32 = 16;
/// Waits of 20 ms for killed processes to leave.
const REMOVE_ATTEMPTS: u32 = 500;

/// A cgroup, removed on drop.
#[derive(Debug)]
pub struct TestCgroup {
    hierarchy: Hierarchy,
    path: String,
    removed: bool,
}

/// Above what any workload of the tests charges.
const LIMIT_BYTES: u64 = 1 << 30;

impl TestCgroup {
    /// Makes `memtrail-test/PID-NAME`, with a limit that no workload reaches: `--exact` plans its tables from it, and without one
    /// they would have to hold all of RAM.
    pub fn new(name: &str) -> Result<TestCgroup> {
        let cgroup = TestCgroup::make(Hierarchy::find()?, format!("/{FOLDER}/{}-{name}", std::process::id()))?;
        cgroup.limit(LIMIT_BYTES)?;
        Ok(cgroup)
    }

    /// Makes a cgroup below this one. On v2 this one must have no processes then.
    pub fn child(&self, name: &str) -> Result<TestCgroup> {
        TestCgroup::make(self.hierarchy.clone(), format!("{}/{name}", self.path))
    }

    fn make(hierarchy: Hierarchy, path: String) -> Result<TestCgroup> {
        watchdog::watch();
        let folder = directory(&hierarchy, &path);
        let parent = folder.parent().context("a cgroup has a parent")?;
        // Another test may remove the empty parent between the two steps.
        let mut attempts = 0;
        loop {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            if hierarchy.version == Version::V2 {
                delegate_memory(&hierarchy.root, parent)?;
            }
            attempts += 1;
            match fs::create_dir(&folder) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound && attempts < 10 => continue,
                Err(error) => return Err(error).with_context(|| folder.display().to_string()),
            }
        }
        Ok(TestCgroup { hierarchy, path, removed: false })
    }

    /// Path below the root of the memory hierarchy, as in `memtrail --cgroup` and in reports.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directory.
    pub fn directory(&self) -> PathBuf {
        directory(&self.hierarchy, &self.path)
    }

    /// Which interface files it has.
    pub fn version(&self) -> Version {
        self.hierarchy.version
    }

    /// Limits its memory, bytes.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        self.write(self.either("memory.limit_in_bytes", "memory.max"), &bytes.to_string())
    }

    /// Takes the limit off.
    pub fn unlimit(&self) -> Result<()> {
        self.write(self.either("memory.limit_in_bytes", "memory.max"), self.either("-1", "max"))
    }

    /// Sets `memory.high`, bytes; false in v1, which has none.
    pub fn high(&self, bytes: u64) -> Result<bool> {
        match self.version() {
            Version::V1 => Ok(false),
            Version::V2 => self.write("memory.high", &bytes.to_string()).map(|()| true),
        }
    }

    /// Bytes charged, as the kernel's batched counter says.
    pub fn usage(&self) -> Result<u64> {
        let text = self.read(self.either("memory.usage_in_bytes", "memory.current"))?;
        text.trim().parse().with_context(|| format!("usage {text:?}"))
    }

    /// Makes the kernel reclaim what it can.
    pub fn reclaim(&self) -> Result<()> {
        match self.version() {
            Version::V1 => self.write("memory.force_empty", "0"),
            Version::V2 if self.directory().join("memory.reclaim").exists() => {
                // It tells that it could not free as much as it was asked for, which is all that there is.
                let _ = self.write("memory.reclaim", &self.usage()?.to_string());
                Ok(())
            }
            // Before 5.19: writing a low memory.high reclaims in the writer's context.
            Version::V2 => self.write("memory.high", "0").and_then(|()| self.write("memory.high", "max")),
        }
    }

    /// Bytes of kernel memory in [`TestCgroup::usage`]; `None` where the kernel does not say.
    pub fn kernel_usage(&self) -> Result<Option<u64>> {
        match self.version() {
            Version::V1 => {
                let text = self.read("memory.kmem.usage_in_bytes")?;
                Ok(Some(text.trim().parse().with_context(|| format!("kernel usage {text:?}"))?))
            }
            Version::V2 => Ok(self.stat()?.get("kernel").copied()),
        }
    }

    /// `memory.stat` now.
    pub fn stat(&self) -> Result<Stat> {
        stat::parse(&self.read("memory.stat")?)
    }

    /// Bytes of page cache that the disk does not have.
    pub fn unwritten(&self) -> Result<u64> {
        let stat = self.stat()?;
        let names = match self.version() {
            Version::V1 => ["total_dirty", "total_writeback"],
            Version::V2 => ["file_dirty", "file_writeback"],
        };
        names.iter().map(|name| stat.get(*name).copied().with_context(|| format!("memory.stat has no {name}"))).sum()
    }

    /// The kinds in `memory.stat` now.
    pub fn kinds(&self) -> Result<Kinds> {
        Kinds::of(&self.stat()?, self.version())
    }

    /// `memory.stat`, once two readings 2.5 s apart agree on the kinds.
    pub fn settled_stat(&self) -> Result<Stat> {
        let _wait = watchdog::waiting(format!("memory.stat of {} to settle", self.path));
        let mut before = self.kinds()?;
        for _ in 0..SETTLE_READINGS {
            sleep(SETTLE);
            let stat = self.stat()?;
            let now = Kinds::of(&stat, self.version())?;
            if now == before {
                return Ok(stat);
            }
            before = now;
        }
        bail!("memory.stat of {} does not settle: last {before}", self.path)
    }

    /// The kinds of [`TestCgroup::settled_stat`].
    pub fn settled_kinds(&self) -> Result<Kinds> {
        Kinds::of(&self.settled_stat()?, self.version())
    }

    /// `cgroup.procs`, for a child that moves itself in by writing "0".
    pub fn procs(&self) -> Result<File> {
        let path = self.directory().join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| path.display().to_string())
    }

    /// Process ids in it.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.read("cgroup.procs")?.lines().map(|line| line.parse().with_context(|| format!("cgroup.procs line {line:?}"))).collect()
    }

    /// Kills the processes left in it and removes it. Memory charged to it stays charged to the dead cgroup.
    pub fn remove(&mut self) -> Result<()> {
        if self.removed {
            return Ok(());
        }
        let folder = self.directory();
        for _ in 0..REMOVE_ATTEMPTS {
            self.kill_all()?;
            match fs::remove_dir(&folder) {
                Ok(()) => {
                    self.removed = true;
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => sleep(Duration::from_millis(20)),
                Err(error) => return Err(error).with_context(|| folder.display().to_string()),
            }
        }
        bail!("{} stays busy", folder.display())
    }

    /// Only processes that a test started are in a cgroup of this kind.
    fn kill_all(&self) -> Result<()> {
        for pid in self.pids()? {
            if pid > 0 {
                // SAFETY: kill takes no pointers. A process that is gone by now is what was wanted.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        Ok(())
    }

    fn either(&self, v1: &'static str, v2: &'static str) -> &'static str {
        match self.version() {
            Version::V1 => v1,
            Version::V2 => v2,
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.directory().join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.directory().join(file);
        fs::write(&path, text).with_context(|| format!("{text} to {}", path.display()))
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // Left by a workload that makes cgroups and did not come to its end.
        if let Ok(entries) = fs::read_dir(self.directory()) {
            for below in entries.flatten().filter(|entry| entry.path().is_dir()) {
                let path = format!("{}/{}", self.path, below.file_name().to_string_lossy());
                drop(TestCgroup { hierarchy: self.hierarchy.clone(), path, removed: false });
            }
        }
        if let Err(error) = self.remove() {
            eprintln!("left behind: {error:#}");
        }
        // Fails while another test has a cgroup there, which is right.
        let _ = fs::remove_dir(self.hierarchy.root.join(FOLDER));
        // The end of a test whose processes were killed for its time is no end of its own.
        watchdog::watch();
    }
}

/// Removes all cgroups of a process's tests, with what runs in them: for a program that cannot come to its end.
pub(crate) fn remove_all_of(pid: u32) {
    let Ok(hierarchy) = Hierarchy::find() else { return };
    for entry in fs::read_dir(hierarchy.root.join(FOLDER)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.split_once('-').is_some_and(|(owner, _)| owner == pid.to_string()) {
            drop(TestCgroup { hierarchy: hierarchy.clone(), path: format!("/{FOLDER}/{name}"), removed: false });
        }
    }
}

fn directory(hierarchy: &Hierarchy, path: &str) -> PathBuf {
    hierarchy.root.join(path.trim_start_matches('/'))
}

/// Switches the memory controller on for the children of every cgroup from the root to `parent`. The kernel refuses that for a cgroup
/// with processes in it, the root excepted.
fn delegate_memory(root: &Path, parent: &Path) -> Result<()> {
    let mut above: Vec<&Path> = parent.ancestors().take_while(|path| path.starts_with(root)).collect();
    above.reverse();
    for path in above {
        let control = path.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).with_context(|| control.display().to_string())?;
        if !enabled.split_whitespace().any(|name| name == "memory") {
            fs::write(&control, "+memory").with_context(|| format!("+memory to {}", control.display()))?;
        }
    }
    Ok(())
}
