//! Walks the memory hierarchy's directories. I/O only, and read-only: what it means is the registry's business.

use super::{CgroupId, CgroupPath};
use crate::host::clock::monotonic_ns;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most cgroups listed.
    pub cgroups: usize,
    /// Deepest level listed; the root is level 0.
    pub depth: u32,
    /// Longest path on disk followed, bytes: the kernel refuses longer ones.
    pub path_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { cgroups: 65_536, depth: 64, path_bytes: 4000 }
    }
}

/// One cgroup that existed when its parent's directory was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// kernfs id.
    pub id: CgroupId,
    /// Id of the cgroup above; `None` for the root of the walk.
    pub parent: Option<CgroupId>,
    /// Path below the root of the walk.
    pub path: CgroupPath,
    /// Levels below it.
    pub depth: u32,
}

/// All cgroups of the hierarchy, parents before children, as far as the bounds went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Monotonic nanoseconds before the first directory was read.
    pub started_ns: u64,
    /// What was found.
    pub cgroups: Vec<Listed>,
    /// Cgroups not listed because there were too many.
    pub too_many: u64,
    /// Cgroups not listed because they are too deep or their path is too long.
    pub too_deep: u64,
    /// Directories that could not be read for another reason than having been removed.
    pub unreadable: u64,
}

impl Listing {
    /// Whether a cgroup that is not listed did not exist all the while.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.too_many == 0 && self.too_deep == 0 && self.unreadable == 0
    }
}

/// Lists every cgroup below `mount`. A cgroup that is removed meanwhile is listed or not; one that exists all the while is listed.
///
/// # Errors
/// Only when the root itself cannot be read.
pub fn list(mount: &Path, bounds: Bounds) -> io::Result<Listing> {
    let mut listing = Listing { started_ns: monotonic_ns(), ..Listing::default() };
    let root = Listed { id: CgroupId(fs::metadata(mount)?.ino()), parent: None, path: CgroupPath::root(), depth: 0 };
    listing.cgroups.push(root);
    let mut next = 0;
    // Breadth first: the list itself is the queue, so the walk needs no recursion and keeps no directory open.
    while let Some(cgroup) = listing.cgroups.get(next).cloned() {
        next += 1;
        match children(mount, &cgroup, bounds, &mut listing) {
            Err(error) if next == 1 => return Err(error),
            Err(error) if is_gone(&error) => {}
            Err(_) => listing.unreadable += 1,
            Ok(()) => {}
        }
    }
    Ok(listing)
}

fn children(mount: &Path, cgroup: &Listed, bounds: Bounds, listing: &mut Listing) -> io::Result<()> {
    for entry in fs::read_dir(cgroup.path.on_disk(mount))? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let name = entry.file_name();
        if listing.cgroups.len() >= bounds.cgroups {
            listing.too_many += 1;
            continue;
        }
        let depth = cgroup.depth + 1;
        let length = mount.as_os_str().len() + cgroup.path.as_bytes().len() + 1 + name.len();
        if depth > bounds.depth || length > bounds.path_bytes {
            listing.too_deep += 1;
            continue;
        }
        // kernfs gives the same 64-bit number in the directory entry as in st_ino; taking it here leaves no gap for an rmdir.
        let listed = Listed { id: CgroupId(entry.ino()), parent: Some(cgroup.id), path: cgroup.path.join(name.as_bytes()), depth };
        listing.cgroups.push(listed);
    }
    Ok(())
}

/// Whether an error on a cgroup's file only says that the cgroup was removed: ENOENT by path, ENODEV by an open descriptor.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;

    fn tree(paths: &[&[u8]]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(root.path().join(OsStr::from_bytes(path))).unwrap();
        }
        fs::write(root.path().join("memory.stat"), "anon 1\n").unwrap();
        root
    }

    fn paths(listing: &Listing) -> BTreeSet<String> {
        listing.cgroups.iter().map(|c| c.path.to_string()).collect()
    }

    #[test]
    fn lists_directories_with_ids_and_parents() {
        let root = tree(&[b"a/b", b"c\xff;\x1b"]);
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        let listing = list(root.path(), Bounds::default()).unwrap();
        assert_eq!(paths(&listing), BTreeSet::from(["/".into(), "/a".into(), "/a/b".into(), "/c\\xff;\\x1b".into()]));
        assert!(listing.is_complete());
        let by_path = |text: &str| listing.cgroups.iter().find(|c| c.path.to_string() == text).unwrap();
        assert_eq!(by_path("/a/b").parent, Some(by_path("/a").id));
        assert_eq!(by_path("/a/b").depth, 2);
        assert_eq!(by_path("/").parent, None);
        assert_eq!(by_path("/a").id.0, fs::metadata(root.path().join("a")).unwrap().ino());
    }

    #[test]
    fn every_bound_is_counted() {
        let root = tree(&[b"a/b/c", b"d", b"e"]);
        let few = list(root.path(), Bounds { cgroups: 3, ..Bounds::default() }).unwrap();
        assert_eq!((few.cgroups.len(), few.too_many > 0, few.is_complete()), (3, true, false));
        let flat = list(root.path(), Bounds { depth: 1, ..Bounds::default() }).unwrap();
        assert_eq!((flat.cgroups.len(), flat.too_deep), (4, 1));
        let short = list(root.path(), Bounds { path_bytes: root.path().as_os_str().len() + 3, ..Bounds::default() }).unwrap();
        assert_eq!((short.cgroups.len(), short.too_deep), (4, 1));
    }

    #[test]
    fn a_missing_root_is_an_error() {
        assert!(list(Path::new("/nonexistent/cgroup"), Bounds::default()).is_err());
    }

    #[test]
    #[ignore = "needs a mounted memory hierarchy"]
    fn root_ids_of_entries_are_those_of_stat() {
        let hierarchy = crate::cgroup::Hierarchy::find().unwrap();
        let listing = list(&hierarchy.mount, Bounds::default()).unwrap();
        let own = hierarchy.own.clone().unwrap();
        let listed = listing.cgroups.iter().find(|c| c.path == own).unwrap();
        assert_eq!(listed.id.0, fs::metadata(hierarchy.directory(&own)).unwrap().ino());
    }
}
