//! Where workloads put files: cold files on disk, and a tmpfs of a test's own. Both are gone when dropped.

use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Folder of a test's own on disk; `MEMTRAIL_TEST_DIR` names another parent than the system's folder for temporary files, which must not
/// be a tmpfs.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it.
    pub fn new(name: &str) -> Result<Folder> {
        let parent = std::env::var_os("MEMTRAIL_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
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

/// A mounted tmpfs, for files that outlive the process and the cgroup that wrote them.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    target: CString,
    /// Removed after the mount.
    _folder: Folder,
}

impl Tmpfs {
    /// Mounts it.
    pub fn new(name: &str) -> Result<Tmpfs> {
        Tmpfs::below(name, "")
    }

    /// Mounts it at that path below a folder of its own.
    pub fn below(name: &str, path: &str) -> Result<Tmpfs> {
        let folder = Folder::new(name)?;
        let path = if path.is_empty() { folder.path().to_owned() } else { folder.path().join(path) };
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let target = CString::new(path.as_os_str().as_bytes()).context("path of the tmpfs")?;
        // SAFETY: all strings are nul-terminated and outlive the call; data is a string, as tmpfs wants.
        let status = unsafe {
            libc::mount(
                c"memtrail-test".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                c"size=100%".as_ptr().cast(),
            )
        };
        if status != 0 {
            bail!("mounting a tmpfs at {}: {}", path.display(), std::io::Error::last_os_error());
        }
        Ok(Tmpfs { path, target, _folder: folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // SAFETY: the target is a nul-terminated string of this value.
        if unsafe { libc::umount2(self.target.as_ptr(), libc::MNT_DETACH) } != 0 {
            eprintln!("left behind: tmpfs at {}: {}", self.path.display(), std::io::Error::last_os_error());
        }
    }
}
