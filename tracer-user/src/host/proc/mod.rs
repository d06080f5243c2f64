//! What the kernel shows of processes in `/proc`: one reader for each of its formats, and one descriptor for each process.
//!
//! The parsers take bytes and are pure: a process can write what it likes into its name, its environment and the paths of its files.
//! Only this file opens anything. [`Process`] opens the directory of a process once and all of its files through that, so that all of
//! them are of one process: an id that is used again gives an error, not the files of another.

pub mod comm;
pub mod maps;
pub mod mountinfo;
pub mod rollup;
pub mod schedstat;
pub mod stat;
pub mod status;

use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use stat::Stat;
use status::Status;
use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

/// Most bytes read of a file of a few lines.
const MOST_BYTES: u64 = 64 << 10;

/// A process, and no other that gets its id later.
#[derive(Debug)]
pub struct Process {
    tgid: u32,
    /// `O_PATH`: the directory stands for the process as it was when it was opened.
    directory: OwnedFd,
}

/// The kernel's own code page (vDSO), which is the same in every 64-bit process, from this one: its first address and its bytes. `None` where there is
/// none.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own_vdso() -> io::Result<Option<(u64, Vec<u8>)>> {
    let own = Process::own()?;
    let Some(vdso) = own.maps()?.vmas.into_iter().find(|vma| *vma.name == *b"[vdso]") else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(vdso.bytes()).map_err(io::Error::other)?];
    own.open_file("mem")?.read_exact_at(&mut bytes, vdso.start)?;
    Ok(Some((vdso.start, bytes)))
}

