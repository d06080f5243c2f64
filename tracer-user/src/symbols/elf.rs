//! Symbols of one opened file, by file offset. Works on a copy (see [`super::elf_guard`]) and never fails: what cannot be read is
//! `None`, with a count of why.

use super::stack::{AFTER_BYTES, BEFORE_BYTES};
use super::{Frame, FrameKind, demangle, elf_guard, elf_guard::Refusal, mini_debug};
use crate::host::{elf as host_elf, pclntab::Pclntab};
use crate::process::sys;
use crate::process::{FileVersion, OpenFile};
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Bytes of a file that are read for names besides its symbols: Kubernetes' largest Go program has 30 MB of them.
const MOST_BESIDES: u64 = 64 << 20;
/// Functions shown for one address, inlined ones included.
const MAX_INLINED: usize = 32;

/// How symbols are read.
#[derive(Clone, Debug)]
pub struct ElfOptions {
    /// Use DWARF for inlined functions.
    pub debug: bool,
    /// Where separate debug files are looked for.
    pub debug_directories: Vec<PathBuf>,
}

/// Why a file gave no symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It could not be copied.
    #[error("cannot be read")]
    Unreadable,
    /// It did not pass [`elf_guard`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The parser failed.
    #[error("cannot be parsed")]
    Malformed,
    /// The parser panicked.
    #[error("made the parser panic")]
    Panicked,
}

/// The functions at file offsets, innermost first; `None` where there is none.
pub fn functions(open: &OpenFile, offsets: &[u64], options: &ElfOptions) -> Result<Vec<Option<Vec<Frame>>>, ElfError> {
    let is_as_it_was = |version: FileVersion| FileVersion::of(&open.file).is_ok_and(|now| now == version);
    if !open.version.is_none_or(is_as_it_was) {
        return Err(ElfError::Refused(Refusal::Changed));
    }
    let (copy, debug) = copy(&open.file)?;
    let debug = debug && options.debug;
    let attempt = |debug| guarded(|| symbolize(&copy, Input::FileOffset(offsets), debug, &options.debug_directories));
    let mut functions = match attempt(debug) {
        // A debug link to a file of another build fails as a whole; the file's own symbols are still good.
        Err(ElfError::Malformed) if debug => attempt(false),
        result => result,
    }?;
    if functions.iter().any(Option::is_none)
        && let Ok(elf) = host_elf::Elf::open(&*open.file, MOST_BESIDES)
    {
        let addresses: Vec<Option<u64>> = offsets.iter().map(|offset| elf.address_of(*offset)).collect();
        go_functions(&elf, &addresses, &mut functions);
        if functions.iter().any(Option::is_none) {
            mini_debug_functions(&elf, &addresses, &mut functions);
        }
    }
    Ok(functions)
}

/// The functions at a debug file's own addresses, innermost first; `None` where there is none.
pub fn functions_at(file: &File, addresses: &[u64], directories: &[PathBuf]) -> Result<Vec<Option<Vec<Frame>>>, ElfError> {
    let (copy, debug) = copy(file)?;
    let attempt = |debug| guarded(|| symbolize(&copy, Input::VirtOffset(addresses), debug, directories));
    match attempt(debug) {
        Err(ElfError::Malformed) if debug => attempt(false),
        result => result,
    }
}

/// A panic in a parser that met a hostile file must cost this file, not the trace. Nothing of the parser outlives the call, so that no broken
/// state can be seen.
fn guarded<T>(parse: impl FnOnce() -> Result<T, ElfError>) -> Result<T, ElfError> {
    catch_unwind(AssertUnwindSafe(parse)).map_err(|_| ElfError::Panicked)?
}

/// Names what has no symbol by the packed symbols of a stripped file.
fn mini_debug_functions(elf: &host_elf::Elf<'_, File>, addresses: &[Option<u64>], functions: &mut [Option<Vec<Frame>>]) {
    let Some(unpacked) = guarded(|| Ok(mini_debug::unpack(elf))).ok().flatten() else { return };
    // Those without an address are in no function, as address 0.
    let addresses: Vec<u64> = addresses.iter().map(|address| address.unwrap_or(0)).collect();
    let found = copy(&unpacked).and_then(|(copy, _)| guarded(|| symbolize(&copy, Input::VirtOffset(&addresses), false, &[])));
    match found {
        Ok(found) => {
            functions.iter_mut().zip(found).filter(|(function, _)| function.is_none()).for_each(|(function, found)| *function = found)
        }
        Err(error) => log::debug!("symbols: .gnu_debugdata {error}"),
    }
}

/// Names what has no symbol by the table that Go programs carry, stripped ones too.
fn go_functions(elf: &host_elf::Elf<'_, File>, addresses: &[Option<u64>], functions: &mut [Option<Vec<Frame>>]) {
    let Ok(Some(table)) = Pclntab::of(elf) else { return };
    for (address, function) in addresses.iter().zip(functions).filter(|(_, function)| function.is_none()) {
        let found = address.and_then(|address| table.at(address));
        *function = found.and_then(|found| table.name(&found)).map(|name| vec![Frame::new(FrameKind::User, &name)]);
    }
}

