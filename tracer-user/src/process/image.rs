//! A program as one process ran it: its name and its executable mappings over an interval of time. Plain data and interval
//! arithmetic, no I/O.

use super::event::{Comm, MapEvent};
use super::identity::FileIdentity;
use std::sync::Arc;

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// The file; [`FileIdentity::NONE`] for memory without one.
    pub identity: FileIdentity,
    /// Path seen from the process, or a name such as `[vdso]` or `//anon`. Raw, hostile bytes.
    pub path: Box<[u8]>,
}

impl MappedFile {
    /// The kernel's own code page in user space.
    #[must_use]
    pub fn is_vdso(&self) -> bool {
        self.identity.inode == 0 && *self.path == *b"[vdso]"
    }

    /// Code that the process wrote itself: a JIT's.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.identity.inode == 0 && !self.path.starts_with(b"[")
    }

    /// Last component of the path, without the kernel's mark for deleted files.
    #[must_use]
    pub fn base_name(&self) -> &[u8] {
        let path = self.path.strip_suffix(b" (deleted)").unwrap_or(&self.path);
        path.rsplit(|&b| b == b'/').next().unwrap_or(path)
    }
}

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset of `start` in the file, bytes.
    pub offset: u64,
    /// Since when, monotonic nanoseconds.
    pub from_ns: u64,
    /// What.
    pub file: Arc<MappedFile>,
}

impl Mapping {
    /// Offset in the file of an address inside the mapping.
    #[must_use]
    pub fn file_offset(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start).wrapping_add(self.offset)
    }
}

/// A program as one process ran it. Cheap to clone: mappings are shared until one side changes them.
#[derive(Clone, Debug)]
pub struct Image {
    /// Thread-group id.
    pub tgid: u32,
    /// Thread-group id of the parent, 0 if unknown.
    pub parent_tgid: u32,
    /// First moment, monotonic nanoseconds: fork, exec, or start of the process.
    pub from_ns: u64,
    /// Moment after the last; `None` while it runs.
    pub to_ns: Option<u64>,
    /// Name of the thread-group leader.
    pub comm: Comm,
    /// Mappings that are or were executable, by address. What was unmapped stays until something else is mapped there: the
    /// kernel does not report unmapping, and late questions want the old answer.
    pub mappings: Arc<Vec<Mapping>>,
    /// Its beginning was not seen; mappings may be missing.
    pub incomplete: bool,
}

impl Image {
    /// The executable mapping at an address.
    #[must_use]
    pub fn mapping(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|m| m.start <= address);
        self.mappings[..after].last().filter(|m| address < m.end)
    }

    /// Whether some executable mapping is of that file.
    #[must_use]
    pub fn maps_file(&self, identity: &FileIdentity) -> bool {
        self.mappings.iter().any(|m| m.file.identity.agrees_with(identity))
    }

    /// Puts a mapping in, over what was there. False if there are already `most`.
    pub(super) fn map(&mut self, event: &MapEvent, at_ns: u64, file: &Arc<MappedFile>, most: usize) -> bool {
        let replaces = self.mappings.iter().any(|m| event.start <= m.start && m.end <= event.end);
        if self.mappings.len() >= most && !replaces {
            return false;
        }
        let mappings = Arc::make_mut(&mut self.mappings);
        carve(mappings, event.start, event.end);
        let at = mappings.partition_point(|m| m.start < event.start);
        let (start, end, offset) = (event.start, event.end, event.offset);
        mappings.insert(at, Mapping { start, end, offset, from_ns: at_ns, file: Arc::clone(file) });
        true
    }

    /// Data was mapped: nothing executable is there any more. False if that would cut a mapping in two and there are already `most`.
    pub(super) fn unmap(&mut self, start: u64, end: u64, most: usize) -> bool {
        if self.mappings.iter().any(|m| m.start < end && start < m.end) {
            if self.mappings.len() >= most {
                return false;
            }
            carve(Arc::make_mut(&mut self.mappings), start, end);
        }
        true
    }

    /// Whether a mapping younger than `at_ns` overlaps.
    pub(super) fn newer_overlap(&self, start: u64, end: u64, at_ns: u64) -> bool {
        self.mappings.iter().any(|m| m.start < end && start < m.end && m.from_ns > at_ns)
    }
}

/// Cuts [start, end) out of sorted, disjoint mappings.
fn carve(mappings: &mut Vec<Mapping>, start: u64, end: u64) {
    let first = mappings.partition_point(|m| m.end <= start);
    let last = first + mappings[first..].partition_point(|m| m.start < end);
    let mut rest: Vec<Mapping> = Vec::new();
    for old in mappings.drain(first..last) {
        if old.start < start {
            rest.push(Mapping { end: start, ..old.clone() });
        }
        if old.end > end {
            rest.push(Mapping { start: end, offset: old.file_offset(end), ..old });
        }
    }
    mappings.splice(first..first, rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::event::comm_from;

    fn image() -> Image {
        Image { tgid: 1, parent_tgid: 0, from_ns: 0, to_ns: None, comm: comm_from(b"x"), mappings: Arc::default(), incomplete: false }
    }

    fn map(image: &mut Image, start: u64, end: u64, offset: u64, inode: u64) -> bool {
        let identity = FileIdentity { device: 1, inode, generation: None };
        let event = MapEvent { tgid: 1, start, end, offset, executable: true, file: identity, path: vec![] };
        image.map(&event, 1, &Arc::new(MappedFile { identity, path: Box::from(*b"/x") }), 10)
    }

    fn ranges(image: &Image) -> Vec<(u64, u64, u64, u64)> {
        image.mappings.iter().map(|m| (m.start, m.end, m.offset, m.file.identity.inode)).collect()
    }

    #[test]
    fn a_mapping_in_the_middle_of_another_splits_it() {
        let mut image = image();
        assert!(map(&mut image, 100, 200, 1000, 1));
        assert!(map(&mut image, 140, 160, 0, 2));
        assert_eq!(ranges(&image), [(100, 140, 1000, 1), (140, 160, 0, 2), (160, 200, 1060, 1)]);
        assert_eq!(image.mapping(139).unwrap().file_offset(139), 1039);
        assert_eq!(image.mapping(199).unwrap().file_offset(199), 1099);
        assert!(image.mapping(99).is_none() && image.mapping(200).is_none());
    }

    #[test]
    fn a_mapping_over_several_replaces_them() {
        let mut image = image();
        for start in [100, 200, 300] {
            map(&mut image, start, start + 50, 0, start);
        }
        map(&mut image, 120, 310, 7, 9);
        assert_eq!(ranges(&image), [(100, 120, 0, 100), (120, 310, 7, 9), (310, 350, 10, 300)]);
        assert!(image.unmap(0, 1000, 10));
        assert!(image.mappings.is_empty());
    }

    #[test]
    fn the_bound_on_mappings_holds() {
        let mut image = image();
        for n in 0..10 {
            assert!(map(&mut image, n * 10, n * 10 + 5, 0, 1));
        }
        assert!(!map(&mut image, 1000, 1001, 0, 1));
        assert!(map(&mut image, 0, 5, 0, 2), "a replacement needs no room");
    }

    #[test]
    fn base_names() {
        let name = |path: &[u8]| MappedFile { identity: FileIdentity::NONE, path: Box::from(path) }.base_name().to_vec();
        assert_eq!(name(b"/usr/lib/libc.so.6"), b"libc.so.6");
        assert_eq!(name(b"/tmp/x (deleted)"), b"x");
        assert_eq!(name(b"[vdso]"), b"[vdso]");
    }
}
