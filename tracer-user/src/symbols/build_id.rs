//! Build ids: which build of a file, or of the kernel, an address is in. Reads headers and notes only, within bounds: the file is hostile.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

/// Sizes of an ELF file's head and of a program header (64 bit), and most of the latter.
const HEAD: usize = 64;
const PROGRAM_HEADER: usize = 56;
const MOST_HEADERS: u16 = 256;
/// Longest notes that are looked through, and longest build id, bytes.
const MOST_NOTES: u64 = 1 << 16;
const MOST_ID: usize = 64;
/// PT_NOTE, NT_GNU_BUILD_ID.
const NOTE: u32 = 4;
const BUILD_ID: u32 = 3;

/// That of an ELF file, in hexadecimal digits.
#[must_use]
pub fn of_file(file: &File) -> Option<String> {
    find(|at, length| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    })
}

/// That of the running kernel.
#[must_use]
pub fn of_kernel() -> Option<String> {
    in_notes(&fs::read("/sys/kernel/notes").ok()?, 4)
}

fn find(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<String> {
    let head = read(0, HEAD)?;
    // 64 bit, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") || number(&head, 54, 2)? != PROGRAM_HEADER as u64 {
        return None;
    }
    let (start, count) = (number(&head, 32, 8)?, number(&head, 56, 2)?.min(u64::from(MOST_HEADERS)) as usize);
    let headers = read(start, count * PROGRAM_HEADER)?;
    headers.chunks_exact(PROGRAM_HEADER).filter(|header| number(header, 0, 4) == Some(u64::from(NOTE))).find_map(|header| {
        let (at, length, align) = (number(header, 8, 8)?, number(header, 32, 8)?, number(header, 48, 8)?);
        in_notes(&read(at, length.min(MOST_NOTES) as usize)?, if align == 8 { 8 } else { 4 })
    })
}

/// Notes: length of the name, of the content, a type, then both, each padded.
fn in_notes(mut notes: &[u8], align: usize) -> Option<String> {
    loop {
        let [name, content, kind] = [0, 4, 8].map(|at| number(notes, at, 4));
        let (name_length, length) = (usize::try_from(name?).ok()?, usize::try_from(content?).ok()?);
        let rest = notes.get(12..)?;
        let at = name_length.checked_next_multiple_of(align)?;
        let content = rest.get(at..at.checked_add(length)?)?;
        if kind == Some(u64::from(BUILD_ID)) && rest.get(..name_length) == Some(b"GNU\0") && (1..=MOST_ID).contains(&length) {
            return Some(content.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = rest.get(at.checked_add(length.checked_next_multiple_of(align)?)?..)?;
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let padded = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(4) - bytes.len()]].concat();
        let words = [name.len() as u32, content.len() as u32, kind].map(u32::to_le_bytes).concat();
        [words, padded(name), padded(content)].concat()
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let notes = [note(b"GNU\0", 1, &[1, 2, 3, 4, 5]), note(b"Go\0\0", 3, b"x"), note(b"GNU\0", 3, &[0xab, 0x01, 0xff])].concat();
        assert_eq!(in_notes(&notes, 4).as_deref(), Some("ab01ff"));
        for length in 0..notes.len() - 1 {
            assert_eq!(in_notes(&notes[..length], 4), None, "{length}");
        }
        assert_eq!(in_notes(&note(b"GNU\0", 3, &[0; MOST_ID + 1]), 4), None);
        assert_eq!(in_notes(&[0xff; 40], 4), None);
    }

    #[test]
    fn a_real_library_has_the_one_that_its_name_under_lib_debug_would_have() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("libc.so"))).unwrap();
        let bytes = fs::read(library).unwrap();
        let id = of_file(&File::open(library).unwrap()).unwrap();
        assert_eq!(id.len(), 40);
        let raw: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert!(bytes.windows(36).any(|window| window == [&note(b"GNU\0", 3, &raw)[..]].concat()));
    }

    #[test]
    fn damaged_files_have_none_or_another() {
        let good = fs::read(std::env::current_exe().unwrap()).unwrap();
        let good = &good[..good.len().min(1 << 13)];
        for n in 0..20_000_u64 {
            let mut bytes = good.to_vec();
            let random = tracer_common::mix64(3, n);
            let at = random as usize % 2048.min(bytes.len());
            bytes[at] = (random >> 32) as u8;
            let _ =
                find(|at, length| bytes.get(usize::try_from(at).ok()?..usize::try_from(at).ok()?.checked_add(length)?).map(<[u8]>::to_vec));
        }
    }
}
