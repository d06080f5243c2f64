//! What regions need of ELF files: where writable segments end in memory (behind the file's bytes they go on as zeroed anonymous memory),
//! and the addresses of dynamic symbols. Hostile bytes; 64-bit files of this machine only.

use super::PAGE_BYTES;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes of a file's beginning that hold its program headers, in all but strange files.
pub const HEADER_BYTES: usize = PAGE_BYTES as usize;
/// Most program headers looked at.
const MOST_HEADERS: usize = 64;

/// A page-aligned range of addresses.
pub type Range = (u64, u64);

/// The zeroed parts of writable segments, for a 64-bit file of this machine whose beginning is mapped at `start`.
#[must_use]
pub fn zeroed_ranges(header: &[u8], start: u64) -> Vec<Range> {
    parse(header, start).unwrap_or_default()
}

fn parse(header: &[u8], start: u64) -> Option<Vec<Range>> {
    const WRITABLE: u32 = 2;
    let segments = segments(header)?;
    let bias = bias(&segments, start)?;
    let page_end = |address: u64, bytes: u64| bias.wrapping_add(address).checked_add(bytes)?.checked_next_multiple_of(PAGE_BYTES);
    let mut ranges = Vec::new();
    for segment in segments.iter().filter(|segment| segment.flags & WRITABLE != 0) {
        let (file_end, end) = (page_end(segment.address, segment.in_file)?, page_end(segment.address, segment.in_memory)?);
        if end > file_end {
            ranges.push((file_end, end));
        }
    }
    Some(ranges)
}

/// A loaded segment.
#[derive(Clone, Copy, Debug)]
struct Segment {
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

/// From the file's own addresses to those of a process, for a file whose beginning is mapped at `start`: the first segment holds it.
fn bias(segments: &[Segment], start: u64) -> Option<u64> {
    let first = segments.first()?;
    Some(start.wrapping_sub(first.address.wrapping_sub(first.offset)))
}

fn segments(header: &[u8]) -> Option<Vec<Segment>> {
    const PT_LOAD: u32 = 1;
    // Magic, 64-bit, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(header, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(header, 54)?), usize::from(u16_at(header, 56)?).min(MOST_HEADERS));
    let mut segments = Vec::new();
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if size < 56 || at > header.len() || u32_at(header, at)? != PT_LOAD {
            continue;
        }
        segments.push(Segment {
            flags: u32_at(header, at + 4)?,
            offset: u64_at(header, at + 8)?,
            address: u64_at(header, at + 16)?,
            in_file: u64_at(header, at + 32)?,
            in_memory: u64_at(header, at + 40)?,
        });
    }
    Some(segments)
}

/// Most bytes read of a symbol table, and of its names.
const MOST_TABLE_BYTES: u64 = 16 << 20;
/// Most section headers looked at.
const MOST_SECTIONS: u16 = 256;

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
        const SHT_DYNSYM: u32 = 11;
        const SYMBOL_BYTES: usize = 24;
        let header = read_bytes(file, 0, PAGE_BYTES)?;
        let segments = segments(&header)?;
        let (table, size, count) = (u64_at(&header, 40)?, u16_at(&header, 58)?, u16_at(&header, 60)?.min(MOST_SECTIONS));
        let sections = read_bytes(file, table, u64::from(size) * u64::from(count))?;
        let section = |index: usize| sections.get(index.checked_mul(usize::from(size))?..);
        let dynamic = (0..usize::from(count)).filter_map(section).find(|section| u32_at(section, 4) == Some(SHT_DYNSYM))?;
        let names = section(usize::try_from(u32_at(dynamic, 40)?).ok()?)?;
        let table = |section: &[u8]| read_bytes(file, u64_at(section, 24)?, u64_at(section, 32)?);
        let (entries, names) = (table(dynamic)?, table(names)?);
        let symbol = |entry: &[u8]| {
            let name = names.get(usize::try_from(u32_at(entry, 0)?).ok()?..)?;
            let name = &name[..name.iter().position(|&byte| byte == 0)?];
            name.starts_with(prefix).then_some((name.to_vec(), u64_at(entry, 8)?))
        };
        let symbols = entries.chunks_exact(SYMBOL_BYTES).filter_map(symbol).collect();
        Some(Dynamic { segments, symbols })
    }

    /// The file's own address of a symbol.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name.as_bytes()).copied()
    }

    /// What to add to the file's own addresses where its beginning is mapped at `start`.
    #[must_use]
    pub fn bias(&self, start: u64) -> u64 {
        bias(&self.segments, start).unwrap_or(start)
    }

    /// Where in the file an address of its own is.
    #[must_use]
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| address.checked_sub(segment.address).is_some_and(|at| at < segment.in_file))?;
        segment.offset.checked_add(address - segment.address)
    }
}

fn read_bytes(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    if length > MOST_TABLE_BYTES {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
