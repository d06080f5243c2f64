//! Files behind page cache and shmem: what the kernel half notes of a file when it first takes a folio of it, and again when the
//! folio is looked at for a report.

use crate::mix64;

/// Most bytes of one component of a name, its terminator included (NAME_MAX and one).
pub const COMPONENT_BYTES: usize = 256;
/// A component begins before this byte. A power of two, so that the verifier sees the bound of a masked index.
pub const NAME_START_BYTES: usize = 256;
/// Room for the name.
pub const NAME_BYTES: usize = NAME_START_BYTES + COMPONENT_BYTES;
/// Most components that are walked, the root's included.
pub const MOST_COMPONENTS: usize = 24;
/// Length of a file system's type name.
pub const FILE_SYSTEM_BYTES: usize = 16;
/// The link count could not be read.
pub const LINKS_UNKNOWN: u32 = u32::MAX;

/// How far the name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NameStatus {
    /// The inode had no directory entry in memory.
    None = 0,
    /// Up to the root of its file system.
    Whole = 1,
    /// There are more components above those in the record.
    Cut = 2,
    /// Up to the root of its file system, whose own name found no room.
    WholeButRoot = 3,
}

/// A file, stored under its identity.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FileRecord {
    /// Inode number.
    pub inode: u64,
    /// Size, bytes.
    pub size: u64,
    /// Monotonic nanoseconds of the first taken folio.
    pub first_seen_ns: u64,
    /// Monotonic nanoseconds as of which the record holds.
    pub refreshed_ns: u64,
    /// Device, as the kernel keeps it: major << 20 | minor.
    pub device: u32,
    /// Inode generation.
    pub generation: u32,
    /// Links; 0 for a file that was deleted or never had a name.
    pub links: u32,
    /// A [`NameStatus`] number.
    pub name_status: u32,
    /// Bytes of `name` in use.
    pub name_length: u32,
    /// Components in it.
    pub components: u32,
    /// Type of the file system, NUL-padded.
    pub file_system: [u8; FILE_SYSTEM_BYTES],
    /// Names of the directory entries, innermost first, each with a NUL behind it. The last of a whole name is that of the root: `/`,
    /// or the file's own name where the kernel made the file without a directory.
    pub name: [u8; NAME_BYTES],
}
crate::assert_size!(FileRecord, 72 + 512);
crate::plain_data!(FileRecord);

/// Identity of a file; never 0.
///
/// The device is mixed before the inode number joins it: both are small numbers, and neighbouring inodes of neighbouring devices would
/// meet. Many file systems give no generation that could tell them apart (`inode_init_always` sets it to 0).
#[inline(always)]
#[must_use]
pub const fn file_identity(device: u32, inode: u64, generation: u32) -> u64 {
    mix64(mix64(mix64(0x6669_6c65, device as u64), inode), generation as u64) | 1
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::file_identity;
    use std::vec::Vec;

    #[test]
    fn a_file_has_another_identity_when_device_inode_or_generation_is_another() {
        let files = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (3, 2, 1), (1, 2, 0), (1, 0, 3), (0, 2, 3), (1, 2 << 32, 3)];
        let identities = files.map(|(device, inode, generation)| file_identity(device, inode, generation));
        for (at, identity) in identities.iter().enumerate() {
            assert!(!identities[at + 1..].contains(identity), "{:?} is taken for another file", files[at]);
        }
    }

    #[test]
    fn equal_images_on_many_devices_share_no_file() {
        // Read-only images, each on a loop device, number their inodes alike and have no generations.
        const LOOP_MAJOR: u32 = 7;
        let mut identities: Vec<u64> =
            (0..32).flat_map(|minor| (1..=256).map(move |inode| file_identity(LOOP_MAJOR << 20 | minor, inode, 0))).collect();
        let files = identities.len();
        identities.sort_unstable();
        identities.dedup();
        assert_eq!(identities.len(), files, "files are taken for others");
    }

    #[test]
    fn no_file_has_the_identity_that_stands_for_none() {
        for inode in 0..1000 {
            assert_eq!(file_identity(0, inode, 0) & 1, 1, "identities are odd: inode {inode}");
        }
    }
}
