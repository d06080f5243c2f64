//! The one reader of ELF files: headers, notes, and the dynamic symbols by which a library describes itself. The layouts come from the
//! `object` crate; the bounds are ours, since every file of a traced process is hostile: no table is longer than a program has use for, and
//! all bytes that are read or claimed of one file together stay below a number that the caller names. Nothing is mapped, nothing panics.
//!
//! Never here: what a file is used for (see [`crate::symbols`] and [`crate::region`]).

use object::{
    LittleEndian,
    elf::{
        DT_NEEDED, DT_STRSZ, DT_STRTAB, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAG, FileHeader32, FileHeader64, NT_GNU_BUILD_ID,
        PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, SHT_DYNSYM, SHT_NOBITS,
    },
    pod,
    read::elf::{FileHeader, NoteIterator, ProgramHeader as _, SectionHeader as _, Sym as _},
};
use std::{cell::Cell, fs::File, io, ops::Range, os::unix::fs::FileExt as _};

/// Most program headers of a file. The linkers write some dozen.
pub const MOST_PROGRAM_HEADERS: u16 = 256;
/// Most section headers of a file. Zero and 0xffff stand for numbers kept elsewhere, in files of more than 65,279 sections: no program is one.
pub const MOST_SECTIONS: u16 = 4096;
/// Longest name of a symbol that is looked for, and most of these.
const MOST_SYMBOL_NAME: usize = 256;
const MOST_SYMBOLS: usize = 8192;
/// Most bytes that are read of the names of sections.
const MOST_SECTION_NAMES: u64 = 1 << 20;
/// Most libraries that a program is believed to need.
const MOST_NEEDED: usize = 256;
/// Longest notes that are looked through, bytes.
const MOST_NOTES: u64 = 1 << 16;
/// Longest build id, bytes.
const MOST_ID: usize = 64;
/// Most bytes of a file that are read for its build id.
const MOST_FOR_ID: u64 = 1 << 20;

type Head32 = FileHeader32<LittleEndian>;
type Head64 = FileHeader64<LittleEndian>;

/// What is wrong with a file; the words follow its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Shorter than the first header.
    #[error("is too short for an ELF file")]
    TooShort,
    /// Another format, or another byte order.
    #[error("is not a little-endian ELF file")]
    Foreign,
    /// A table of program headers that no program has.
    #[error("claims {count} program headers of {bytes} bytes, where at most {MOST_PROGRAM_HEADERS} of {expected} are read")]
    ProgramHeaders {
        /// `e_phnum`.
        count: u16,
        /// `e_phentsize`.
        bytes: u16,
        /// The size that its class has.
        expected: u16,
    },
    /// A table of sections that no program has.
    #[error("claims {count} section headers of {bytes} bytes, where 1 to {MOST_SECTIONS} of {expected} are read")]
    SectionHeaders {
        /// `e_shnum`.
        count: u16,
        /// `e_shentsize`.
        bytes: u16,
        /// The size that its class has.
        expected: u16,
    },
    /// A section without a name, or no names at all.
    #[error("has sections whose names are not in it")]
    SectionNames,
    /// A range that the file does not have.
    #[error("names {length} bytes at {start:#x}, which are behind its end")]
    Beyond {
        /// Offset of its first byte.
        start: u64,
        /// Its bytes.
        length: u64,
    },
    /// The system's refusal.
    #[error("cannot be read at {0:#x}")]
    Unreadable(u64),
    /// More than the caller wants to read of one file.
    #[error("wants more than {0} bytes to be read")]
    TooMuch(u64),
}

/// Bytes by their offset.
pub trait Source {
    /// How many there are.
    ///
    /// # Errors
    /// The system's.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer from an offset on.
    ///
    /// # Errors
    /// The system's, and an end that comes too early.
    fn read_exactly(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exactly(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }
}

impl Source for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exactly(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let found = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A part of the file that is mapped into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `PT_LOAD`, `PT_NOTE`, ...
    pub kind: u32,
    /// `PF_W`, ...
    pub flags: u32,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file's own address of its beginning.
    pub address: u64,
    /// Bytes that it has in the file.
    pub in_file: u64,
    /// Bytes that it has in memory.
    pub in_memory: u64,
    /// Alignment, bytes.
    pub align: u64,
}

impl Segment {
    /// Where in the file the byte at an address of the file's own is; `None` if it is not in what this segment has there.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let at = address.wrapping_sub(self.address);
        if at < self.in_file { self.offset.checked_add(at) } else { None }
    }
}

