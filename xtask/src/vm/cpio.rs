//! Writes an initramfs: a cpio archive in the kernel's `newc` form (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written. Folders come into being with what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// Adds an executable file at an absolute path.
    pub fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, FILE | 0o755, (0, 0), content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device: the kernel wants `/dev/console` before anything is mounted.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// The archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.header("TRAILER!!!", 0, (0, 0), 0)?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        ensure!(!path.is_empty() && !path.split('/').any(|part| matches!(part, "" | "." | "..")), "not a path for an archive: {path:?}");
        for (at, _) in path.match_indices('/') {
            if self.folders.insert(path[..at].to_owned()) {
                self.header(&path[..at], FOLDER | 0o755, (0, 0), 0)?;
            }
        }
        self.header(path, mode, device, content.len())?;
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn header(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), size: usize) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(size)?;
        let name_size = u32::try_from(path.len() + 1)?;
        let (user, group, links, time, checksum) = (0, 0, 1, 0, 0);
        self.bytes.extend_from_slice(b"070701");
        for field in [self.inode, mode, user, group, links, time, size, 0, 0, major, minor, name_size, checksum] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_parts_are_padded_to_4() {
        let mut archive = Archive::default();
        archive.file("/a", b"xyz").expect("a valid path");
        let bytes = archive.bytes;
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[6 + 6 * 8..6 + 7 * 8], b"00000003", "size");
        assert_eq!(&bytes[6 + 11 * 8..6 + 12 * 8], b"00000002", "size of the name");
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..], b"xyz\0");
    }

    #[test]
    fn folders_are_made_once_and_before_their_content() {
        let mut archive = Archive::default();
        archive.file("bin/deps/a", b"").expect("a valid path");
        archive.link("/bin/b", "a").expect("a valid path");
        let bytes = archive.finish().expect("a whole archive");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<&str> = text.split("070701").skip(1).map(|entry| entry[104..].split('\0').next().unwrap_or_default()).collect();
        assert_eq!(names, ["bin", "bin/deps", "bin/deps/a", "bin/b", "TRAILER!!!"]);
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        for path in ["", "/", "a/../b", "a//b"] {
            assert!(Archive::default().file(path, b"").is_err(), "{path:?}");
        }
    }
}
