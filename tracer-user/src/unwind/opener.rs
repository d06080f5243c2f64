//! Opens files whose tables are wanted: that of a mapping, and those that a program is going to map.

use crate::host::{elf::Elf, proc::Process};
use crate::process::{opener, sys};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tracer_common::unwind::Miss;

/// Where libraries are looked for, besides what a program says. A file that is not the one which the loader takes gets a table that nobody
/// uses, and the right one is asked for by the first walk.
const LIBRARIES: [&str; 6] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// Most files of one program that are looked for.
const MOST_FILES: usize = 64;
/// Most bytes that are read of a file to know what it needs.
const MOST_BYTES: u64 = 4 << 20;

/// Opens the file of a mapping while its process lives.
///
/// # Errors
/// The process or its mapping is gone, or it is nothing to be read (see [`opener::read_only`]).
pub fn open_mapped(miss: &Miss) -> io::Result<File> {
    let found = sys::mapped_file(&Process::open(miss.tgid)?, miss.start, miss.end)?;
    Ok(opener::read_only(&found)?.0)
}

/// Opens the program with all that it is going to map at its start: its interpreter and its libraries, as far as they are found.
#[must_use]
pub fn open_program(path: &Path) -> Vec<File> {
    let (mut wanted, mut seen, mut files) = (vec![path.to_owned()], Vec::new(), Vec::new());
    while let Some(path) = wanted.pop() {
        if files.len() >= MOST_FILES || seen.contains(&path) {
            continue;
        }
        let opened = sys::find_on_host(&path).and_then(|found| opener::read_only(&found));
        seen.push(path);
        let Ok((file, _)) = opened else { continue };
        if let Some(interpreter) = interpreter_of_script(&file) {
            wanted.push(interpreter);
        } else if let Ok(elf) = Elf::open(&file, MOST_BYTES)
            && let Ok(needed) = elf.needed()
        {
            let found = needed.libraries.iter().filter_map(|name| library(name));
            wanted.extend(found.chain(needed.interpreter.map(|path| path_of(&path))));
        }
        files.push(file);
    }
    files
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

fn library(name: &[u8]) -> Option<PathBuf> {
    let name = path_of(name);
    if name.is_absolute() {
        return Some(name);
    }
    LIBRARIES.iter().map(|directory| Path::new(directory).join(&name)).find(|path| path.exists())
}
