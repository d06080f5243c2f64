//! Where a file is seen: on the host, and inside the container that touched it.
//!
//! Reads mount tables of `/proc` and nothing else: no path that comes out of a record is ever opened or followed.

use super::{
    mounts::{Mounts, Place, device_text},
    name::{self, Name},
    volume::{self, Volume},
};
use crate::{
    host::proc::{self, Process},
    text,
};
use std::{collections::HashMap, io, rc::Rc};
use tracer_common::file::FileRecord;

/// Most bytes read of one mount table.
const MOST_TABLE_BYTES: u64 = 16 << 20;
/// Most mount namespaces whose tables are read for one report.
const MOST_NAMESPACES: usize = 64;
/// Most processes looked at for namespaces.
const MOST_PROCESSES: usize = 4096;

/// A file as outputs show it. All texts are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Path on the host, or what is known instead, in brackets.
    pub path: String,
    /// Mount point; `None` for files that no mount shows.
    pub mount: Option<String>,
    /// Path in the mount namespace of a toucher, where it is another.
    pub path_inside: Option<String>,
    /// Volume that the file is in.
    pub volume: Option<String>,
}

/// Resolves the files of one report.
pub struct Resolver {
    host: Mounts,
    host_namespace: Option<Vec<u8>>,
    /// Tables by namespace; `None` where one could not be read.
    tables: HashMap<Vec<u8>, Option<Rc<Mounts>>>,
    /// Whether all namespaces of the host were looked for.
    looked_everywhere: bool,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new()
    }
}

impl Resolver {
    /// Reads the host's mount table: that of its first process, since memtrail itself may run in a container.
    #[must_use]
    pub fn new() -> Resolver {
        let read = |process: Process| Ok::<_, io::Error>((table_of(&process)?, namespace_of(&process)));
        let first = Process::open(1).and_then(read).or_else(|_| Process::own().and_then(read));
        let (host, host_namespace) = first.unwrap_or_else(|error| {
            log::warn!("no mount table, so files are named by their file systems: {error}");
            (Mounts::default(), None)
        });
        Resolver { host, host_namespace, tables: HashMap::new(), looked_everywhere: false }
    }

    /// A resolver that knows this table only.
    #[must_use]
    pub fn with_table(mountinfo: &[u8]) -> Resolver {
        Resolver { host: Mounts::parse(mountinfo), host_namespace: None, tables: HashMap::new(), looked_everywhere: true }
    }

    /// The file of that record, touched by these living processes.
    pub fn resolve(&mut self, record: &FileRecord, touchers: &[u32]) -> Seen {
        let plain = |path: String| Seen { path, ..Seen::default() };
        match name::of(record) {
            Name::Path { path, cut: false } => self.path(record, &path, touchers),
            Name::Path { path, cut: true } => {
                let mount = self.host.point_of(record.device).map(text::escape_bytes);
                let place = mount.clone().unwrap_or_else(|| file_system(record));
                Seen { path: format!("{}/[...]/{}", place.trim_end_matches('/'), text::escape_bytes(&path)), mount, ..Seen::default() }
            }
            Name::Memfd(given) => plain(format!("memfd:{}", text::escape_bytes(&given))),
            Name::SystemV(key) => plain(text::escape_bytes(&key)),
            Name::SharedAnonymous => plain("/dev/zero [shared anonymous memory]".to_owned()),
            // The inode's number is that of the device (block/bdev.c).
            Name::BlockDevice => plain(format!("[block device {}]", device_text(u32::try_from(record.inode).unwrap_or(record.device)))),
            Name::Internal(given) => plain(format!("[kernel {}]", text::escape_bytes(&given))),
            Name::Unknown => {
                let mount = self.host.point_of(record.device).map(text::escape_bytes);
                let place = mount.clone().unwrap_or_else(|| file_system(record));
                Seen { path: format!("{}/[inode {}]", place.trim_end_matches('/'), record.inode), mount, ..Seen::default() }
            }
        }
    }

    fn path(&mut self, record: &FileRecord, path: &[u8], touchers: &[u32]) -> Seen {
        let host = self.host.place(record.device, path);
        let inside = self.inside(record.device, path, host.as_ref(), touchers);
        let volume = host.as_ref().and_then(|place| volume::of(&place.path)).as_ref().map(Volume::text).map(|text| text::escape(&text));
        if let Some(place) = host {
            let path_inside = inside.filter(|inside| inside.path != place.path).map(|inside| text::escape_bytes(&inside.path));
            return Seen { path: text::escape_bytes(&place.path), mount: Some(text::escape_bytes(&place.mount)), path_inside, volume };
        }
        // Not mounted on the host: a container's own tmpfs, for example.
        let there = inside.or_else(|| self.anywhere(record.device, path));
        let path = text::escape_bytes(path);
        Seen {
            path: format!("{}{path}", file_system(record)),
            mount: there.as_ref().map(|place| text::escape_bytes(&place.mount)),
            path_inside: there.map(|place| text::escape_bytes(&place.path)),
            volume,
        }
    }

