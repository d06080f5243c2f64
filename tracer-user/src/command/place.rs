//! The command's own memory cgroup: `memtrail/<pid>` at a level that may hold it, its limit, its removal.
//!
//! v1 takes children at every level. v2 takes them only where the level itself has no processes (but for the real root) and passes
//! the memory controller on. Nothing that runs is moved, and no process but the child is ever touched.

use super::janitor::{Janitor, Task};
use crate::cgroup::{CgroupId, CgroupPath, Hierarchy, Version};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cgroup that holds all commands' cgroups of one level.
pub const PARENT: &str = "memtrail";

/// Why there is no cgroup although one is needed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// `--limit` was given.
    #[error("--limit needs a cgroup for the command, and none can be made: {0}")]
    LimitNeedsCgroup(String),
    /// The kernel refused the limit.
    #[error("cannot set the limit of {bytes} bytes: {source}")]
    Limit {
        /// As asked for.
        bytes: u64,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Where the command will run.
#[derive(Debug)]
pub enum Placement {
    /// In a cgroup of its own.
    Own(Place),
    /// Where it would run anyway: tracing by its process is all that is left.
    Inherited {
        /// One line for the user: why.
        warning: String,
    },
}

/// A cgroup made for the command. Dropped, it is removed if it is empty.
#[derive(Debug)]
pub struct Place {
    /// Keeps a private mount.
    hierarchy: Hierarchy,
    pub(super) level: PathBuf,
    directory: PathBuf,
    path: CgroupPath,
    id: CgroupId,
    /// The level's `cgroup.subtree_control` had to be changed.
    enabled_here: bool,
    janitor: Option<Janitor>,
    warnings: Vec<String>,
}

/// What came of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The cgroup is gone.
    Removed,
    /// Processes that the command left behind still run in it. The next memtrail removes it when they are gone.
    Populated {
        /// Their ids, at most 100.
        pids: Vec<u32>,
    },
    /// The kernel refused for another reason.
    Failed(String),
}

impl Placement {
    /// Makes the command's cgroup, with its limit, and starts the janitor. Call it before tracing is set up: the janitor is a fork.
    ///
    /// # Errors
    /// [`PlaceError`], only when there is a limit.
    pub fn make(hierarchy: &Hierarchy, limit: Option<u64>) -> Result<Self, PlaceError> {
        let mut reasons = Vec::new();
        for level in levels(hierarchy.version, hierarchy.own.as_ref()) {
            match Place::make_at(hierarchy, &level) {
                Ok(place) => {
                    if let Some(bytes) = limit {
                        place.set_limit(bytes).map_err(|source| PlaceError::Limit { bytes, source })?;
                    }
                    return Ok(Placement::Own(place));
                }
                Err(reason) => reasons.push(format!("{level}: {reason}")),
            }
        }
        let reasons = reasons.join("; ");
        match limit {
            Some(_) => Err(PlaceError::LimitNeedsCgroup(reasons)),
            None => Ok(Placement::Inherited { warning: format!("the command runs in memtrail's own cgroup ({reasons})") }),
        }
    }

    /// The cgroup, if there is one.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Placement::Own(place) => Some(place),
            Placement::Inherited { .. } => None,
        }
    }
}

impl Place {
    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its path below the hierarchy's mount.
    #[must_use]
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Its kernfs id.
    #[must_use]
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// What the user should know, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Process id of the janitor: one of memtrail's own processes, and no part of the workload.
    #[cfg(test)]
    pub(super) fn janitor_pid(&self) -> Option<u32> {
        self.janitor.as_ref().map(Janitor::pid)
    }

