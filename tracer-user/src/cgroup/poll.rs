//! Reads the figures of many cgroups, children before parents, quickly: buffers are used again, and descriptors stay open as far
//! as a bound allows. I/O only; what the text means is [`super::stat`]'s business.
//!
//! A cgroup that is removed meanwhile is no error. A cgroup of the same name made since is another one and is not taken for it.

use super::listing::is_gone;
use super::stat::{self, CgroupFile, StatReading};
use super::{CgroupId, CgroupPath, Hierarchy, Version};
use crate::host::clock::monotonic_ns;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a cgroup that exists could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The memory controller is not enabled for it (v2 `cgroup.subtree_control` of its parent).
    #[error("the memory controller is not enabled for it")]
    NoMemory,
    /// One of its files could not be read.
    #[error("{file}: {source}")]
    File {
        /// Which.
        file: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// What one poll found.
#[derive(Debug, Default)]
pub struct Poll {
    /// What could be read, children before parents.
    pub readings: Vec<(CgroupId, StatReading)>,
    /// Cgroups that no longer exist.
    pub gone: Vec<CgroupId>,
    /// Cgroups that exist and could not be read.
    pub errors: Vec<(CgroupId, PollError)>,
    /// Cgroups read without kept descriptors, because the bound was reached.
    pub reopened: u64,
    /// How long it took.
    pub took: Duration,
}

/// Longest file taken in, bytes. memory.stat has under 4 KiB; what is longer is cut at a line that does not parse.
const MOST_BYTES: usize = 64 << 10;

/// Polls in which a cgroup is read whole at least once, where readings may be skimmed.
const SKIMMED: u64 = 4;

/// How carefully cgroups are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// All files of all of them.
    #[default]
    Whole,
    /// Of a cgroup whose counters have not moved since the last poll only these, and its other figures are those of then, as long as it is far
    /// from its limits; every fourth poll all of it. What changes without moving a counter, such as page cache that becomes dirty, is seen up to
    /// three polls late.
    Skimmed,
}

/// Reads cgroups again and again.
#[derive(Debug)]
pub struct Poller {
    mount: PathBuf,
    version: Version,
    #[expect(dead_code, reason = "keeps a private mount alive")]
    hierarchy: Option<Hierarchy>,
    files: Vec<(CgroupFile, &'static str)>,
    most_open: usize,
    now_open: usize,
    open: HashMap<CgroupId, Kept>,
    polls: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    files: Vec<OpenFile>,
    /// The last reading, where readings are skimmed.
    last: Option<StatReading>,
    /// Number of the last poll that used it.
    polled: u64,
}

impl Kept {
    /// The last reading again, if it is far from the cgroup's limits and no counter has moved since. `None` also where a counter cannot be read:
    /// reading all of it says why.
    fn unmoved(&self, buffer: &mut Vec<u8>) -> Option<StatReading> {
        let last = self.last.as_ref().filter(|last| !last.is_near_a_limit())?;
        let mut now = StatReading::new(last.version, monotonic_ns());
        for OpenFile { role, file, .. } in self.files.iter().filter(|file| file.role.is_counter()) {
            let length = read_whole(file, buffer).ok()?;
            now.absorb(*role, &buffer[..length]);
        }
        let is_same = now.usage.is_some()
            && now.usage == last.usage
            && now.subtree.kinds.iter().all(|(kind, figure)| last.subtree.kinds.get(kind).is_some_and(|other| other.bytes == figure.bytes));
        is_same.then(|| StatReading { at_ns: now.at_ns, ..last.clone() })
    }
}

#[derive(Debug)]
struct OpenFile {
    role: CgroupFile,
    name: &'static str,
    file: File,
}

impl Poller {
    /// A poller of the hierarchy that keeps at most `most_open` descriptors open between polls.
    #[must_use]
    pub fn new(hierarchy: &Hierarchy, most_open: usize) -> Self {
        let poller = Poller::at(hierarchy.mount.clone(), hierarchy.version, most_open);
        Poller { hierarchy: Some(hierarchy.clone()), ..poller }
    }

    fn at(mount: PathBuf, version: Version, most_open: usize) -> Self {
        let mut files = match version {
            Version::V1 => stat::V1_FILES.to_vec(),
            Version::V2 => stat::V2_FILES.to_vec(),
        };
        let (_, name) = stat::V1_USE_HIERARCHY;
        // "1" at the root, and on every kernel since 5.11 for good: then there is nothing to ask.
        let may_be_flat = fs::read(mount.join(name)).is_ok_and(|text| text.trim_ascii() == b"0");
        if version == Version::V1 && may_be_flat {
            files.push(stat::V1_USE_HIERARCHY);
        }
        Poller { mount, version, hierarchy: None, files, most_open, now_open: 0, open: HashMap::new(), polls: 0, buffer: vec![0; 8192] }
    }