impl Process {
    /// The process that has this id now.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn open(tgid: u32) -> io::Result<Process> {
        Process::at(&format!("/proc/{tgid}"), tgid)
    }

    fn at(path: &str, tgid: u32) -> io::Result<Process> {
        let directory = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Process { tgid, directory })
    }

    /// This very process, also where `/proc` is of another pid namespace and shows it under another id.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn own() -> io::Result<Process> {
        Process::at("/proc/self", std::process::id())
    }

    /// Its id, as it was opened by.
    #[must_use]
    pub fn tgid(&self) -> u32 {
        self.tgid
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Opens one of its files for reading, such as `maps` or `task/12/stat`.
    ///
    /// # Errors
    /// `ENOENT` or `ESRCH` when the process is gone, whoever has its id then; `EACCES` or `EPERM` when it is not ours to read.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        Ok(openat(&self.directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Its root directory as an `O_PATH` descriptor, for look-ups below it.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn root(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.directory, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Where one of its links leads, as the kernel says it.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn link(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.directory, path, Vec::new())?.into_bytes())
    }

    /// Reads one of its files, `most` bytes at most.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn read(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Its status.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn status(&self) -> io::Result<Status> {
        Ok(Status::parse(&self.read("status", MOST_BYTES)?))
    }

    /// The status of one of its threads.
    ///
    /// # Errors
    /// As [`Process::open_file`], also when that thread is gone.
    pub fn status_of_thread(&self, tid: u32) -> io::Result<Status> {
        Ok(Status::parse(&self.read(&format!("task/{tid}/status"), MOST_BYTES)?))
    }

    /// Its `stat`.
    ///
    /// # Errors
    /// As [`Process::open_file`], and when it is not understood.
    pub fn stat(&self) -> io::Result<Stat> {
        self.stat_at("stat")
    }

    /// The `stat` of one of its threads.
    ///
    /// # Errors
    /// As [`Process::stat`], also when that thread is gone.
    pub fn stat_of_thread(&self, tid: u32) -> io::Result<Stat> {
        self.stat_at(&format!("task/{tid}/stat"))
    }

    fn stat_at(&self, path: &str) -> io::Result<Stat> {
        Stat::parse(&self.read(path, MOST_BYTES)?).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat is not understood"))
    }

    /// Name of its leader, escaped.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn comm(&self) -> io::Result<String> {
        Ok(comm::text(&self.read("comm", MOST_BYTES)?))
    }

    /// What it has mapped, with the anonymous bytes in each mapping where the kernel tells them (`smaps`).
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn smaps(&self) -> io::Result<maps::Maps> {
        match self.open_file("smaps") {
            Ok(file) => maps::Maps::parse(file),
            // A kernel without CONFIG_PROC_PAGE_MONITOR has no such file.
            Err(_) => self.maps(),
        }
    }

    /// Sums over what it has mapped.
    ///
    /// # Errors
    /// As [`Process::open_file`]; also where the kernel has no such file.
    pub fn rollup(&self) -> io::Result<rollup::Rollup> {
        Ok(rollup::Rollup::parse(&self.read("smaps_rollup", MOST_BYTES)?))
    }

    /// What it has mapped.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn maps(&self) -> io::Result<maps::Maps> {
        maps::Maps::parse(self.open_file("maps")?)
    }

    /// Ids of its threads, `most` of them at most.
    ///
    /// # Errors
    /// As [`Process::open_file`].
    pub fn threads(&self, most: usize) -> io::Result<Vec<u32>> {
        let mut tids = Vec::new();
        for entry in Dir::read_from(openat(&self.directory, "task", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?
        {
            if tids.len() == most {
                break;
            }
            tids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(tids)
    }

    /// User that it belongs to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(rustix::fs::fstat(&self.directory)?.st_uid)
    }

    /// Whether it runs since that moment of the boot clock, in nanoseconds, to a few ticks: with an id that comes from elsewhere it may
    /// be another process.
    #[must_use]
    pub fn began_at(&self, boot_ns: u64) -> bool {
        self.stat().is_ok_and(|stat| stat.began_at(boot_ns))
    }
}

/// Ids of the processes that `/proc` lists.
///
/// # Errors
/// Where `/proc` cannot be listed.
pub fn tgids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Whether the process of that id runs since that moment of the boot clock, in nanoseconds.
#[must_use]
pub fn runs_since(tgid: u32, boot_ns: u64) -> bool {
    Process::open(tgid).is_ok_and(|process| process.began_at(boot_ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn child() -> Child {
        Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
    }

    /// The errors of all that is read through the descriptor.
    fn errors(process: &Process) -> Vec<Option<i32>> {
        let error = |result: Option<io::Error>| result.and_then(|error| error.raw_os_error());
        vec![
            error(process.status().err()),
            error(process.stat().err()),
            error(process.comm().err()),
            error(process.maps().err()),
            error(process.smaps().err()),
            error(process.threads(10).err()),
            error(process.read("environ", 10).err()),
            error(process.open_file("pagemap").err()),
            error(process.open_file("mem").err()),
            error(process.status_of_thread(process.tgid()).err()),
        ]
    }

    fn all_say_gone(errors: &[Option<i32>]) -> bool {
        errors.iter().all(|error| matches!(error, Some(libc::ESRCH | libc::ENOENT)))
    }

    #[test]
    fn this_very_process_is_read() {
        let own = Process::own().unwrap();
        let status = own.status().unwrap();
        assert_eq!((status.tgid, own.tgid()), (Some(std::process::id()), std::process::id()));
        assert!(status.threads.unwrap() >= 1 && status.resident.unwrap() > 0 && status.peak_resident >= status.resident);
        assert!(own.threads(usize::MAX).unwrap().contains(&std::process::id()));
        assert_eq!(own.threads(0).unwrap(), [0; 0]);
        assert_eq!(own.read("maps", 10).unwrap().len(), 10);
        assert!(!own.maps().unwrap().vmas.is_empty() && !own.comm().unwrap().is_empty());
        assert!(tgids().unwrap().any(|tgid| tgid == std::process::id()));
        assert_eq!(Process::open(u32::MAX - 1).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_process_that_ended_is_gone_for_its_descriptor() {
        let mut child = child();
        let process = Process::open(child.id()).unwrap();
        assert_eq!(process.status().unwrap().tgid, Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let errors = errors(&process);
        assert!(all_say_gone(&errors), "{errors:?}");
    }

    /// Gives the id of a child that ended to another, which takes root: the next id is set in /proc/sys/kernel/ns_last_pid.
    #[test]
    #[ignore = "needs root"]
    fn root_a_reused_id_does_not_show_another_process() {
        for _ in 0..100 {
            let mut first = child();
            let tgid = first.id();
            let process = Process::open(tgid).unwrap();
            let began_ns = process.stat().unwrap().boot_ns();
            first.kill().unwrap();
            first.wait().unwrap();
            // The kernel counts start times in ticks.
            std::thread::sleep(std::time::Duration::from_millis(50));
            std::fs::write("/proc/sys/kernel/ns_last_pid", (tgid - 1).to_string()).unwrap();
            let mut second = child();
            let is_reused = second.id() == tgid;
            let (errors, by_number) = (errors(&process), Process::open(tgid).map(|process| process.status()));
            let runs = runs_since(tgid, began_ns);
            second.kill().unwrap();
            second.wait().unwrap();
            if is_reused {
                assert_eq!(by_number.unwrap().unwrap().tgid, Some(tgid), "another process has the id");
                assert!(all_say_gone(&errors), "{errors:?}");
                assert!(!runs, "it began later");
                return;
            }
        }
        panic!("the id was never given again");
    }
}
