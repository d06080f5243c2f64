//! The symbols that Fedora and Red Hat leave in stripped files: `.gnu_debugdata`, a small ELF file packed by xz (GDB's manual, "MiniDebugInfo").
//!
//! What is unpacked is bounded by what comes out, not by what went in: a thousandth of it can be enough.

use crate::host::elf::Elf;
use crate::process::sys;
use lzma_rust2::XzReader;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};

/// Its section.
const SECTION: &[u8] = b".gnu_debugdata";
/// Most bytes of the section: that of Fedora's largest library has three million.
const MOST_PACKED: u64 = 8 << 20;
/// Most bytes that it is unpacked to.
const MOST_UNPACKED: u64 = 64 << 20;
/// Most memory of the unpacking itself, KiB: xz's own presets need up to 65 MiB, and that of the distributions 9.
const MOST_WORKING_KIB: u32 = 70 << 10;

/// The file in it, as a file in memory; `None` if there is none, or none that can be used.
pub fn unpack(elf: &Elf<'_, File>) -> Option<File> {
    let section = elf.sections().ok()?.into_iter().find(|section| section.name == SECTION)?;
    if section.range.end - section.range.start > MOST_PACKED {
        return None;
    }
    let packed = elf.bytes(section.range).ok()?;
    match unpacked(&packed) {
        Ok(unpacked) => Some(unpacked),
        Err(error) => {
            log::debug!("symbols: .gnu_debugdata: {error}");
            None
        }
    }
}

fn unpacked(packed: &[u8]) -> io::Result<File> {
    let mut memory = sys::memory_file(&CString::new("memtrail-symbols")?)?;
    // One more, by which too many are known.
    let mut reader = XzReader::new_mem_limit(packed, false, MOST_WORKING_KIB).take(MOST_UNPACKED + 1);
    if io::copy(&mut reader, &mut memory)? > MOST_UNPACKED {
        return Err(io::Error::other("is too large unpacked"));
    }
    Ok(memory)
}
