//! Where functions of a file begin, for what has no symbols. Pure.

use crate::host::elf::{Elf, ElfError, Source};
use object::elf::PT_GNU_EH_FRAME;

/// Where functions and parts of functions begin, sorted: the index of `.eh_frame` (LSB, chapter 10.6.2). None if there is no index, or one of another
/// form than all linkers write.
pub fn described<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Result<Vec<u64>, ElfError> {
    let Some(index) = elf.segments().iter().find(|segment| segment.kind == PT_GNU_EH_FRAME) else { return Ok(Vec::new()) };
    let bytes = elf.bytes(index.offset..index.offset.saturating_add(index.in_file))?;
    // Version 1; a pointer, the number of entries, and entries of two numbers that are relative to the index's beginning.
    if bytes.get(..4) != Some(&[1, 0x1b, 0x03, 0x3b]) {
        return Ok(Vec::new());
    }
    let entries = bytes.get(12..).unwrap_or_default().chunks_exact(8);
    let start = |entry: &[u8]| index.address.wrapping_add_signed(i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]).into());
    let mut starts: Vec<u64> = entries.map(start).collect();
    starts.sort_unstable();
    Ok(starts)
}
