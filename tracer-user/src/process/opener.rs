//! Opens files that processes have mapped. A path can lie on a file system whose server never answers: whoever asks does so on a thread of its own.
//!
//! What is found is looked at without opening it first (opening a device or a FIFO has effects), and opened only if it is a regular file. Paths
//! are the process's, hostile like all of it: they are looked up by the kernel inside of the process's own root (RESOLVE_IN_ROOT: an absolute
//! symlink in a container means the container's file, not ours).

use super::sys;
use crate::host::proc::Process;
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt;

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// It, not opened yet (O_PATH).
    pub file: OwnedFd,
    /// Path as the kernel shows it.
    pub path: Box<[u8]>,
}

/// The file that a process has mapped at these addresses.
///
/// # Errors
/// The process is gone, or has something else there.
pub fn find_mapped(process: &Process, start: u64, end: u64) -> io::Result<Found> {
    let file = sys::mapped_file(process, start, end)?;
    let path = sys::path_of(&file)?;
    Ok(Found { file, path: path.into_os_string().into_vec().into() })
}

/// The same, opened for reading.
///
/// # Errors
/// As above, and for what is no regular file of the kernel's own file systems.
pub fn open_mapped(process: &Process, start: u64, end: u64) -> io::Result<File> {
    read_only(&find_mapped(process, start, end)?.file)
}

fn metadata(found: &OwnedFd) -> io::Result<Metadata> {
    File::from(found.try_clone()?).metadata()
}

/// Opens what an O_PATH descriptor stands for, if it is a regular file of the kernel's own file systems.
pub(crate) fn read_only(found: &OwnedFd) -> io::Result<File> {
    const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
    let metadata = metadata(found)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if sys::file_system_type(found.as_fd())? == FUSE_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "served by a user process"));
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// Finds and opens a regular file below a process's root, for files that are not mapped (perf maps). A symlink is none.
pub(crate) fn open_in_root_of(process: &Process, path: &str) -> io::Result<(File, Metadata)> {
    let found = sys::find_in_root(process.root()?.as_fd(), path.as_bytes(), OFlags::NOFOLLOW)?;
    let file = read_only(&found)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn look_up(root: &std::path::Path, path: &str) -> io::Result<OwnedFd> {
        sys::find_in_root(sys::directory(root)?.as_fd(), path.as_bytes(), OFlags::empty())
    }

    #[test]
    fn an_absolute_symlink_does_not_leave_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        symlink("../../../../etc/passwd", dir.path().join("up")).unwrap();
        for path in ["/link", "/up"] {
            let file = read_only(&look_up(dir.path(), path).unwrap()).unwrap();
            let size = file.metadata().unwrap().len();
            assert_eq!((io::read_to_string(file).unwrap().as_str(), size), ("inside", 6), "{path}");
        }
        symlink("/proc/self/exe", dir.path().join("magic")).unwrap();
        assert!(look_up(dir.path(), "/magic").is_err());
    }

    #[test]
    fn directories_fifos_and_devices_are_not_opened() {
        assert!(read_only(&look_up("/".as_ref(), "/dev/null").unwrap()).is_err());
        assert!(read_only(&look_up("/".as_ref(), "/tmp").unwrap()).is_err());
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        assert!(status.success());
        assert!(read_only(&look_up(dir.path(), "/fifo").unwrap()).is_err());
    }

    #[test]
    fn a_mapping_of_this_process_is_opened_with_its_path() {
        let own = Process::own().unwrap();
        let maps = own.maps().unwrap();
        let here = name as *const () as u64;
        let vma = maps.vmas.iter().find(|vma| (vma.start..vma.end).contains(&here)).unwrap();
        let found = find_mapped(&own, vma.start, vma.end).unwrap();
        assert_eq!(*found.path, *std::env::current_exe().unwrap().as_os_str().as_bytes());
        let file = read_only(&found.file).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), vma.inode);
        assert!(find_mapped(&own, vma.start, vma.end + 4096).is_err());
    }

    fn name() {}
}