/// A part of the file that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, hostile bytes.
    pub name: Vec<u8>,
    /// `SHT_SYMTAB`, ...
    pub kind: u32,
    /// `SHF_COMPRESSED`, ...
    pub flags: u64,
    /// Where in the file it is; empty for one that has no bytes there, as .bss.
    pub range: Range<u64>,
    /// The section that belongs to it.
    link: u32,
}

/// What a program needs besides itself. Hostile bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// The path of its dynamic linker.
    pub interpreter: Option<Vec<u8>>,
    /// Names or paths of libraries.
    pub libraries: Vec<Vec<u8>>,
}

/// A symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, hostile bytes.
    pub name: Vec<u8>,
    /// The file's own address of it; 0 if it is in another file.
    pub address: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A table in the file.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: u64,
    count: u16,
    entry: u16,
}

impl Table {
    fn range(self) -> Result<Range<u64>, ElfError> {
        let length = u64::from(self.count) * u64::from(self.entry);
        let end = self.at.checked_add(length).ok_or(ElfError::Beyond { start: self.at, length })?;
        Ok(self.at..end)
    }
}

/// What the first header says.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: u64,
    program_headers: Table,
    section_headers: Table,
    names: u16,
}

/// An ELF file whose program headers have been read.
pub struct Elf<'s, S: ?Sized> {
    source: &'s S,
    length: u64,
    /// Bytes that may be read at all, and how many of them are left.
    most: u64,
    left: Cell<u64>,
    is_64: bool,
    head: Head,
    segments: Vec<Segment>,
}

