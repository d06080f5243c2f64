//! Mount tables: from a device and a path below its root to a path that processes use. Pure.

use crate::host::proc::mountinfo::{self, unescape};

/// A mount, as far as it says where files are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// Device as the kernel keeps it: major << 20 | minor.
    device: u32,
    /// Part of the file system that is shown, `/` for all of it.
    root: Vec<u8>,
    /// Where.
    point: Vec<u8>,
    /// Upper directory of an overlay: a path of the mounter's, which for container runtimes is the host's.
    upper: Option<Vec<u8>>,
}

/// A mount table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    mounts: Vec<Mount>,
}

/// A file's place in a mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path of the file.
    pub path: Vec<u8>,
    /// Mount point.
    pub mount: Vec<u8>,
}

/// Most mounts that are kept of a table: the kernel's own default bound (`fs.mount-max`).
const MOST_MOUNTS: usize = 100_000;

impl Mounts {
    /// Reads a table. Lines that do not parse are passed over.
    #[must_use]
    pub fn parse(mountinfo: &[u8]) -> Mounts {
        Mounts { mounts: mountinfo::mounts(mountinfo).map(mount).take(MOST_MOUNTS).collect() }
    }

    /// Where the file at that path below the root of that device's file system is seen. A mount of the whole file system is preferred
    /// to a bind mount of a part, since the path then says where the file really is; among equals, the one mounted first.
    #[must_use]
    pub fn place(&self, device: u32, path: &[u8]) -> Option<Place> {
        let seen = self.mounts.iter().filter(|mount| mount.device == device).filter_map(|mount| Some((mount, below(path, &mount.root)?)));
        let (mount, rest) = seen.min_by_key(|(mount, _)| mount.root.len())?;
        Some(Place { path: joined(&mount.point, rest), mount: mount.point.clone() })
    }

    /// The mount point of a device's file system, of whatever part.
    #[must_use]
    pub fn point_of(&self, device: u32) -> Option<&[u8]> {
        self.mounts.iter().filter(|mount| mount.device == device).min_by_key(|mount| mount.root.len()).map(|mount| mount.point.as_slice())
    }

    /// Where a file of the host is seen through an overlay of this table whose upper directory holds it.
    #[must_use]
    pub fn through_overlay(&self, host_path: &[u8]) -> Option<Place> {
        let seen = self.mounts.iter().filter_map(|mount| Some((mount, below(host_path, mount.upper.as_deref()?)?)));
        let (mount, rest) = seen.max_by_key(|(mount, _)| mount.upper.as_ref().map_or(0, Vec::len))?;
        Some(Place { path: joined(&mount.point, rest), mount: mount.point.clone() })
    }
}

fn mount(line: mountinfo::Mount) -> Mount {
    let (major, minor) = line.device;
    let upper = if line.kind == b"overlay" { line.options().find_map(|option| option.strip_prefix(b"upperdir=")) } else { None };
    Mount { device: major << 20 | minor & 0xf_ffff, upper: upper.map(unescape), root: line.root, point: line.point }
}

/// The rest of a path below a directory, without the slash between; `None` if it is not there.
fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory == b"/" {
        return path.strip_prefix(b"/");
    }
    let rest = path.strip_prefix(directory)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

fn joined(directory: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !rest.is_empty() {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(rest);
    }
    path
}

/// `8:1`, as in mount tables.
#[must_use]
pub fn device_text(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:1 /srv/data /data rw - ext4 /dev/root rw\n\
        21 1 254:1 / / rw,relatime - ext4 /dev/root rw\n\
        23 21 0:21 / /dev/shm rw shared:2 master:3 - tmpfs tmpfs rw\n\
        24 21 0:33 /@ /with\\040blank rw - btrfs /dev/b rw,subvol=/@\n\
        25 21 0:40 / /merged rw - overlay overlay rw,lowerdir=/l,upperdir=/var/lib/o/up,workdir=/w\n\
        bad\n";

    fn place(device: u32, path: &str) -> Option<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Mounts::parse(TABLE).place(device, path.as_bytes()).map(|place| (text(place.path), text(place.mount)))
    }

    fn pair(path: &str, mount: &str) -> Option<(String, String)> {
        Some((path.to_owned(), mount.to_owned()))
    }

    #[test]
    fn the_whole_file_system_is_preferred_to_a_part() {
        assert_eq!(place(254 << 20 | 1, "/srv/data/a"), pair("/srv/data/a", "/"));
        assert_eq!(place(21, "/a/b"), pair("/dev/shm/a/b", "/dev/shm"));
        assert_eq!(place(33, "/@/x"), pair("/with blank/x", "/with blank"));
        assert_eq!(place(33, "/@"), pair("/with blank", "/with blank"));
    }

    #[test]
    fn what_is_not_mounted_has_no_place() {
        assert_eq!(place(33, "/@other/x"), None);
        assert_eq!(place(99, "/x"), None);
        assert_eq!(Mounts::parse(b"1 2 3:4 / /").place(3 << 20 | 4, b"/x"), None);
    }

    #[test]
    fn an_overlay_shows_its_upper_files_at_its_mount_point() {
        let seen = Mounts::parse(TABLE).through_overlay(b"/var/lib/o/up/etc/x").unwrap();
        assert_eq!(seen.path, b"/merged/etc/x");
        assert_eq!(Mounts::parse(TABLE).through_overlay(b"/var/lib/o/upper/x"), None);
    }

    #[test]
    fn devices_are_written_as_mount_tables_do() {
        assert_eq!(device_text(254 << 20 | 300), "254:300");
    }
}
