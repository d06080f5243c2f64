//! Where workloads put files: cold files on disk, a tmpfs of a test's own, a disk whose writers are held up. All are gone when dropped.

use crate::watchdog;
use anyhow::{Context, Result, bail};
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder of a test's own on disk; `MEMTRAIL_TEST_DIR` names another parent than the system's folder for temporary files, which must not
/// be a tmpfs.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

/// The parent that is named.
fn given() -> Option<PathBuf> {
    std::env::var_os("MEMTRAIL_TEST_DIR").map(PathBuf::from)
}

/// Whether the machine is the tests' own, an emulated one: its settings may be changed. Only there a parent is named.
#[must_use]
pub fn own_machine() -> bool {
    given().is_some()
}

impl Folder {
    /// Makes it.
    pub fn new(name: &str) -> Result<Folder> {
        watchdog::watch();
        let parent = given().unwrap_or_else(std::env::temp_dir);
        let path = parent.join(format!("memtrail-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Folder { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of that many bytes, to disk, and drops it from the page cache.
    pub fn cold_file(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| path.display().to_string())?;
        let piece = vec![0x6d; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len() as u64) as usize;
            file.write_all(&piece[..now]).with_context(|| path.display().to_string())?;
            left -= now as u64;
        }
        file.sync_all().with_context(|| path.display().to_string())?;
        drop_cache(&file)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("left behind: {}: {error}", self.path.display());
        }
    }
}

fn drop_cache(file: &File) -> Result<()> {
    // SAFETY: posix_fadvise takes an open descriptor and no pointers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)).context("POSIX_FADV_DONTNEED"),
    }
}

/// Bytes of the file that are in the page cache, whoever is charged for them. The file must not be empty.
pub fn resident(path: &Path) -> Result<u64> {
    const PAGE: usize = 4096;
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let length = usize::try_from(file.metadata()?.len()).context("length of the file")?;
    // SAFETY: a new private mapping of an open file; nothing reads through it, so nothing is brought in by it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("mapping {}", path.display()));
    }
    let mut pages = vec![0_u8; length.div_ceil(PAGE)];
    // SAFETY: the mapping made above, and a byte for each of its pages.
    let failed = unsafe { libc::mincore(start, length, pages.as_mut_ptr()) } != 0;
    let error = std::io::Error::last_os_error();
    // SAFETY: the mapping made above, which nobody uses any more.
    unsafe { libc::munmap(start, length) };
    if failed {
        return Err(error).with_context(|| format!("mincore of {}", path.display()));
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64 * PAGE as u64)
}

/// When the host writes dirty page cache to disk, and holds up who makes more; as it was when dropped.
#[derive(Debug)]
pub struct Writeback {
    before: Vec<(&'static str, String)>,
}

impl Writeback {
    /// From these shares of the host's memory on, percent: writeback begins, writers are held up.
    pub fn from_shares(background: u32, held: u32) -> Result<Writeback> {
        Writeback::set(&[("/proc/sys/vm/dirty_background_ratio", background), ("/proc/sys/vm/dirty_ratio", held)])
    }

    /// Not for its age.
    pub fn not_by_age() -> Result<Writeback> {
        Writeback::set(&[("/proc/sys/vm/dirty_writeback_centisecs", 0)])
    }

    fn set(values: &[(&'static str, u32)]) -> Result<Writeback> {
        let mut set = Writeback { before: Vec::new() };
        for (path, value) in values {
            set.before.push((*path, read(path)?));
            fs::write(path, value.to_string()).context(*path)?;
        }
        Ok(set)
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        for (path, before) in &self.before {
            if let Err(error) = fs::write(path, before) {
                eprintln!("{path} is not {before} again: {error}");
            }
        }
    }
}

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).context(path.to_owned())?.trim().to_owned())
}

/// A file system whose writers the kernel holds up when more than 4 MiB of it is dirty: an image in a loop device with a limit of its own
/// (6.2 and later), so that nobody else is slowed.
#[derive(Debug)]
pub struct SlowDisk {
    mounted: PathBuf,
    _folder: Folder,
}

impl SlowDisk {
    const IMAGE_BYTES: u64 = 256 << 20;
    const DIRTY_BYTES: u64 = 4 << 20;

    /// Makes and mounts it.
    pub fn new(name: &str) -> Result<SlowDisk> {
        let folder = Folder::new(name)?;
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).and_then(|file| file.set_len(Self::IMAGE_BYTES)).with_context(|| image.display().to_string())?;
        fs::create_dir(&mounted).with_context(|| mounted.display().to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        let disk = SlowDisk { mounted, _folder: folder };
        let device = fs::metadata(&disk.mounted).with_context(|| disk.mounted.display().to_string())?.dev();
        let limits = PathBuf::from(format!("/sys/class/bdi/{}:{}", libc::major(device), libc::minor(device)));
        for (file, value) in [("strict_limit", 1), ("max_bytes", Self::DIRTY_BYTES)] {
            let path = limits.join(file);
            fs::write(&path, value.to_string()).with_context(|| path.display().to_string())?;
        }
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.mounted)) {
            eprintln!("left behind: {error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let _wait = watchdog::waiting(format!("the end of {command:?}"));
    let output = command.output().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Something mounted at a folder of its own.
#[derive(Debug)]
struct Mount {
    path: PathBuf,
    target: CString,
    /// Removed after the mount.
    _folder: Folder,
}

impl Mount {
    /// Mounts a file system at that path below the folder.
    fn below(name: &str, path: &str, kind: &CStr, options: &CStr) -> Result<Mount> {
        let folder = Folder::new(name)?;
        let path = if path.is_empty() { folder.path().to_owned() } else { folder.path().join(path) };
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let target = CString::new(path.as_os_str().as_bytes()).context("path of the mount")?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        // SAFETY: all strings are nul-terminated and outlive the call; data is a string, as these file systems want.
        let status = unsafe { libc::mount(c"memtrail-test".as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
        if status != 0 {
            bail!("mounting {kind:?} at {}: {}", path.display(), std::io::Error::last_os_error());
        }
        Ok(Mount { path, target, _folder: folder })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: the target is a nul-terminated string of this value.
        if unsafe { libc::umount2(self.target.as_ptr(), libc::MNT_DETACH) } != 0 {
            eprintln!("left behind: mount at {}: {}", self.path.display(), std::io::Error::last_os_error());
        }
    }
}

/// A mounted tmpfs, for files that outlive the process and the cgroup that wrote them.
#[derive(Debug)]
pub struct Tmpfs(Mount);

impl Tmpfs {
    /// Mounts it.
    pub fn new(name: &str) -> Result<Tmpfs> {
        Tmpfs::below(name, "")
    }

    /// Mounts it at that path below a folder of its own.
    pub fn below(name: &str, path: &str) -> Result<Tmpfs> {
        Mount::below(name, path, c"tmpfs", c"size=100%").map(Tmpfs)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// A hierarchy of cgroups in which no memory is charged (v1, with a name and without controllers). To be empty when dropped.
#[derive(Debug)]
pub struct OtherHierarchy(Mount);

impl OtherHierarchy {
    /// Mounts it.
    pub fn new(name: &str) -> Result<OtherHierarchy> {
        let options = CString::new(format!("none,name=memtrail-test-{}-{name}", std::process::id())).context("name of the hierarchy")?;
        Mount::below(name, "", c"cgroup", &options).map(OtherHierarchy)
    }

    /// Where its root is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}
