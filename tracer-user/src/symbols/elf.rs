//! Symbols of one opened file, by file offset. Works on a copy (see [`super::elf_guard`]) and never fails: what cannot be read is
//! `None`, with a count of why.

use super::stack::{AFTER_BYTES, BEFORE_BYTES};
use super::{Frame, FrameKind, demangle, elf_guard};
use crate::process::OpenFile;
use crate::process::sys;
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

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
    #[error("{0}")]
    Refused(&'static str),
    /// The parser failed.
    #[error("cannot be parsed")]
    Malformed,
    /// The parser panicked.
    #[error("made the parser panic")]
    Panicked,
}

/// The functions at file offsets, innermost first; `None` where there is none.
pub fn functions(open: &OpenFile, offsets: &[u64], options: &ElfOptions) -> Result<Vec<Option<Vec<Frame>>>, ElfError> {
    let (copy, debug) = copy(&open.file)?;
    let debug = debug && options.debug;
    // A panic in a parser that met a hostile file must cost this file, not the trace. Nothing of the parser outlives the call, so
    // that no broken state can be seen.
    let attempt = |debug| {
        catch_unwind(AssertUnwindSafe(|| symbolize(&copy, offsets, debug, &options.debug_directories))).map_err(|_| ElfError::Panicked)?
    };
    match attempt(debug) {
        // A debug link to a file of another build fails as a whole; the file's own symbols are still good.
        Err(ElfError::Malformed) if debug => attempt(false),
        result => result,
    }
}

/// An anonymous copy of the file's tables, and whether its debug information may be used.
fn copy(file: &File) -> Result<(File, bool), ElfError> {
    let plan = elf_guard::plan(|at, length| read(file, at, length)).map_err(ElfError::Refused)?;
    let name = CString::new("memtrail-symbols").map_err(|_| ElfError::Unreadable)?;
    let copy = sys::memory_file(&name).map_err(|_| ElfError::Unreadable)?;
    for range in &plan.ranges {
        copy_range(file, &copy, range.clone()).ok_or(ElfError::Unreadable)?;
    }
    // The parser wants every offset in a header to lie in the file, also those of what was not copied.
    let size = file.metadata().map_err(|_| ElfError::Unreadable)?.len();
    let length = copy.metadata().map_err(|_| ElfError::Unreadable)?.len();
    copy.set_len(size.max(length)).map_err(|_| ElfError::Unreadable)?;
    // The file may have changed between the look and the copy: what counts is what the copy says.
    let again = elf_guard::plan(|at, length| read(&copy, at, length)).map_err(ElfError::Refused)?;
    if again != plan {
        return Err(ElfError::Refused("changed while it was read"));
    }
    let shallow = || {
        let [info, abbreviations] = plan.dwarf.clone().map(|range| read(&copy, range.start, range.end - range.start).unwrap_or_default());
        elf_guard::dwarf_is_shallow(&info, &abbreviations)
    };
    let debug = plan.no_debug.is_none() && shallow();
    Ok((copy, debug))
}

fn read(file: &File, at: u64, length: u64) -> Option<Vec<u8>> {
    // Asked before memory is taken: a header can claim any length.
    let size = file.metadata().ok()?.len();
    if at.checked_add(length)? > size {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn copy_range(from: &File, to: &File, range: std::ops::Range<u64>) -> Option<()> {
    let mut at = range.start;
    while at < range.end {
        let bytes = read(from, at, (range.end - at).min(1 << 20))?;
        to.write_all_at(&bytes, at).ok()?;
        at += bytes.len() as u64;
    }
    Some(())
}

fn symbolize(copy: &File, offsets: &[u64], debug: bool, directories: &[PathBuf]) -> Result<Vec<Option<Vec<Frame>>>, ElfError> {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(debug)
        .enable_inlined_fns(debug)
        .enable_demangling(false)
        .set_debug_dirs(Some(directories))
        .build();
    let mut elf = Elf::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
    elf.debug_syms = debug;
    let symbols = symbolizer.symbolize(&Source::Elf(elf), Input::FileOffset(offsets)).map_err(|error| {
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
