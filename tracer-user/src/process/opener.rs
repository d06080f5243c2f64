//! Opens the files of new mappings while their process lives, on a thread of its own: a path can lie on a file system whose
//! server never answers, and then only this thread stands still; requests that find its queue full are counted.
//!
//! The path is the process's, hostile like all of it. It is looked up by the kernel inside of the process's own root
//! (RESOLVE_IN_ROOT: an absolute symlink in a container means the container's file, not ours), first without opening (opening a
//! device or a FIFO has effects), and opened only if it is a regular file and the one that was mapped.

use super::event::MapEvent;
use super::files::{FileStore, FileVersion};
use super::image::MappedFile;
use super::sys;
use crate::host::proc::Process;
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A request to open the file of a mapping.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The mapping as it was reported.
    pub map: MapEvent,
    /// Ancestors of the process, nearest first: they mostly share its mounts and may live longer.
    pub ancestors: Vec<u32>,
}

/// How a file was reached, which says how far a differing device is believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Through the process itself. btrfs and overlayfs show another device in a mapping than in a stat: inode and path must do.
    ByOwn,
    /// Through another root: device and inode must both agree.
    ByOther,
}

/// Tries to open the file and puts it in the store, or counts why not.
pub fn open(request: &OpenRequest, store: &Mutex<FileStore>) {
    let locked = || store.lock().unwrap_or_else(PoisonError::into_inner);
    let mapped = MappedFile { identity: request.map.file, path: request.map.path.as_slice().into() };
    // A library may be written over while nobody runs it, with its inode as before.
    let opened = locked().get(&mapped.identity);
    match opened.map(|open| FileVersion::of(&open.file).ok() == open.version) {
        Some(true) => return,
        Some(false) => locked().let_go_of_changed(&mapped.identity),
        None if !locked().wants(&mapped.identity) => return,
        None => {}
    }
    // The lock is not held here: each of these steps can take its time.
    match find(request).map(|found| read_only(&found)) {
        Some(Ok((file, size))) => locked().insert(&mapped, file, size),
        Some(Err(_)) => locked().refuse(&mapped.identity),
        None => locked().note_gone(),
    }
}

/// The mapped file as an O_PATH descriptor.
fn find(request: &OpenRequest) -> Option<OwnedFd> {
    let map = &request.map;
    let direct = Process::open(map.tgid).and_then(|process| sys::mapped_file(&process, map.start, map.end)).ok();
    if let Some(found) = direct.filter(|found| is_the_mapped(found, map, Reached::ByOwn)) {
        return Some(found);
    }
    let path = map.path.strip_suffix(b" (deleted)").unwrap_or(&map.path);
    if !path.starts_with(b"/") {
        return None;
    }
    let root_of = |tgid: u32| Process::open(tgid)?.root();
    let own = std::iter::once_with(|| (root_of(map.tgid), Reached::ByOwn));
    let ancestors = request.ancestors.iter().map(|tgid| (root_of(*tgid), Reached::ByOther));
    let host = std::iter::once_with(|| (sys::directory(Path::new("/")), Reached::ByOther));
    own.chain(ancestors).chain(host).find_map(|(root, reached)| {
        let root = root.ok()?;
        // Before Linux 5.6 there is no openat2 and no safe way through a foreign root: the file stays closed.
        let found = sys::find_in_root(root.as_fd(), path, OFlags::empty()).ok()?;
        is_the_mapped(&found, map, reached).then_some(found)
    })
}

fn is_the_mapped(found: &OwnedFd, map: &MapEvent, reached: Reached) -> bool {
    let Ok(metadata) = metadata(found) else { return false };
    metadata.ino() == map.file.inode && (metadata.dev() == map.file.device || reached == Reached::ByOwn)
}

fn metadata(found: &OwnedFd) -> io::Result<Metadata> {
    File::from(found.try_clone()?).metadata()
}

/// Opens what an O_PATH descriptor stands for, if it is a regular file of the kernel's own file systems.
pub(crate) fn read_only(found: &OwnedFd) -> io::Result<(File, u64)> {
    const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
    let metadata = metadata(found)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if sys::file_system_type(found.as_fd())? == FUSE_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "served by a user process"));
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    Ok((file, metadata.len()))
}

/// Finds and opens a regular file below a process's root, for files that are not mapped (perf maps). A symlink is none.
pub(crate) fn open_in_root_of(process: &Process, path: &str) -> io::Result<(File, Metadata)> {
    let found = sys::find_in_root(process.root()?.as_fd(), path.as_bytes(), OFlags::NOFOLLOW)?;
    let (file, _) = read_only(&found)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::FileIdentity;
    use std::os::unix::fs::symlink;

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
            let (file, size) = read_only(&look_up(dir.path(), path).unwrap()).unwrap();
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
    fn another_file_at_the_path_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, "x").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let request = |inode, device| OpenRequest {
            map: MapEvent {
                tgid: u32::MAX - 1,
                start: 0,
                end: 1,
                offset: 0,
                executable: true,
                file: FileIdentity { device, inode, generation: None },
                path: path.as_os_str().as_encoded_bytes().to_vec(),
            },
            ancestors: vec![],
        };
        let store = Mutex::new(FileStore::new(4));
        open(&request(metadata.ino() + 1, metadata.dev()), &store);
        open(&request(metadata.ino(), metadata.dev() + 1), &store);
        assert_eq!(store.lock().unwrap().counters().gone, 2);
        assert!(store.lock().unwrap().is_empty());
        open(&request(metadata.ino(), metadata.dev()), &store);
        assert_eq!(store.lock().unwrap().len(), 1);
    }
}
