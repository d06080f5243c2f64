//! What regions need of ELF files: where writable segments end in memory (behind the file's bytes they go on as zeroed anonymous memory),
//! and the addresses of dynamic symbols.

use super::PAGE_BYTES;
use crate::host::elf::{Elf, ElfError, Segment, bias};
use object::elf::PF_W;
use std::collections::HashMap;
use std::fs::File;

/// Bytes of a file's beginning that hold its program headers, in all but strange files.
pub const HEADER_BYTES: usize = PAGE_BYTES as usize;
/// Most bytes read of a file for its dynamic symbols.
const MOST_BYTES: u64 = 34 << 20;

/// A page-aligned range of addresses.
pub type Range = (u64, u64);

/// The zeroed parts of writable segments, for a file whose beginning is mapped at `start`.
#[must_use]
pub fn zeroed_ranges(header: &[u8], start: u64) -> Vec<Range> {
    let ranges = || {
        let elf = Elf::open(header, header.len() as u64).ok()?;
        let bias = bias(elf.loaded(), start)?;
        elf.loaded().filter(|segment| segment.flags & PF_W != 0).map(|segment| zeroed(segment, bias)).collect::<Option<Vec<_>>>()
    };
    ranges().unwrap_or_default().into_iter().flatten().collect()
}

/// What a segment has in memory behind what it has in the file, if there is any; `None` if it ends nowhere.
fn zeroed(segment: &Segment, bias: u64) -> Option<Option<Range>> {
    let page_end = |bytes: u64| bias.wrapping_add(segment.address).checked_add(bytes)?.checked_next_multiple_of(PAGE_BYTES);
    let (file_end, end) = (page_end(segment.in_file)?, page_end(segment.in_memory)?);
    Some((end > file_end).then_some((file_end, end)))
}

/// Some dynamic symbols of a file: a library's description of itself.
#[derive(Debug, Default)]
pub struct Dynamic {
    segments: Vec<Segment>,
    symbols: HashMap<Vec<u8>, u64>,
}

impl Dynamic {
    /// Reads those that begin with `prefix`; `None` if the file has no section of dynamic symbols.
    #[must_use]
    pub fn read(file: &File, prefix: &[u8]) -> Option<Dynamic> {
        let read = || -> Result<Option<Dynamic>, ElfError> {
            let elf = Elf::open(file, MOST_BYTES)?;
            let segments = elf.loaded().copied().collect();
            Ok(elf
                .dynamic_symbols(|name| name.starts_with(prefix))?
                .map(|symbols| Dynamic { segments, symbols: symbols.into_iter().map(|symbol| (symbol.name, symbol.address)).collect() }))
        };
        read().unwrap_or_else(|error| {
            log::debug!("a library {error}");
            None
        })
    }

    /// The file's own address of a symbol.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name.as_bytes()).copied()
    }

    /// What to add to the file's own addresses where its beginning is mapped at `start`.
    #[must_use]
    pub fn bias(&self, start: u64) -> u64 {
        bias(self.segments.iter(), start).unwrap_or(start)
    }

    /// Where in the file an address of its own is.
    #[must_use]
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| segment.offset_of(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn file(segments: &[[u64; 5]]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56 * segments.len()];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for (index, [flags, offset, address, in_file, in_memory]) in segments.iter().enumerate() {
            let at = 64 + 56 * index;
            bytes[at..at + 4].copy_from_slice(&1_u32.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&(*flags as u32).to_le_bytes());
            for (place, value) in [(8, offset), (16, address), (32, in_file), (40, in_memory)] {
                bytes[at + place..at + place + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn the_zeroed_part_follows_the_files_bytes() {
        let moved = file(&[[4, 0, 0, 0x500, 0x500], [6, 0x2e00, 0x3e00, 0x300, 0x5400]]);
        assert_eq!(zeroed_ranges(&moved, 0x5500_0000_0000), [(0x5500_0000_5000, 0x5500_0000_a000)]);
        let fixed = file(&[[4, 0, 0x40_0000, 0x500, 0x500], [6, 0x2000, 0x40_2000, 0x1000, 0x3000]]);
        assert_eq!(zeroed_ranges(&fixed, 0x40_0000), [(0x40_3000, 0x40_5000)]);
        assert_eq!(zeroed_ranges(&file(&[[6, 0, 0, 0x500, 0x600]]), 0x1000), []);
    }

    #[test]
    fn hostile_files_are_survived() {
        let whole = file(&[[6, u64::MAX, 7, u64::MAX, u64::MAX], [6, 0, u64::MAX, 1, 2]]);
        for length in 0..whole.len() {
            let _ = zeroed_ranges(&whole[..length], u64::MAX);
            let _ = zeroed_ranges(&whole[..length], 0);
        }
        for length in (0..whole.len()).step_by(7) {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[&whole[..length], &[0xff; 8192]].concat(), 0).unwrap();
            let _ = Dynamic::read(&file, b"");
        }
        let mut wild = whole.clone();
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        wild[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(zeroed_ranges(&wild, 0), []);
    }
}