    /// Removes the cgroup if nothing is left in it, and whatever had to be made for it. Can be called again.
    pub fn remove(&mut self) -> Removal {
        // The command was waited for, but what it started may still be on its way out; recent kernels also list a process for a moment
        // after its parent has reaped it.
        for attempt in 1..=50 {
            match self.remove_once() {
                Removal::Populated { .. } if attempt < 20 => {}
                Removal::Failed(_) if attempt < 50 => {}
                done => return done,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Removal::Failed("still busy".to_owned())
    }

    /// Leaves a populated cgroup to the janitor, which removes it once memtrail has ended and nothing runs in it any more. The janitor
    /// lives that long.
    pub fn leave_to_janitor(mut self) {
        std::mem::forget(self.janitor.take());
    }

    fn remove_once(&mut self) -> Removal {
        if inode(&self.directory) != Some(self.id.0) {
            self.janitor = None;
            return Removal::Removed;
        }
        let pids = processes_below(&self.directory, 100);
        if !pids.is_empty() {
            return Removal::Populated { pids };
        }
        if let Err(error) = remove_tree(&self.directory, LEVELS) {
            return Removal::Failed(error.to_string());
        }
        self.janitor = None;
        // Fails, as it should, while another command has its cgroup there.
        if fs::remove_dir(self.level.join(PARENT)).is_ok() && self.enabled_here && !has_children(&self.level) {
            // What was enabled for this one is of no use to anybody now. If the kernel refuses, somebody uses it after all.
            drop(fs::write(self.level.join("cgroup.subtree_control"), "-memory"));
        }
        Removal::Removed
    }

    fn make_at(hierarchy: &Hierarchy, level: &CgroupPath) -> Result<Self, String> {
        let directory = hierarchy.directory(level);
        let enable = match hierarchy.version {
            Version::V1 => false,
            Version::V2 => match v2_level(&V2Level::read(&directory).map_err(|e| e.to_string())?) {
                Hold::Yes => false,
                Hold::IfEnabled => true,
                Hold::No(reason) => return Err(reason.to_owned()),
            },
        };
        if enable {
            fs::write(directory.join("cgroup.subtree_control"), "+memory")
                .map_err(|e| format!("cannot enable the memory controller: {e}"))?;
        }
        let made = make_directories(hierarchy.version, &directory).map_err(|e| e.to_string())?;
        let name = made.file_name().map(OsStr::as_bytes).unwrap_or_default();
        let mut place = Place {
            id: CgroupId(inode(&made).ok_or("it was removed at once")?),
            path: level.join(PARENT.as_bytes()).join(name),
            hierarchy: hierarchy.clone(),
            level: directory,
            directory: made,
            enabled_here: enable,
            janitor: None,
            warnings: Vec::new(),
        };
        if enable {
            place.warnings.push(format!("the memory controller was enabled for the children of {level}"));
        }
        match place.start_janitor() {
            Ok(janitor) => place.janitor = Some(janitor),
            Err(error) => place.warnings.push(format!("if memtrail is killed, {} stays until its next start ({error})", place.path)),
        }
        Ok(place)
    }

    fn start_janitor(&self) -> io::Result<Janitor> {
        let name = self.directory.file_name().map(OsStr::as_bytes).unwrap_or_default();
        Janitor::start(&Task {
            grandparent: &File::open(&self.level)?,
            parent_name: CString::new(PARENT)?,
            parent: &File::open(self.level.join(PARENT))?,
            name: CString::new(name)?,
            inode: self.id.0,
        })
    }

    fn set_limit(&self, bytes: u64) -> io::Result<()> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        fs::write(self.directory.join(file), bytes.to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove_once();
    }
}

/// How deep cgroups are looked for that the command made below its own.
pub(super) const LEVELS: u32 = 16;

/// Levels to try, the best first: the whole hierarchy's root, so that no ancestor's limit or figures are disturbed; then v1: our own level;
/// v2: those above our own, where a child can stand beside us.
pub(super) fn levels(version: Version, own: Option<&CgroupPath>) -> Vec<CgroupPath> {
    let mut levels = vec![CgroupPath::root()];
    if let Some(own) = own {
        let mut above: Vec<_> = std::iter::successors(own.parent(), CgroupPath::parent).collect();
        match version {
            Version::V1 => above = vec![own.clone()],
            Version::V2 => above.reverse(),
        }
        levels.extend(above.into_iter().filter(|l| !l.is_root()));
    }
    levels
}

/// What a v2 level says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct V2Level {
    /// The real root, exempt from the rule of no inner processes: it has no `cgroup.type`.
    is_root: bool,
    offered: bool,
    passed_on: bool,
    populated: bool,
}

impl V2Level {
    fn read(directory: &Path) -> io::Result<Self> {
        let has_memory =
            |file: &str| -> io::Result<bool> { Ok(fs::read_to_string(directory.join(file))?.split_whitespace().any(|c| c == "memory")) };
        Ok(V2Level {
            is_root: !directory.join("cgroup.type").exists(),
            offered: has_memory("cgroup.controllers")?,
            passed_on: has_memory("cgroup.subtree_control")?,
            // Refused for threaded cgroups, which cannot hold us either.
            populated: fs::read(directory.join("cgroup.procs")).map_or(true, |pids| !pids.is_empty()),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Yes,
    IfEnabled,
    No(&'static str),
}

fn v2_level(level: &V2Level) -> Hold {
    match level {
        V2Level { offered: false, .. } => Hold::No("the memory controller is not available there"),
        V2Level { passed_on: true, .. } => Hold::Yes,
        V2Level { is_root: false, populated: true, .. } => Hold::No("it has processes, so it cannot pass the memory controller on"),
        _ => Hold::IfEnabled,
    }
}

/// Makes `level/memtrail/<pid>`, with `-2` and so on behind it where a stale one of the same pid is in the way.
fn make_directories(version: Version, level: &Path) -> io::Result<PathBuf> {
    let parent = level.join(PARENT);
    let mut result = Err(io::Error::from(io::ErrorKind::AlreadyExists));
    for attempt in 1..64 {
        result = make_once(version, &parent, attempt);
        match &result {
            // NotFound: another memtrail has just removed the common parent.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
            _ => return result,
        }
    }
    result
}

fn make_once(version: Version, parent: &Path, attempt: u32) -> io::Result<PathBuf> {
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if version == Version::V2 {
        fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
    }
    let pid = std::process::id();
    let own = parent.join(if attempt == 1 { pid.to_string() } else { format!("{pid}-{attempt}") });
    fs::create_dir(&own)?;
    if !own.join("memory.stat").exists() {
        fs::remove_dir(&own)?;
        return Err(io::ErrorKind::NotFound.into());
    }
    // Before 5.11 a v1 hierarchy need not count what the command's own cgroups use; refused where it does anyway.
    let hierarchical = own.join("memory.use_hierarchy");
    if fs::read(&hierarchical).is_ok_and(|text| text.trim_ascii() == b"0") {
        fs::write(&hierarchical, "1")?;
    }
    Ok(own)
}

fn inode(directory: &Path) -> Option<u64> {
    fs::metadata(directory).ok().map(|meta| meta.ino())
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn has_children(directory: &Path) -> bool {
    !children(directory).is_empty()
}

/// Removes a cgroup and those below it, which never removes one with processes: the kernel refuses.
pub(super) fn remove_tree(directory: &Path, levels: u32) -> io::Result<()> {
    if levels > 0 {
        for child in children(directory) {
            remove_tree(&child, levels - 1)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Processes in a cgroup and below, at most `most`.
fn processes_below(directory: &Path, most: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut queue = vec![(directory.to_owned(), LEVELS)];
    while let Some((directory, levels)) = queue.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        if pids.len() >= most {
            pids.truncate(most);
            break;
        }
        if levels > 0 {
            queue.extend(children(&directory).into_iter().map(|c| (c, levels - 1)));
        }
    }
    pids
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
