//! Files with the symbols of a build, by its build id: in directories that the caller names, and from debuginfod servers if it says so. Looked for
//! when a report is made, and never when a sample is taken.

use super::{Frame, elf};
use crate::host::elf as host_elf;
use crate::report::CodeRow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files looked at in all directories.
const MOST_FILES: usize = 65_536;
/// Directories inside of each other that are looked into.
const MOST_DEPTH: usize = 12;
/// elfutils' client of debuginfod: it asks the servers of DEBUGINFOD_URLS and keeps what it got.
const CLIENT: &str = "debuginfod-find";

/// Why places of a file stay without names.
#[derive(Debug, thiserror::Error)]
pub enum NotNamed {
    /// There is no file of that build.
    #[error("no symbols of that build were found")]
    NotFound,
    /// The recording does not say where the file's code is.
    #[error("the recording does not say where its code is")]
    NoCode,
    /// The file could not be read.
    #[error("{0}: {1}")]
    Unread(PathBuf, elf::ElfError),
    /// The client of debuginfod could not be run.
    #[error("{CLIENT} (Debian: debuginfod) cannot be run: {0}")]
    Client(io::Error),
}

/// Where symbols are looked for.
#[derive(Debug)]
pub struct DebugFiles {
    directories: Vec<PathBuf>,
    debuginfod: bool,
    /// Files by build id; made when it is first needed.
    by_build_id: Option<HashMap<String, PathBuf>>,
}

impl DebugFiles {
    /// In these directories, and from debuginfod servers.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>, debuginfod: bool) -> DebugFiles {
        DebugFiles { directories, debuginfod, by_build_id: None }
    }

    /// Functions of a build at these offsets in its file, outermost first; `None` where there is none.
    ///
    /// # Errors
    /// Its symbols cannot be had.
    pub fn functions(&mut self, build_id: &str, code: &[CodeRow], offsets: &[u64]) -> Result<Vec<Option<Vec<String>>>, NotNamed> {
        if code.is_empty() {
            return Err(NotNamed::NoCode);
        }
        let path = self.find(build_id)?;
        let unread = |error| NotNamed::Unread(path.clone(), error);
        let file = open(&path).map_err(|_| unread(elf::ElfError::Unreadable))?;
        // What has no address is in no function, as address 0.
        let address = |offset: &u64| code.iter().find_map(|code| code.address_of(*offset)).unwrap_or(0);
        let addresses: Vec<u64> = offsets.iter().map(address).collect();
        let found = elf::functions_at(&file, &addresses, &self.directories).map_err(unread)?;
        let names = |frames: Vec<Frame>| frames.into_iter().rev().map(|frame| frame.name.as_ref().to_owned()).collect();
        Ok(found.into_iter().map(|frames| frames.map(names)).collect())
    }

    fn find(&mut self, build_id: &str) -> Result<PathBuf, NotNamed> {
        // As distributions lay debug files out.
        if let Some((first, rest)) = build_id.split_at_checked(2) {
            let in_place = self.directories.iter().map(|directory| directory.join(format!(".build-id/{first}/{rest}.debug")));
            if let Some(path) = in_place.into_iter().find(|path| path.is_file()) {
                return Ok(path);
            }
        }
        let directories = &self.directories;
        let known = self.by_build_id.get_or_insert_with(|| by_build_id(directories));
        match known.get(build_id) {
            Some(path) => Ok(path.clone()),
            None if self.debuginfod => ask(build_id),
            None => Err(NotNamed::NotFound),
        }
    }
}

/// Asks the servers; what they have is kept in a file by the client.
fn ask(build_id: &str) -> Result<PathBuf, NotNamed> {
    let output = Command::new(CLIENT).args(["debuginfo", build_id]).stdin(Stdio::null()).output().map_err(NotNamed::Client)?;
    if !output.status.success() {
        log::debug!("{CLIENT}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Err(NotNamed::NotFound);
    }
    Ok(PathBuf::from(OsStr::from_bytes(output.stdout.trim_ascii_end())))
}

/// The files of these directories, without symbolic links, by their build ids. Of two of one build the one with more bytes: it is the one with
/// symbols.
fn by_build_id(directories: &[PathBuf]) -> HashMap<String, PathBuf> {
    let (mut found, mut left) = (HashMap::<String, (u64, PathBuf)>::new(), MOST_FILES);
    let mut waiting: Vec<(PathBuf, usize)> = directories.iter().rev().map(|directory| (directory.clone(), 0)).collect();
    while let Some((directory, depth)) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MOST_DEPTH {
                waiting.push((entry.path(), depth + 1));
            }
            if !kind.is_file() {
                continue;
            }
            if left == 0 {
                log::warn!("{}: not all files were looked at for symbols: there are more than {MOST_FILES}", directory.display());
                return found.into_iter().map(|(id, (_, path))| (id, path)).collect();
            }
            left -= 1;
            let Ok(file) = open(&entry.path()) else { continue };
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            if let Some(id) = host_elf::build_id_of_file(&file)
                && found.get(&id).is_none_or(|(known, _)| *known < bytes)
            {
                found.insert(id, (bytes, entry.path()));
            }
        }
    }
    found.into_iter().map(|(id, (_, path))| (id, path)).collect()
}

/// Opens a file for reading; a FIFO or device does not hold anybody up.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC).open(path)
}
