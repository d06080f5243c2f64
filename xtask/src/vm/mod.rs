//! `cargo xtask vm`: runs a command on the kernels under test, each in a virtual machine with a memory cgroup hierarchy as asked.
//!
//! The machine is an initramfs with a static init, busybox and the files given, a tmpfs on /tmp and an ext4 disk on /disk.

mod args;
mod cpio;
mod kernel;
mod mirror;
mod qemu;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
pub use args::{Args, command, in_bin};
use clap::ValueEnum;
pub use kernel::Kernel;

use crate::{apt, command as process, workspace};

/// Packages that a boot needs.
const PACKAGES: &[&str] = &["qemu-system-x86", "busybox-static", "e2fsprogs"];
const BUSYBOX: &str = "/bin/busybox";
/// Size of the guest's disk. Sparse on the host.
const DISK_BYTES: u64 = 2 << 30;

/// Which hierarchy has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hierarchy {
    /// /sys/fs/cgroup/memory, and a v2 hierarchy without controllers at /sys/fs/cgroup/unified
    V1,
    /// /sys/fs/cgroup
    V2,
}

impl Hierarchy {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V2, Self::V1];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What runs in each machine.
pub struct Job {
    /// The static init program.
    pub init: PathBuf,
    /// Host files and where they are in the guest.
    pub files: Vec<(PathBuf, String)>,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Variables for the command.
    pub environment: Vec<(String, String)>,
    /// Wall time for one boot.
    pub timeout: Duration,
}

impl Job {
    /// Boots `kernel` once, hands each line that the command prints to `line`, and returns the command's exit status.
    pub fn run(&self, kernel: Kernel, hierarchy: Hierarchy, line: impl FnMut(&[u8])) -> Result<i32> {
        let files = prepare(kernel)?;
        let work = tempfile::Builder::new().prefix("memtrail-vm-").tempdir().context("cannot make a working folder")?;
        let initramfs = work.path().join("initramfs");
        fs::write(&initramfs, self.initramfs(&files, hierarchy)?).with_context(|| initramfs.display().to_string())?;
        let logs = workspace::root()?.join("target/vm");
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let boot = qemu::Boot {
            vmlinuz: &files.vmlinuz,
            initramfs: &initramfs,
            disk: &disk()?,
            console: &logs.join(format!("{}-{}.console", kernel.name(), hierarchy.name())),
            timeout: self.timeout,
        };
        boot.run(line).with_context(|| format!("kernel {} ({}) with {}", kernel.name(), files.release, hierarchy.name()))
    }

    fn initramfs(&self, kernel: &kernel::Files, hierarchy: Hierarchy) -> Result<Vec<u8>> {
        let mut archive = cpio::Archive::default();
        archive.device("/dev/console", 5, 1)?;
        archive.file("/init", &read(&self.init)?)?;
        archive.file("/bin/busybox", &read(Path::new(BUSYBOX))?)?;
        for applet in process::output(Command::new(BUSYBOX).arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
            archive.link(&format!("/bin/{applet}"), "busybox")?;
        }
        for (host, guest) in &self.files {
            archive.file(guest, &read(host)?)?;
        }
        for module in &kernel.modules {
            let name = module.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
            archive.file(&format!("/vm/modules/{name}"), &read(module)?)?;
        }
        archive.file("/vm/hierarchy", hierarchy.name().as_bytes())?;
        archive.file("/vm/command", self.command.join("\0").as_bytes())?;
        let environment: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        archive.file("/vm/environment", environment.join("\0").as_bytes())?;
        archive.finish()
    }
}

/// Gets everything that is slow to get, so that it does not count as boot time.
pub fn prepare(kernel: Kernel) -> Result<kernel::Files> {
    apt::ensure_installed(PACKAGES)?;
    disk()?;
    kernel.files()
}

/// The kernels and hierarchies to boot: those asked for, or all that exist. One that is asked for and cannot be is an error.
pub fn machines(kernels: &[Kernel], hierarchies: &[Hierarchy]) -> Result<Vec<(Kernel, Hierarchy)>> {
    let kernels = if kernels.is_empty() { &Kernel::ALL } else { kernels };
    let mut machines = Vec::new();
    for kernel in kernels {
        let files = prepare(*kernel)?;
        let possible = &files.hierarchies;
        if let Some(hierarchy) = hierarchies.iter().find(|hierarchy| !possible.contains(hierarchy)) {
            bail!("kernel {} ({}) has no memory controller for cgroup {}", kernel.name(), files.release, hierarchy.name());
        }
        let wanted = possible.iter().filter(|hierarchy| hierarchies.is_empty() || hierarchies.contains(hierarchy));
        machines.extend(wanted.map(|hierarchy| (*kernel, *hierarchy)));
    }
    Ok(machines)
}

/// The guest's disk: an empty ext4 of a form that the oldest kernel mounts. Made once; machines write to a copy of their own.
fn disk() -> Result<PathBuf> {
    let cache = workspace::cache()?;
    let path = cache.join("disk.ext4");
    if path.is_file() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let image = tempfile::NamedTempFile::new_in(&cache).context("cannot make a disk image")?;
    image.as_file().set_len(DISK_BYTES).context("cannot size the disk image")?;
    let mut mkfs = Command::new("/sbin/mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-O", "^orphan_file,^metadata_csum", "-E", "lazy_itable_init=1,lazy_journal_init=1"]);
    process::output(mkfs.arg(image.path()))?;
    image.persist(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