impl<'s, S: Source + ?Sized> Elf<'s, S> {
    /// Reads the first header and the program headers. From here on at most `most` bytes are read or claimed.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(source: &'s S, most: u64) -> Result<Elf<'s, S>, ElfError> {
        let length = source.length().map_err(|_| ElfError::Unreadable(0))?;
        let mut ident = [0; 16];
        if length < size_of::<Head32>() as u64 {
            return Err(ElfError::TooShort);
        }
        source.read_exactly(&mut ident, 0).map_err(|_| ElfError::Unreadable(0))?;
        if ident[..4] != ELFMAG || ident[5] != ELFDATA2LSB || ![ELFCLASS32, ELFCLASS64].contains(&ident[4]) {
            return Err(ElfError::Foreign);
        }
        let is_64 = ident[4] == ELFCLASS64;
        let nothing = Table { at: 0, count: 0, entry: 0 };
        let head = Head { bytes: 0, program_headers: nothing, section_headers: nothing, names: 0 };
        let mut elf = Elf { source, length, most, left: Cell::new(most), is_64, head, segments: Vec::new() };
        (elf.head, elf.segments) = if is_64 { elf.read_head::<Head64>()? } else { elf.read_head::<Head32>()? };
        Ok(elf)
    }

    fn read_head<H: FileHeader<Endian = LittleEndian>>(&self) -> Result<(Head, Vec<Segment>), ElfError> {
        let bytes = size_of::<H>() as u64;
        if self.length < bytes {
            return Err(ElfError::TooShort);
        }
        let read = self.bytes(0..bytes)?;
        let (head, _) = pod::from_bytes::<H>(&read).map_err(|()| ElfError::TooShort)?;
        let table = |at: H::Word, count, entry| Table { at: at.into(), count, entry };
        let program_headers = table(head.e_phoff(LittleEndian), head.e_phnum(LittleEndian), head.e_phentsize(LittleEndian));
        let section_headers = table(head.e_shoff(LittleEndian), head.e_shnum(LittleEndian), head.e_shentsize(LittleEndian));
        let head = Head { bytes, program_headers, section_headers, names: head.e_shstrndx(LittleEndian) };
        // The size of no header at all means nothing.
        if program_headers.count == 0 {
            return Ok((head, Vec::new()));
        }
        let expected = size_of::<H::ProgramHeader>() as u16;
        if program_headers.entry != expected || program_headers.count > MOST_PROGRAM_HEADERS {
            return Err(ElfError::ProgramHeaders { count: program_headers.count, bytes: program_headers.entry, expected });
        }
        let read = self.bytes(program_headers.range()?)?;
        let (headers, _) =
            pod::slice_from_bytes::<H::ProgramHeader>(&read, program_headers.count.into()).map_err(|()| ElfError::TooShort)?;
        let segment = |header: &H::ProgramHeader| Segment {
            kind: header.p_type(LittleEndian),
            flags: header.p_flags(LittleEndian),
            offset: header.p_offset(LittleEndian).into(),
            address: header.p_vaddr(LittleEndian).into(),
            in_file: header.p_filesz(LittleEndian).into(),
            in_memory: header.p_memsz(LittleEndian).into(),
            align: header.p_align(LittleEndian).into(),
        };
        Ok((head, headers.iter().map(segment).collect()))
    }

    /// Whether it is of the 64-bit class.
    #[must_use]
    pub fn is_64(&self) -> bool {
        self.is_64
    }

    /// All program headers.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Those that are loaded.
    pub fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD)
    }

    /// The address at which a byte of the file is loaded, by its offset.
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let segment = self.loaded().find(|segment| offset.wrapping_sub(segment.offset) < segment.in_file)?;
        Some(offset - segment.offset + segment.address)
    }

    /// Where in the file the byte at an address is.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        self.loaded().find_map(|segment| segment.offset_of(address))
    }

    /// Where its headers are.
    ///
    /// # Errors
    /// They are behind its end, or more than is read.
    pub fn headers(&self) -> Result<Vec<Range<u64>>, ElfError> {
        let tables = [self.head.program_headers, self.head.section_headers].into_iter().filter(|table| table.count != 0);
        let ranges = std::iter::once(Ok(0..self.head.bytes)).chain(tables.map(Table::range));
        ranges.map(|range| range.and_then(|range| self.claim(range))).collect()
    }

    /// Its sections in their order; the first one stands for nothing. None at all are fine, strange ones are not.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn sections(&self) -> Result<Vec<Section>, ElfError> {
        if self.is_64 { self.read_sections::<Head64>() } else { self.read_sections::<Head32>() }
    }

    fn read_sections<H: FileHeader<Endian = LittleEndian>>(&self) -> Result<Vec<Section>, ElfError> {
        let table = self.head.section_headers;
        if table.at == 0 && table.count == 0 {
            return Ok(Vec::new());
        }
        let expected = size_of::<H::SectionHeader>() as u16;
        if table.entry != expected || table.count == 0 || table.count > MOST_SECTIONS {
            return Err(ElfError::SectionHeaders { count: table.count, bytes: table.entry, expected });
        }
        let read = self.bytes(table.range()?)?;
        let (headers, _) = pod::slice_from_bytes::<H::SectionHeader>(&read, table.count.into()).map_err(|()| ElfError::TooShort)?;
        let range = |header: &H::SectionHeader| {
            if header.sh_type(LittleEndian) == SHT_NOBITS {
                return Ok(0..0);
            }
            let (start, length) = (header.sh_offset(LittleEndian).into(), header.sh_size(LittleEndian).into());
            Ok(start..start.checked_add(length).ok_or(ElfError::Beyond { start, length })?)
        };
        let names = range(headers.get(usize::from(self.head.names)).ok_or(ElfError::SectionNames)?)?;
        let names = self.bytes(names.start..names.end.min(names.start.saturating_add(MOST_SECTION_NAMES)))?;
        let section = |header: &H::SectionHeader| {
            let name = usize::try_from(header.sh_name(LittleEndian)).ok().and_then(|at| names.get(at..)).and_then(until_zero);
            Ok(Section {
                name: name.ok_or(ElfError::SectionNames)?.to_vec(),
                kind: header.sh_type(LittleEndian),
                flags: header.sh_flags(LittleEndian).into(),
                range: range(header)?,
                link: header.sh_link(LittleEndian),
            })
        };
        headers.iter().map(section).collect()
    }

    /// Some of its bytes, of which a header says where they are.
    ///
    /// # Errors
    /// It does not have them, or they are more than is read.
    pub fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>, ElfError> {
        let start = range.start;
        let range = self.claim(range)?;
        // Memory is taken only for bytes that are there: a header can claim any length.
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| ElfError::TooMuch(self.most))?];
        self.source.read_exactly(&mut bytes, start).map_err(|_| ElfError::Unreadable(start))?;
        Ok(bytes)
    }

    /// Counts a range as read, for a caller that copies it.
    ///
    /// # Errors
    /// The file does not have it, or it is more than is read.
    pub fn claim(&self, range: Range<u64>) -> Result<Range<u64>, ElfError> {
        let length = range.end.saturating_sub(range.start);
        if range.start.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(ElfError::Beyond { start: range.start, length });
        }
        self.left.set(self.left.get().checked_sub(length).ok_or(ElfError::TooMuch(self.most))?);
        Ok(range)
    }

    /// Its build id in hexadecimal digits, if it has one.
    #[must_use]
    pub fn build_id(&self) -> Option<String> {
        self.segments.iter().filter(|segment| segment.kind == PT_NOTE).find_map(|segment| {
            let end = segment.offset.checked_add(segment.in_file.min(MOST_NOTES))?;
            id_in_notes(&self.bytes(segment.offset..end).ok()?, segment.align)
        })
    }

    /// What it says that it needs, of the 64-bit class.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn needed(&self) -> Result<Needed, ElfError> {
        let of_kind = |kind: u32| self.segments.iter().find(|segment| segment.kind == kind);
        let bytes_of = |segment: &Segment| self.bytes(segment.offset..segment.offset.saturating_add(segment.in_file));
        let interpreter = of_kind(PT_INTERP).map(bytes_of).transpose()?.and_then(|bytes| until_zero(&bytes).map(<[u8]>::to_vec));
        let Some(dynamic) = of_kind(PT_DYNAMIC).map(bytes_of).transpose()? else { return Ok(Needed { interpreter, ..Needed::default() }) };
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let entries = || dynamic.chunks_exact(16).map(|entry| (word(&entry[..8]), word(&entry[8..])));
        let value = |tag: i64| entries().find(|(found, _)| *found == tag.cast_unsigned()).map(|(_, value)| value);
        let (Some(address), Some(length)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
            return Ok(Needed { interpreter, ..Needed::default() });
        };
        let start = self.offset_of(address).ok_or(ElfError::SectionNames)?;
        let names = self.bytes(start..start.saturating_add(length.min(MOST_SECTION_NAMES)))?;
        let name = |at: u64| until_zero(names.get(usize::try_from(at).ok()?..)?).map(<[u8]>::to_vec);
        let libraries =
            entries().filter(|(tag, _)| *tag == DT_NEEDED.cast_unsigned()).take(MOST_NEEDED).filter_map(|(_, at)| name(at)).collect();
        Ok(Needed { interpreter, libraries })
    }

    /// The dynamic symbols whose names are `wanted`; `None` if it has no section of them.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn dynamic_symbols(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<Symbol>>, ElfError> {
        let sections = self.sections()?;
        let Some(dynamic) = sections.iter().find(|section| section.kind == SHT_DYNSYM) else { return Ok(None) };
        let names = usize::try_from(dynamic.link).ok().and_then(|link| sections.get(link)).ok_or(ElfError::SectionNames)?;
        let (entries, names) = (self.bytes(dynamic.range.clone())?, self.bytes(names.range.clone())?);
        let symbols =
            if self.is_64 { symbols_in::<Head64>(&entries, &names, wanted) } else { symbols_in::<Head32>(&entries, &names, wanted) };
        Ok(Some(symbols))
    }
}