    /// Where the touchers see it, if they are in another mount namespace than the host.
    fn inside(&mut self, device: u32, path: &[u8], host: Option<&Place>, touchers: &[u32]) -> Option<Place> {
        touchers.iter().find_map(|pid| {
            let table = self.table_of(*pid)?;
            table.place(device, path).or_else(|| table.through_overlay(&host?.path))
        })
    }

    /// Where any other namespace sees it.
    fn anywhere(&mut self, device: u32, path: &[u8]) -> Option<Place> {
        if !self.looked_everywhere {
            self.looked_everywhere = true;
            processes().into_iter().for_each(|pid| drop(self.table_of(pid)));
        }
        self.tables.values().flatten().find_map(|table| table.place(device, path))
    }

    fn table_of(&mut self, pid: u32) -> Option<Rc<Mounts>> {
        let process = Process::open(pid).ok()?;
        let namespace = namespace_of(&process)?;
        if self.host_namespace.as_ref() == Some(&namespace) {
            return None;
        }
        if !self.tables.contains_key(&namespace) {
            if self.tables.len() >= MOST_NAMESPACES {
                return None;
            }
            self.tables.insert(namespace.clone(), table_of(&process).ok().map(Rc::new));
        }
        self.tables.get(&namespace).cloned().flatten()
    }
}

/// `[tmpfs 0:55]`.
fn file_system(record: &FileRecord) -> String {
    format!("[{} {}]", file_system_name(record), device_text(record.device))
}

/// Type of a record's file system, escaped.
#[must_use]
pub fn file_system_name(record: &FileRecord) -> String {
    let end = record.file_system.iter().position(|byte| *byte == 0).unwrap_or(record.file_system.len());
    text::escape_bytes(&record.file_system[..end])
}

fn table_of(process: &Process) -> io::Result<Mounts> {
    Ok(Mounts::parse(&process.read("mountinfo", MOST_TABLE_BYTES)?))
}

fn namespace_of(process: &Process) -> Option<Vec<u8>> {
    process.link("ns/mnt").ok()
}

fn processes() -> Vec<u32> {
    proc::tgids().map(|tgids| tgids.take(MOST_PROCESSES).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::name::record;
    use tracer_common::file::NameStatus;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/root rw\n23 21 0:21 / /dev/shm rw - tmpfs tmpfs rw\n";

    fn seen(components: &[&str], status: NameStatus, device: u32) -> Seen {
        let mut record = record(components, status);
        record.device = device;
        record.file_system[..4].copy_from_slice(b"ext4");
        Resolver::with_table(TABLE).resolve(&record, &[])
    }

    #[test]
    fn files_on_the_host_have_their_path_and_mount() {
        let found = seen(&["app.log", "log", "/"], NameStatus::Whole, 8 << 20 | 1);
        assert_eq!((found.path.as_str(), found.mount.as_deref()), ("/log/app.log", Some("/")));
        let found = seen(&["a", "/"], NameStatus::Whole, 21);
        assert_eq!((found.path.as_str(), found.mount.as_deref()), ("/dev/shm/a", Some("/dev/shm")));
    }

    #[test]
    fn what_is_missing_of_a_name_is_said() {
        assert_eq!(seen(&["a", "b"], NameStatus::Cut, 21).path, "/dev/shm/[...]/b/a");
        assert_eq!(seen(&[], NameStatus::None, 8 << 20 | 1).path, "/[inode 12]");
        assert_eq!(seen(&[], NameStatus::None, 99).path, "[ext4 0:99]/[inode 12]");
        assert_eq!(seen(&["a", "/"], NameStatus::Whole, 99).path, "[ext4 0:99]/a");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(seen(&["a\n\u{202e}", "/"], NameStatus::Whole, 21).path, r"/dev/shm/a\x0a\xe2\x80\xae");
        assert_eq!(seen(&["memfd:\x1b[2J"], NameStatus::Whole, 1).path, r"memfd:\x1b[2J");
    }

    #[test]
    fn a_volume_is_named_by_its_pod() {
        let components = ["x", "cache", "kubernetes.io~empty-dir", "volumes", "u-1", "pods", "/"];
        assert_eq!(seen(&components, NameStatus::Whole, 21).volume.as_deref(), Some("emptyDir cache of pod u-1"));
    }
}