/// An anonymous copy of the file's tables, and whether its debug information may be used.
fn copy(file: &File) -> Result<(File, bool), ElfError> {
    let plan = elf_guard::plan(file)?;
    let name = CString::new("memtrail-symbols").map_err(|_| ElfError::Unreadable)?;
    let copy = sys::memory_file(&name).map_err(|_| ElfError::Unreadable)?;
    for range in &plan.ranges {
        copy_range(file, &copy, range.clone()).map_err(|_| ElfError::Unreadable)?;
    }
    // The parser wants every offset in a header to lie in the file, also those of what was not copied.
    let size = file.metadata().map_err(|_| ElfError::Unreadable)?.len();
    let length = copy.metadata().map_err(|_| ElfError::Unreadable)?.len();
    copy.set_len(size.max(length)).map_err(|_| ElfError::Unreadable)?;
    // The file may have changed between the look and the copy: what counts is what the copy says.
    if elf_guard::plan(&copy)? != plan {
        return Err(ElfError::Refused(Refusal::Changed));
    }
    let shallow = || {
        let read = |range: &Range<u64>| {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
            copy.read_exact_at(&mut bytes, range.start).ok().map(|()| bytes)
        };
        let [info, abbreviations] = plan.dwarf.each_ref().map(|range| read(range).unwrap_or_default());
        elf_guard::dwarf_is_shallow(&info, &abbreviations)
    };
    let debug = plan.no_debug.is_none() && shallow();
    Ok((copy, debug))
}

fn copy_range(from: &File, to: &File, range: Range<u64>) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        let part = (range.end - at).min(bytes.len() as u64);
        let part = bytes.get_mut(..part as usize).unwrap_or_default();
        from.read_exact_at(part, at)?;
        to.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

fn symbolize(copy: &File, input: Input<&[u64]>, debug: bool, directories: &[PathBuf]) -> Result<Vec<Option<Vec<Frame>>>, ElfError> {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(debug)
        .enable_inlined_fns(debug)
        .enable_demangling(false)
        .set_debug_dirs(Some(directories))
        .build();
    let mut elf = Elf::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
    elf.debug_syms = debug;
    let symbols = symbolizer.symbolize(&Source::Elf(elf), input).map_err(|error| {
        log::debug!("symbols: {error}");
        ElfError::Malformed
    })?;
    Ok(symbols.into_iter().map(frames).collect())
}

fn frames(symbolized: Symbolized<'_>) -> Option<Vec<Frame>> {
    let Symbolized::Sym(symbol) = symbolized else { return None };
    let inlined = symbol.inlined.iter().take(MAX_INLINED).map(|f| Frame::new(FrameKind::Inlined, &demangle::demangle(&f.name)));
    let mut frames: Vec<Frame> = std::iter::once(Frame::new(FrameKind::User, &demangle::demangle(&symbol.name))).chain(inlined).collect();
    frames.reverse();
    Some(frames)
}

/// The bytes before a return address and from it on.
pub fn code_around(open: &OpenFile, offset: u64) -> Option<([u8; BEFORE_BYTES], [u8; AFTER_BYTES])> {
    let (mut before, mut after) = ([0; BEFORE_BYTES], [0; AFTER_BYTES]);
    open.file.read_exact_at(&mut before, offset.checked_sub(BEFORE_BYTES as u64)?).ok()?;
    open.file.read_exact_at(&mut after, offset).ok()?;
    Some((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that this thread has written so far.
    fn written() -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
    }

    /// The bytes that the copy of a sparse file of 5 GB takes, and what was said of it.
    fn copied(head: &[u8], at: &[(u64, &[u8])]) -> (u64, Result<bool, ElfError>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(5 << 30).unwrap();
        for (at, bytes) in std::iter::once((0, head)).chain(at.iter().copied()) {
            file.write_all_at(bytes, at).unwrap();
        }
        let before = written();
        let outcome = copy(&file);
        (written() - before, outcome.map(|(_, debug)| debug))
    }

    #[test]
    fn a_sparse_file_of_gigabytes_is_copied_within_bounds() {
        let head = |program_headers: [u8; 4], sections: u8| {
            let mut head = [0; 64];
            head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
            (head[0x20], head[0x29]) = (64, if sections == 0 { 0 } else { 0x80 });
            head[0x36..0x3a].copy_from_slice(&program_headers);
            head[0x3a..0x40].copy_from_slice(&[64, 0, sections, 0, 1, 0]);
            head
        };
        let (bytes, outcome) = copied(&head([0xff; 4], 0), &[]);
        assert!(bytes == 0 && outcome.is_err(), "{bytes} {outcome:?}");
        // Symbol tables over each other that have nearly all that one file may have, and two more of them.
        let section = |kind: u8, length: u64| {
            let mut section = [0; 64];
            (section[4], section[0x19]) = (kind, 0x10);
            section[0x20..0x28].copy_from_slice(&length.to_le_bytes());
            section
        };
        let names = section(3, 4096);
        for (tables, passes) in [(1, true), (3, false)] {
            let sections = [vec![section(0, 0), names], vec![section(2, 100 << 20); tables]].concat().concat();
            let (bytes, outcome) = copied(&head([56, 0, 0, 0], 2 + tables as u8), &[(0x8000, &sections)]);
            assert_eq!(outcome.is_ok(), passes, "{outcome:?}");
            assert!(bytes <= elf_guard::MAX_BYTES && (bytes > 100 << 20) == passes, "{bytes}");
        }
    }
}
