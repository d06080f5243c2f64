//! Which file systems lie on the way to a folder, without asking any of them: one whose server does not answer holds up whoever asks, and one
//! that is mounted on demand would be.

use crate::host::proc::mountinfo;
use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

/// File systems that ask nobody outside this machine, and no process on it. What is not among them may.
const LOCAL: [&str; 22] = [
    "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "nilfs2", "ntfs3", "overlay", "ramfs",
    "reiserfs", "rootfs", "squashfs", "tmpfs", "ubifs", "vfat", "xfs", "zfs",
];
/// Most links on one way, as in the kernel.
const MOST_LINKS: u32 = 40;

/// Types of the mounted file systems, by where they are mounted. Of several at one place it is the last.
#[derive(Debug, Default)]
pub struct Mounts(HashMap<PathBuf, String>);

impl Mounts {
    /// As this process sees them.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn now() -> std::io::Result<Mounts> {
        Ok(Mounts::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// The lines of mountinfo (proc_pid_mountinfo(5)). One that makes no sense is passed over.
    #[must_use]
    pub fn parse(text: &[u8]) -> Mounts {
        let mount =
            |mount: mountinfo::Mount| (PathBuf::from(OsString::from_vec(mount.point)), String::from_utf8_lossy(&mount.kind).into_owned());
        Mounts(mountinfo::mounts(text).map(mount).collect())
    }

    fn is_local(&self, place: &Path) -> bool {
        self.0.get(place).is_none_or(|kind| LOCAL.contains(&kind.as_str()))
    }

    /// Where a path below `root` leads, links followed as they are for whoever has that root; `None` if there is nothing, or a file system on the
    /// way may not answer. `root` has no links in it.
    #[must_use]
    pub fn resolve(&self, root: &Path, path: &Path) -> Option<PathBuf> {
        let mut left: VecDeque<OsString> = parts(path);
        let (mut at, mut links) = (root.to_owned(), 0);
        while let Some(part) = left.pop_front() {
            if part == ".." {
                if at != root {
                    at.pop();
                }
                continue;
            }
            let next = at.join(&part);
            if !self.is_local(&next) {
                return None;
            }
            // Of the link itself, if it is one. Its folder is on a file system that answers.
            if !fs::symlink_metadata(&next).ok()?.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            let target = fs::read_link(&next).ok().filter(|_| links <= MOST_LINKS)?;
            if target.is_absolute() {
                at = root.to_owned();
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        Some(at)
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mounts(lines: &[(&Path, &str)]) -> Mounts {
        let line = |(place, kind): &(&Path, &str)| {
            let place = place.to_str().unwrap().replace(' ', "\\040");
            format!("36 35 98:0 /mnt1 {place} rw,noatime master:1 - {kind} /dev/root rw,errors=continue\n")
        };
        Mounts::parse(lines.iter().map(line).collect::<String>().as_bytes())
    }

    #[test]
    fn nothing_is_asked_that_lies_on_a_file_system_that_may_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in ["home/ann/x", "net homes/bob/x", "data/eve/x"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        symlink("/net homes/bob", root.join("home/bob")).unwrap();
        symlink("../data/eve", root.join("home/eve")).unwrap();
        symlink("loop", root.join("home/loop")).unwrap();
        let (remote, local) = (root.join("net homes"), root.join("data"));
        for kind in ["nfs4", "fuse.sshfs", "autofs", "cifs", "9p"] {
            let mounts = mounts(&[(Path::new("/"), "ext4"), (&remote, "ext4"), (&remote, kind), (&local, "xfs")]);
            let resolve = |path: &str| mounts.resolve(&root, Path::new(path));
            assert_eq!(resolve("home/ann/x"), Some(root.join("home/ann/x")));
            assert_eq!(resolve("home/eve/x"), Some(root.join("data/eve/x")), "by a link, on another local file system");
            assert_eq!(resolve("net homes/bob/x"), None, "{kind}");
            assert_eq!(resolve("home/bob/x"), None, "{kind} behind a link");
            assert_eq!((resolve("home/none/x"), resolve("home/loop/x")), (None, None));
            assert_eq!(resolve("home/ann/../../../../data/eve"), Some(root.join("data/eve")), "nothing leads above the root");
        }
        assert_eq!(mounts(&[]).resolve(&root, Path::new("home/bob/x")), Some(root.join("net homes/bob/x")));
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        assert!(Mounts::parse(b"\n1 2 3\n36 35 98:0 / /x rw master:1 ext4\n").0.is_empty());
        assert!(!Mounts::now().unwrap().0.is_empty(), "this machine's");
    }
}