fn symbols_in<H: FileHeader<Endian = LittleEndian>>(entries: &[u8], names: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<Symbol> {
    let count = entries.len() / size_of::<H::Sym>();
    let Ok((symbols, _)) = pod::slice_from_bytes::<H::Sym>(entries, count) else { return Vec::new() };
    let named = symbols.iter().filter_map(|symbol| {
        let names = names.get(usize::try_from(symbol.st_name(LittleEndian)).ok()?..)?;
        // All names could be one, and as long as the file.
        let name = until_zero(&names[..names.len().min(MOST_SYMBOL_NAME)])?;
        wanted(name).then(|| Symbol {
            name: name.to_vec(),
            address: symbol.st_value(LittleEndian).into(),
            bytes: symbol.st_size(LittleEndian).into(),
        })
    });
    named.take(MOST_SYMBOLS).collect()
}

fn until_zero(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}

/// From a file's own addresses to those of a process, for a file whose beginning is mapped at `start`: the first loaded segment holds it.
#[must_use]
pub fn bias<'a>(mut loaded: impl Iterator<Item = &'a Segment>, start: u64) -> Option<u64> {
    let first = loaded.next()?;
    Some(start.wrapping_sub(first.address.wrapping_sub(first.offset)))
}

/// The build id of a file in hexadecimal digits; `None` if it has none or is no ELF file.
#[must_use]
pub fn build_id_of_file(file: &File) -> Option<String> {
    Elf::open(file, MOST_FOR_ID).ok()?.build_id()
}