    /// Reads these cgroups, the deepest first. Descriptors of cgroups that are not among them are closed.
    pub fn poll<'a>(&mut self, care: Care, cgroups: impl IntoIterator<Item = (CgroupId, &'a CgroupPath)>) -> Poll {
        let started = monotonic_ns();
        self.polls += 1;
        let mut order: Vec<_> = cgroups.into_iter().map(|(id, path)| (path.depth(), id, path)).collect();
        order.sort_by(|a, b| b.cmp(a));
        let mut poll = Poll { readings: Vec::with_capacity(order.len()), ..Poll::default() };
        for (_, id, path) in order {
            match self.read(care, id, path, &mut poll.reopened) {
                Ok(Some(reading)) => poll.readings.push((id, reading)),
                Ok(None) => poll.gone.push(id),
                Err(error) => poll.errors.push((id, error)),
            }
        }
        let polls = self.polls;
        self.open.retain(|_, kept| kept.polled == polls);
        self.now_open = self.open.values().map(|kept| kept.files.len()).sum();
        poll.took = Duration::from_nanos(monotonic_ns().saturating_sub(started));
        poll
    }

    /// Reads one cgroup. `None` if it is gone.
    ///
    /// # Errors
    /// [`PollError`] if it exists and its memory.stat cannot be read.
    pub fn read_one(&mut self, id: CgroupId, path: &CgroupPath) -> Result<Option<StatReading>, PollError> {
        self.read(Care::Whole, id, path, &mut 0)
    }

    fn read(&mut self, care: Care, id: CgroupId, path: &CgroupPath, reopened: &mut u64) -> Result<Option<StatReading>, PollError> {
        if let Some(kept) = self.open.get_mut(&id) {
            kept.polled = self.polls;
            if care == Care::Skimmed
                && !self.polls.wrapping_add(id.0).is_multiple_of(SKIMMED)
                && let Some(reading) = kept.unmoved(&mut self.buffer)
            {
                return Ok(Some(reading));
            }
            let reading = read_files(&kept.files, self.version, &mut self.buffer)?;
            // Also that of a poll that reads all, if others skim.
            if care == Care::Skimmed || kept.last.is_some() {
                kept.last.clone_from(&reading);
            }
            if reading.is_none() {
                self.forget(id);
            }
            return Ok(reading);
        }
        let opened = match self.open_files(id, path) {
            // Others need descriptors too: keep fewer from now on.
            Err(PollError::File { source, .. }) if source.raw_os_error() == Some(libc::EMFILE) && self.now_open > 0 => {
                self.most_open = self.now_open / 2;
                self.open.clear();
                self.now_open = 0;
                self.open_files(id, path)
            }
            other => other,
        };
        let Some(files) = opened? else { return Ok(None) };
        let reading = read_files(&files, self.version, &mut self.buffer)?;
        if reading.is_some() && self.now_open + files.len() <= self.most_open {
            self.now_open += files.len();
            self.open.insert(id, Kept { files, last: None, polled: self.polls });
        } else if reading.is_some() {
            *reopened += 1;
        }
        Ok(reading)
    }

    fn forget(&mut self, id: CgroupId) {
        if let Some(kept) = self.open.remove(&id) {
            self.now_open -= kept.files.len();
        }
    }

    /// Opens the cgroup's files; `None` if there is no such cgroup any more.
    fn open_files(&self, id: CgroupId, path: &CgroupPath) -> Result<Option<Vec<OpenFile>>, PollError> {
        let directory = path.on_disk(&self.mount);
        let mut files = Vec::with_capacity(self.files.len());
        for &(role, name) in &self.files {
            match File::open(directory.join(name)) {
                Ok(file) => files.push(OpenFile { role, name, file }),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(PollError::File { file: name, source }),
            }
        }
        // Asked last: if the path still leads to this id, it did so all the while, since ids are not used again.
        match (directory_id(&directory), files.iter().any(|f| f.role == CgroupFile::Stat)) {
            (Some(found), true) if found == id => Ok(Some(files)),
            (Some(found), false) if found == id => Err(PollError::NoMemory),
            _ => Ok(None),
        }
    }
}

fn directory_id(directory: &Path) -> Option<CgroupId> {
    fs::metadata(directory).ok().map(|meta| CgroupId(meta.ino()))
}

/// `None` if the kernel says that the cgroup is gone.
fn read_files(files: &[OpenFile], version: Version, buffer: &mut Vec<u8>) -> Result<Option<StatReading>, PollError> {
    let mut reading = StatReading::new(version, monotonic_ns());
    for OpenFile { role, name, file } in files {
        match read_whole(file, buffer) {
            Ok(length) => reading.absorb(*role, &buffer[..length]),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(source) if *role == CgroupFile::Stat => return Err(PollError::File { file: name, source }),
            // Some files exist and refuse (EOPNOTSUPP): that figure is unknown, the rest is not.
            Err(_) => reading.unreadable += 1,
        }
    }
    Ok(Some(reading))
}

/// Reads the file from its start. The kernel makes the text in one piece, so a read that does not fill the buffer got all of it.
fn read_whole(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let read = match file.read_at(&mut buffer[length..], length as u64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        length += read;
        if length < buffer.len() || buffer.len() >= MOST_BYTES {
            return Ok(length);
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

/// A sensible `most_open`: half of what this process may have open (RLIMIT_NOFILE, soft), at most 8192.
#[must_use]
pub fn default_most_open() -> usize {
    // Without /proc there would be no hierarchy either; 256 is a quarter of the usual limit.
    fs::read_to_string("/proc/self/limits").ok().and_then(|text| soft_open_files(&text)).map_or(256, |n| (n / 2).min(8192))
}

fn soft_open_files(limits: &str) -> Option<usize> {
    let mut fields = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace();
    match fields.next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
