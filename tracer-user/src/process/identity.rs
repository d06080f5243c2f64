//! Which file is meant. Plain data.

/// Which file: device, inode and generation, since inode numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// `makedev(major, minor)` of the file system as the mapping shows it.
    pub device: u64,
    /// Inode number, 0 for anonymous memory.
    pub inode: u64,
    /// Generation of the inode; `None` where the source does not tell (`/proc/PID/maps`).
    pub generation: Option<u64>,
}

impl FileIdentity {
    /// Device and inode: the same of all generations.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// No file.
    pub const NONE: FileIdentity = FileIdentity { device: 0, inode: 0, generation: None };

    /// Whether both can be the same file: an unknown generation contradicts nothing.
    #[must_use]
    pub fn agrees_with(&self, other: &FileIdentity) -> bool {
        let generations = self.generation.zip(other.generation);
        self.device == other.device && self.inode == other.inode && generations.is_none_or(|(a, b)| a == b)
    }
}
