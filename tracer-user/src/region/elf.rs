//! Where an ELF file's writable segments end in memory: behind the file's bytes they go on as zeroed anonymous memory. Pure.

use super::PAGE_BYTES;

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
    const PT_LOAD: u32 = 1;
    const WRITABLE: u32 = 2;
    // Magic, 64-bit, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let short = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let table = usize::try_from(long(32)?).ok()?;
    let (size, count) = (usize::from(short(54)?), usize::from(short(56)?).min(MOST_HEADERS));
    let mut bias = None;
    let mut ranges = Vec::new();
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if size < 56 || at > header.len() || word(at)? != PT_LOAD {
            continue;
        }
        let (flags, offset, address, in_file, in_memory) = (word(at + 4)?, long(at + 8)?, long(at + 16)?, long(at + 32)?, long(at + 40)?);
        // The first segment is where the file's beginning is.
        let bias = *bias.get_or_insert(start.wrapping_sub(address.wrapping_sub(offset)));
        let file_end = bias.wrapping_add(address).checked_add(in_file)?.checked_next_multiple_of(PAGE_BYTES)?;
        let end = bias.wrapping_add(address).checked_add(in_memory)?.checked_next_multiple_of(PAGE_BYTES)?;
        if flags & WRITABLE != 0 && end > file_end {
            ranges.push((file_end, end));
        }
    }
    Some(ranges)
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
        let mut wild = whole.clone();
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        wild[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(zeroed_ranges(&wild, 0), []);
    }
}
