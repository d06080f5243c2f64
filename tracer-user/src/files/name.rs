//! The name in a file's record. Pure.

use tracer_common::file::{FileRecord, NAME_BYTES, NameStatus};

/// What the kernel's directory entries say that a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Path from the root of its file system; the beginning is missing if `cut`.
    Path {
        /// With a leading slash, unless it is cut.
        path: Vec<u8>,
        /// There are more components above.
        cut: bool,
    },
    /// memfd_create(2), with the name that was given.
    Memfd(Vec<u8>),
    /// A System V segment, with its key as the kernel writes it.
    SystemV(Vec<u8>),
    /// Shared anonymous memory: mmap(2) with MAP_SHARED and no file.
    SharedAnonymous,
    /// A block device: the kernel's cache of a file system's own structures, or of reads and writes of the device itself.
    BlockDevice,
    /// Another file that the kernel made without a directory.
    Internal(Vec<u8>),
    /// No directory entry was in memory.
    Unknown,
}

/// Reads a record's name.
#[must_use]
pub fn of(record: &FileRecord) -> Name {
    let used = (record.name_length as usize).min(NAME_BYTES);
    let mut components: Vec<&[u8]> = record.name[..used].split(|byte| *byte == 0).collect();
    // Each has a NUL behind it.
    components.pop();
    let to_root = record.name_status == NameStatus::Whole as u32;
    let root = if to_root { components.pop() } else { None };
    let whole = to_root || record.name_status == NameStatus::WholeButRoot as u32;
    if let Some(root) = root.filter(|root| components.is_empty() && *root != b"/") {
        return if record.file_system.starts_with(b"bdev\0") { Name::BlockDevice } else { without_directory(root) };
    }
    if components.is_empty() && !whole {
        return Name::Unknown;
    }
    let mut path = Vec::with_capacity(used);
    for component in components.iter().rev() {
        if !path.is_empty() || whole {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Name::Path { path, cut: !whole }
}

/// Only the kernel makes such entries, so these names cannot be forged by a file of that name.
fn without_directory(name: &[u8]) -> Name {
    if let Some(given) = name.strip_prefix(b"memfd:") {
        return Name::Memfd(given.to_vec());
    }
    if name.len() == 12 && name.starts_with(b"SYSV") {
        return Name::SystemV(name.to_vec());
    }
    if name == b"dev/zero" {
        return Name::SharedAnonymous;
    }
    Name::Internal(name.to_vec())
}

/// A record with that name, as the kernel half would write it: innermost component first.
#[cfg(test)]
pub(crate) fn record(components: &[&str], status: NameStatus) -> FileRecord {
    let mut record = FileRecord {
        inode: 12,
        size: 0,
        first_seen_ns: 0,
        refreshed_ns: 0,
        device: 8 << 20 | 1,
        generation: 0,
        links: 1,
        name_status: status as u32,
        name_length: 0,
        components: components.len() as u32,
        file_system: [0; 16],
        name: [0; NAME_BYTES],
    };
    let mut at = 0;
    for component in components {
        record.name[at..at + component.len()].copy_from_slice(component.as_bytes());
        at += component.len() + 1;
    }
    record.name_length = at as u32;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(components: &[&str]) -> Name {
        of(&record(components, NameStatus::Whole))
    }

    #[test]
    fn paths_are_put_together_from_the_inside_out() {
        let path = |path: &str, cut| Name::Path { path: path.into(), cut };
        assert_eq!(whole(&["app.log", "log", "var", "/"]), path("/var/log/app.log", false));
        assert_eq!(whole(&["/"]), path("/", false));
        assert_eq!(of(&record(&["app.log", "log"], NameStatus::Cut)), path("log/app.log", true));
        assert_eq!(of(&record(&["app.log", "log"], NameStatus::WholeButRoot)), path("/log/app.log", false));
        assert_eq!(of(&record(&[], NameStatus::None)), Name::Unknown);
    }

    #[test]
    fn what_the_kernel_makes_without_a_directory_is_named_as_that() {
        assert_eq!(whole(&["memfd:ring"]), Name::Memfd(b"ring".to_vec()));
        assert_eq!(whole(&["SYSV0000002a"]), Name::SystemV(b"SYSV0000002a".to_vec()));
        assert_eq!(whole(&["dev/zero"]), Name::SharedAnonymous);
        assert_eq!(whole(&["i915"]), Name::Internal(b"i915".to_vec()));
    }

    #[test]
    fn a_file_cannot_pass_for_one_of_those() {
        assert_eq!(whole(&["memfd:ring", "/"]), Name::Path { path: b"/memfd:ring".to_vec(), cut: false });
    }

    #[test]
    fn any_record_has_some_name() {
        let mut wild = record(&["a", "/"], NameStatus::Whole);
        wild.name_length = u32::MAX;
        wild.name = [0; NAME_BYTES];
        assert!(matches!(of(&wild), Name::Path { .. }));
        wild.name = [b'x'; NAME_BYTES];
        wild.name_status = 77;
        assert_eq!(of(&wild), Name::Unknown);
    }
}
