//! What is done on threads with deadlines: files are found, opened and read there, so that no file server and no hostile file holds the thread up
//! that fills the tables.

use super::{
    opener,
    rows::{self, Rows, RowsError},
};
use crate::{
    host::{lock, privileges, proc::Process},
    managed::{self, Found, hotspot},
    process::{opener::find_mapped, opener::read_only, sys},
};
use std::{
    cell::Cell,
    collections::HashSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tracer_common::{managed::hotspot::HotSpot, unwind::Miss};

/// Device and inode of files that were listed.
pub type Places = Arc<Mutex<HashSet<(u64, u64)>>>;

/// What a thread is asked for.
#[derive(Clone)]
pub enum Job {
    /// The file of a mapping.
    Mapped(Miss),
    /// The rows of a file that is open.
    Open(Arc<File>),
    /// The interpreters in one.
    Interpreters(Arc<File>),
    /// Both.
    Ahead(Arc<File>),
    /// The files that a program will map.
    Program(PathBuf),
    /// The same of a process that has just begun to execute its program.
    Executed(u32),
    /// The files that a process has mapped, but for those whose place is there.
    Process(u32, Places),
    /// What a JVM says of itself in a process that has its library mapped from that address on.
    Jvm(u32, u64, Arc<File>),
}

/// What it answers.
pub enum Read {
    /// A file of a mapping.
    Mapped(Box<[u8]>, Content),
    /// What a file says of its code.
    Rows(Result<Rows, RowsError>),
    /// The interpreters that it holds.
    Interpreters(Found),
    /// Both.
    Both(Found, Result<Rows, RowsError>),
    /// Files to be read.
    Files(Vec<File>),
    /// What a JVM says.
    Jvm(Result<HotSpot, hotspot::NotKnown>),
    /// It could not be found.
    Gone(io::Error),
}

/// What was found behind a mapping.
pub enum Content {
    /// A file, open.
    File(Arc<File>),
    /// A file in which a program keeps what it writes itself.
    Memory,
    /// What is not to be read.
    Refused,
}

/// The same as [`read`] where nobody waits: the host's own work goes first.
pub fn read_when_idle(job: Job) -> Read {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true)
        && let Err(error) = sys::give_way()
    {
        log::debug!("tables that are made ahead take the host's time: {error}");
    }
    read(job)
}

/// Does one job, on the reading thread.
pub fn read(job: Job) -> Read {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        privileges::keep_only_or_warn(&[privileges::PROCESSES]);
    }
    match job {
        Job::Mapped(miss) => mapped(&miss).unwrap_or_else(Read::Gone),
        Job::Open(file) => Read::Rows(read_rows(&file)),
        Job::Ahead(file) => Read::Both(managed::recognise(&*file), read_rows(&file)),
        Job::Interpreters(file) => {
            let found = managed::recognise(&*file);
            sys::give_memory_back();
            Read::Interpreters(found)
        }
        Job::Program(path) => Read::Files(opener::open_program(&path)),
        Job::Executed(tgid) => Read::Files(opener::open_executed(tgid)),
        Job::Jvm(tgid, start, library) => Read::Jvm(hotspot::ask(tgid, start, &library)),
        Job::Process(tgid, seen) => Read::Files(opener::open_of_process(tgid, &mut lock(&seen))),
    }
}

fn read_rows(file: &File) -> Result<Rows, RowsError> {
    let rows = rows::read(file);
    // What a large file took is not kept for the next.
    sys::give_memory_back();
    rows
}

fn mapped(miss: &Miss) -> io::Result<Read> {
    let found = find_mapped(&Process::open(miss.tgid)?, miss.start, miss.end)?;
    let content = match read_only(&found.file) {
        Ok(file) if is_memory(&found.path) && !is_elf(&file) => Content::Memory,
        Ok(file) => Content::File(Arc::new(file)),
        Err(_) if is_memory(&found.path) => Content::Memory,
        Err(error) => {
            log::debug!("a file with code is not read: {error}");
            Content::Refused
        }
    };
    Ok(Read::Mapped(found.path, content))
}

/// Whether a path is one of memory: what stands there is a process's own making, unless it is a program.
fn is_memory(path: &[u8]) -> bool {
    path.starts_with(b"/memfd:") || path.starts_with(b"/dev/zero")
}

fn is_elf(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_in_memory_is_told_from_programs_there() {
        assert!(is_memory(b"/memfd:doublemapper (deleted)") && is_memory(b"/dev/zero (deleted)") && !is_memory(b"/usr/bin/memfd:"));
        assert!(is_elf(&File::open("/proc/self/exe").expect("this program")));
        assert!(!is_elf(&File::open("/proc/self/maps").expect("a list")));
    }
}
