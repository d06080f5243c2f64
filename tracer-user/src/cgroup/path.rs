//! Paths of cgroups below the root of their hierarchy.
//!
//! A name may hold any byte but `/`, NUL and newline, chosen by whoever made the cgroup. So a path is bytes, and text only for
//! display. It never touches the file system itself.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path below the hierarchy's root. Begins with `/`, has no trailing, double or dot components; the root is `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct CgroupPath(Box<[u8]>);

impl CgroupPath {
    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        CgroupPath(Box::from(&b"/"[..]))
    }

    /// The path that these bytes mean. Empty components and `.` are dropped. `None` if a component is `..` or holds a NUL: such a
    /// path is not below the root.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut path = Vec::with_capacity(bytes.len() + 1);
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return None,
                _ if component.contains(&0) => return None,
                _ => {
                    path.push(b'/');
                    path.extend_from_slice(component);
                }
            }
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(CgroupPath(path.into_boxed_slice()))
    }

    /// This path with one more component, a name as the kernel gave it.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            path.extend_from_slice(&self.0);
        }
        path.push(b'/');
        path.extend_from_slice(name);
        CgroupPath(path.into_boxed_slice())
    }

    /// The path one level up; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(if cut == 0 { CgroupPath::root() } else { CgroupPath(Box::from(&self.0[..cut])) })
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Levels below the root: 0 for `/`.
    #[must_use]
    pub fn depth(&self) -> u32 {
        u32::try_from(self.components().count()).unwrap_or(u32::MAX)
    }

    /// The names from the root downwards.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// The bytes, beginning with `/`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this path is `ancestor` or lies below it.
    #[must_use]
    pub fn is_within(&self, ancestor: &CgroupPath) -> bool {
        ancestor.is_root() || self == ancestor || (self.0.starts_with(&ancestor.0) && self.0.get(ancestor.0.len()) == Some(&b'/'))
    }

    /// This path as seen from `root`; `None` if it is not within it.
    #[must_use]
    pub fn below(&self, root: &CgroupPath) -> Option<Self> {
        match (self.is_within(root), root.is_root()) {
            (false, _) => None,
            (true, true) => Some(self.clone()),
            (true, false) => CgroupPath::from_bytes(&self.0[root.0.len()..]),
        }
    }

    /// Where the cgroup's directory is when the hierarchy's root is mounted at `mount`.
    #[must_use]
    pub fn on_disk(&self, mount: &Path) -> PathBuf {
        mount.join(OsStr::from_bytes(&self.0[1..]))
    }
}

/// The path as text: control characters and bytes that are not UTF-8 as `\xNN`. Backslashes stand as they are, since systemd's own
/// names contain them.
impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    let mut encoded = [0; 4];
                    c.encode_utf8(&mut encoded).bytes().try_for_each(|b| write!(f, "\\x{b:02x}"))?;
                } else {
                    f.write_char(c)?;
                }
            }
            chunk.invalid().iter().try_for_each(|b| write!(f, "\\x{b:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CgroupPath {
        CgroupPath::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn normal_form() {
        for (given, expected) in [("", "/"), ("/", "/"), ("a", "/a"), ("/a//b/", "/a/b"), ("/./a", "/a")] {
            assert_eq!(path(given).to_string(), expected, "{given:?}");
        }
        assert_eq!(CgroupPath::from_bytes(b"/../a"), None);
        assert_eq!(CgroupPath::from_bytes(b"/a\0b"), None);
    }

    #[test]
    fn ancestry() {
        let pod = path("/kubepods/pod1");
        assert!(pod.is_within(&path("/kubepods")) && pod.is_within(&pod) && pod.is_within(&CgroupPath::root()));
        assert!(!path("/kubepods2").is_within(&path("/kubepods")));
        assert_eq!(pod.parent(), Some(path("/kubepods")));
        assert_eq!(path("/a").parent(), Some(CgroupPath::root()));
        assert_eq!(CgroupPath::root().parent(), None);
        assert_eq!(pod.below(&path("/kubepods")), Some(path("/pod1")));
        assert_eq!(pod.below(&pod), Some(CgroupPath::root()));
        assert_eq!(pod.below(&path("/x")), None);
        assert_eq!((pod.depth(), CgroupPath::root().depth()), (2, 0));
        assert_eq!(CgroupPath::root().join(b"a").join(b"b"), path("/a/b"));
    }

    #[test]
    fn hostile_names_become_plain_text() {
        let path = CgroupPath::root().join(b"a\x1b[31m\xff\\x2d\xc2\x85\xe2\x82\xac");
        assert_eq!(path.to_string(), "/a\\x1b[31m\\xff\\x2d\\xc2\\x85\u{20ac}");
    }

    #[test]
    fn on_disk_stays_below_the_mount() {
        assert_eq!(path("/a/b").on_disk(Path::new("/mnt")), Path::new("/mnt/a/b"));
        assert_eq!(CgroupPath::root().on_disk(Path::new("/mnt")), Path::new("/mnt"));
    }
}
