//! Opens files whose tables are wanted: that of a mapping, and those that a program is going to map.

use crate::host::{elf::Elf, proc::Process};
use crate::process::{opener, sys};
use rustix::fs::OFlags;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Where libraries are looked for, besides what a program says. A file that is not the one which the loader takes gets a table that nobody
/// uses, and the right one is asked for by the first walk.
const LIBRARIES: [&str; 6] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// Most files of one program that are looked for.
const MOST_FILES: usize = 64;
/// Places that are remembered while the files of processes are listed.
const MOST_PLACES: usize = 16_384;
/// Most bytes that are read of a file to know what it needs.
const MOST_BYTES: u64 = 4 << 20;

/// The files of a process with code, without those whose place (device and inode) was `seen`.
pub fn open_of_process(tgid: u32, seen: &mut HashSet<(u64, u64)>) -> Vec<File> {
    let Ok(process) = Process::open(tgid) else { return Vec::new() };
    let Ok(maps) = process.maps() else { return Vec::new() };
    let with_code = maps.vmas.iter().filter(|vma| vma.execute && vma.inode != 0);
    let new = with_code.filter(|vma| seen.len() < MOST_PLACES && seen.insert((vma.device, vma.inode)));
    new.take(MOST_FILES).filter_map(|vma| opener::open_mapped(&process, vma.start, vma.end).ok()).collect()
}

/// Opens the program with all that it is going to map at its start: its interpreter and its libraries, as far as they are found.
#[must_use]
pub fn open_program(path: &Path) -> Vec<File> {
    with_libraries(None, vec![path.to_owned()], &|path| sys::find_on_host(path))
}

/// The same of a process that has just begun to execute its program: libraries are looked for in its root.
#[must_use]
pub fn open_executed(tgid: u32) -> Vec<File> {
    let program = || -> io::Result<(File, OwnedFd)> {
        let process = Process::open(tgid)?;
        let program = opener::read_only(&sys::program(&process)?)?;
        Ok((program, process.root()?))
    };
    let Ok((program, root)) = program() else { return Vec::new() };
    let look = |path: &Path| sys::find_in_root(root.as_fd(), path.as_os_str().as_bytes(), OFlags::empty());
    with_libraries(Some(program), Vec::new(), &look)
}

/// The program, what is wanted besides, and what these need.
fn with_libraries(program: Option<File>, mut wanted: Vec<PathBuf>, look: &dyn Fn(&Path) -> io::Result<OwnedFd>) -> Vec<File> {
    let (mut seen, mut files, mut next) = (Vec::new(), Vec::new(), program);
    loop {
        let file = match next.take() {
            Some(file) => file,
            None => {
                let Some(path) = wanted.pop() else { return files };
                if files.len() >= MOST_FILES || seen.contains(&path) {
                    continue;
                }
                let opened = look(&path).and_then(|found| opener::read_only(&found));
                seen.push(path);
                let Ok(file) = opened else { continue };
                file
            }
        };
        if let Some(interpreter) = interpreter_of_script(&file) {
            wanted.push(interpreter);
        } else if let Ok(elf) = Elf::open(&file, MOST_BYTES)
            && let Ok(needed) = elf.needed()
        {
            let found = needed.libraries.iter().filter_map(|name| library(name, look));
            wanted.extend(found.chain(needed.interpreter.map(|path| path_of(&path))));
        }
        files.push(file);
    }
}

/// The program that runs a script.
fn interpreter_of_script(file: &File) -> Option<PathBuf> {
    // As much of the first line as the kernel looks at (include/linux/binfmts.h, BINPRM_BUF_SIZE).
    let mut line = [0; 256];
    let length = file.read_at(&mut line, 0).ok()?;
    let line = line[..length].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let path = line.trim_ascii().split(u8::is_ascii_whitespace).next().filter(|path| path.starts_with(b"/"))?;
    Some(path_of(path))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    std::ffi::OsStr::from_bytes(bytes).into()
}

fn library(name: &[u8], look: &dyn Fn(&Path) -> io::Result<OwnedFd>) -> Option<PathBuf> {
    let name = path_of(name);
    if name.is_absolute() {
        return Some(name);
    }
    LIBRARIES.iter().map(|directory| Path::new(directory).join(&name)).find(|path| look(path).is_ok())
}