/// That of the running kernel.
#[must_use]
pub fn build_id_of_kernel() -> Option<String> {
    id_in_notes(&std::fs::read("/sys/kernel/notes").ok()?, 4)
}

/// The build id among notes that are aligned to that many bytes.
fn id_in_notes(notes: &[u8], align: u64) -> Option<String> {
    // Headers of notes are alike in both classes.
    let mut notes = NoteIterator::<Head64>::new(LittleEndian, if align == 8 { 8 } else { 4 }, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        let (is_id, id) = (note.n_type(LittleEndian) == NT_GNU_BUILD_ID, note.desc());
        if is_id && note.name_bytes() == b"GNU\0" && (1..=MOST_ID).contains(&id.len()) {
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    const ROOM: u64 = 1 << 20;

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The first header of a 64-bit file.
    fn head(segments: u16) -> Vec<u8> {
        let mut file = vec![0; 64];
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        put(&mut file, 0x20, &64_u64.to_le_bytes());
        put(&mut file, 0x36, &56_u16.to_le_bytes());
        put(&mut file, 0x38, &segments.to_le_bytes());
        file
    }

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let padded = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(4) - bytes.len()]].concat();
        let words = [name.len() as u32, content.len() as u32, kind].map(u32::to_le_bytes).concat();
        [words, padded(name), padded(content)].concat()
    }

    /// A file of one segment of notes with something behind it, and where the notes are.
    fn with_notes(notes: &[u8]) -> (Vec<u8>, Range<usize>) {
        let mut file = head(1);
        let mut segment = [0; 56];
        put(&mut segment, 0, &PT_NOTE.to_le_bytes());
        put(&mut segment, 8, &120_u64.to_le_bytes());
        put(&mut segment, 32, &(notes.len() as u64).to_le_bytes());
        put(&mut segment, 48, &4_u64.to_le_bytes());
        file.extend(segment);
        file.extend(notes);
        file.extend(b"code, and what else there is");
        (file, 120..120 + notes.len())
    }

    fn id(file: &[u8]) -> Option<String> {
        Elf::open(file, ROOM).ok()?.build_id()
    }

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let notes = [note(b"GNU\0", 1, &[1, 2, 3, 4, 5]), note(b"Go\0\0", 3, b"x"), note(b"GNU\0", 3, &[0xab, 0x01, 0xff])].concat();
        assert_eq!(id_in_notes(&notes, 4).as_deref(), Some("ab01ff"));
        for length in 0..notes.len() - 1 {
            assert_eq!(id_in_notes(&notes[..length], 4), None, "{length}");
        }
        assert_eq!(id_in_notes(&note(b"GNU\0", 3, &[0; MOST_ID + 1]), 4), None);
        assert_eq!(id_in_notes(&[0xff; 40], 4), None);
    }

    #[test]
    fn a_changed_note_is_another_build_and_a_change_elsewhere_is_not() {
        let content: Vec<u8> = (1..=20).collect();
        let before = note(b"GNU\0", 1, &[7; 16]);
        let (file, notes) = with_notes(&[before.clone(), note(b"GNU\0", 3, &content)].concat());
        let good = id(&file).expect("an id");
        assert_eq!(good.len(), 40);
        let own = notes.start + before.len()..notes.end;
        // The content of another note, and what lies behind all notes: the headers are what leads to the id.
        let elsewhere = (notes.start + 16..own.start).chain(notes.end..file.len());
        let changed = |at: usize, value: u8| {
            let mut file = file.clone();
            file[at] = value;
            id(&file)
        };
        for value in 0..=255 {
            for at in own.clone().filter(|at| file[*at] != value) {
                assert_ne!(changed(at, value).as_ref(), Some(&good), "byte {at} is {value}");
            }
            for at in elsewhere.clone() {
                assert_eq!(changed(at, value).as_ref(), Some(&good), "byte {at} is {value}");
            }
        }
    }

    #[test]
    fn a_real_library_has_the_one_that_its_name_under_lib_debug_would_have() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps.lines().find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("libc.so"))).unwrap();
        let bytes = std::fs::read(library).unwrap();
        let id = build_id_of_file(&File::open(library).unwrap()).unwrap();
        assert_eq!(id.len(), 40);
        let raw: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
        assert!(bytes.windows(36).any(|window| window == [&note(b"GNU\0", 3, &raw)[..]].concat()));
    }

    #[test]
    fn a_program_says_its_linker_and_its_libraries() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let needed = Elf::open(&whole[..], u64::MAX).unwrap().needed().unwrap();
        assert!(needed.interpreter.unwrap().starts_with(b"/lib"));
        assert!(needed.libraries.iter().any(|name| name.starts_with(b"libc.so")), "{:?}", needed.libraries);
        let (file, _) = with_notes(&[]);
        assert_eq!(Elf::open(&file[..], ROOM).unwrap().needed(), Ok(Needed::default()));
    }

    #[test]
    fn headers_that_no_program_has_are_refused_with_what_is_wrong() {
        let wrong = |file: &[u8]| Elf::open(file, ROOM).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(wrong(b"\x7fELF"), "is too short for an ELF file");
        assert_eq!(wrong(&[b'#'; 64]), "is not a little-endian ELF file");
        let mut file = head(0xffff);
        put(&mut file, 0x36, &[0xff, 0xff]);
        assert_eq!(wrong(&file), "claims 65535 program headers of 65535 bytes, where at most 256 of 56 are read");
        assert_eq!(wrong(&head(257)), "claims 257 program headers of 56 bytes, where at most 256 of 56 are read");
        assert_eq!(wrong(&head(1)), "names 56 bytes at 0x40, which are behind its end");
        let mut narrow = head(1);
        (narrow[4], narrow[0x2a], narrow[0x2c]) = (ELFCLASS32, 56, 1);
        assert_eq!(wrong(&narrow), "claims 1 program headers of 56 bytes, where at most 256 of 32 are read");
        let mut sections = head(0);
        put(&mut sections, 0x28, &64_u64.to_le_bytes());
        put(&mut sections, 0x3a, &[64, 0, 1, 0x10]);
        let error = Elf::open(&sections[..], ROOM).ok().and_then(|elf| elf.sections().err()).unwrap();
        assert_eq!(error.to_string(), "claims 4097 section headers of 64 bytes, where 1 to 4096 of 64 are read");
    }

    #[test]
    fn a_32_bit_file_is_read_by_its_own_layout() {
        let mut file = vec![0; 52 + 32];
        put(&mut file, 0, b"\x7fELF\x01\x01\x01");
        put(&mut file, 0x1c, &52_u32.to_le_bytes());
        put(&mut file, 0x2a, &[32, 0, 1, 0]);
        for (at, word) in [(0, PT_LOAD), (4, 0x1000), (8, 0x8000), (16, 0x10), (20, 0x20), (24, 6), (28, 0x1000)] {
            put(&mut file, 52 + at, &word.to_le_bytes());
        }
        let elf = Elf::open(&file[..], ROOM).unwrap();
        let segment = Segment { kind: PT_LOAD, flags: 6, offset: 0x1000, address: 0x8000, in_file: 0x10, in_memory: 0x20, align: 0x1000 };
        assert_eq!((elf.is_64(), elf.segments()), (false, &[segment][..]));
        assert_eq!(bias(elf.loaded(), 0x9000), Some(0x2000));
    }

    #[test]
    fn all_that_is_read_of_one_file_is_bounded_together() {
        let file = [head(0), vec![0; 1000]].concat();
        let elf = Elf::open(&file[..], 64 + 1000).unwrap();
        assert_eq!(elf.bytes(64..664).unwrap().len(), 600);
        assert_eq!(elf.claim(64..465), Err(ElfError::TooMuch(1064)));
        assert_eq!(elf.claim(64..464), Ok(64..464));
        assert_eq!(elf.bytes(0..1), Err(ElfError::TooMuch(1064)));
        assert!(matches!(Elf::open(&file[..], 63), Err(ElfError::TooMuch(63))));
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_a_real_file_ends_in_an_answer() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        // The section headers are at the end: a cut file has none, and says so.
        let elf = Elf::open(&whole[..], u64::MAX).unwrap();
        assert!(elf.sections().unwrap().iter().any(|section| section.name == b".text"));
        for length in [0, 1, 51, 52, 63, 64, 100, whole.len() - 1] {
            let answer = Elf::open(&whole[..length], u64::MAX).and_then(|elf| elf.sections());
            assert!(answer.is_err(), "{length}");
        }
        let beginning = &whole[..4096];
        for at in 0..1024 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = beginning.to_vec();
                file[at] = value;
                if let Ok(elf) = Elf::open(&file[..], ROOM) {
                    assert!(elf.segments().len() <= usize::from(MOST_PROGRAM_HEADERS));
                    assert!(elf.sections().is_err() || elf.sections().is_ok_and(|sections| sections.is_empty()));
                }
            }
        }
    }
}
