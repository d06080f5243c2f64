//! The table of functions that a Go program carries, stripped or not (`.gopclntab`): where each function lies, its name, and how large its frame
//! is at each instruction. Pure.
//!
//! The layout is that of Go 1.18 and later (Go's `src/runtime/symtab.go`: `pcHeader`, `_func`, `step`; `src/debug/gosym/pclntab.go`). The bytes are
//! hostile: what lies outside of them ends what is read.

use super::elf::{Elf, ElfError, Section, Source};

/// What the table begins with, little-endian: Go 1.18 and 1.19, Go 1.20 and later.
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Names of its section; the second where the program is position-independent.
const SECTIONS: [&[u8]; 2] = [b".gopclntab", b".data.rel.ro.gopclntab"];
/// Bytes of the header.
const HEADER: usize = 72;
/// Where in it the first address of code stands.
const TEXT_START: u64 = 24;
/// Executable segment (elf.h).
const PF_X: u32 = 1;
/// Relocation of x86_64 whose addend is the value.
const R_X86_64_RELATIVE: u64 = 8;
/// Most functions: Kubernetes' largest program has some 150,000.
const MOST_FUNCTIONS: u64 = 4 << 20;

/// Set in [`Function::flags`] (Go's `internal/abi.FuncFlag`): nothing called it.
pub const TOP_FRAME: u8 = 1;
/// It changes the stack pointer in ways that the table does not tell.
pub const WRITES_SP: u8 = 2;
/// It is written in assembly.
pub const ASSEMBLY: u8 = 4;

/// The table of a file.
pub struct Pclntab {
    bytes: Vec<u8>,
    /// First address of code.
    text: u64,
    functions: usize,
    /// Offsets in `bytes`.
    names: usize,
    values: usize,
    entries: usize,
    /// Offset of the flags in the description of a function.
    flags: usize,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first address.
    pub start: u64,
    /// The first address of the next one.
    pub end: u64,
    /// [`TOP_FRAME`] and others.
    pub flags: u8,
    name: u32,
    frames: u32,
}

impl Pclntab {
    /// The table of a file of the 64-bit class; `None` if it has none, or one of an older Go.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn of<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Result<Option<Pclntab>, ElfError> {
        let sections = elf.sections()?;
        let Some(section) = sections.iter().find(|section| SECTIONS.contains(&section.name.as_slice())) else { return Ok(None) };
        let bytes = elf.bytes(section.range.clone())?;
        let is_code = |address: u64| elf.loaded().any(|s| s.flags & PF_X != 0 && address.wrapping_sub(s.address) < s.in_memory);
        let told = word(&bytes, TEXT_START as usize).filter(|address| is_code(*address));
        let text = match told {
            Some(text) => Some(text),
            // A position-independent program has it from the dynamic linker, and from Go 1.26 on no program has it here.
            None => match relocated(elf, &sections, section)?.filter(|address| is_code(*address)) {
                Some(text) => Some(text),
                None => first_code(elf, &sections),
            },
        };
        Ok(text.and_then(|text| Pclntab::parse(bytes, text)))
    }

    /// Reads the header. `text` is the first address of code.
    fn parse(bytes: Vec<u8>, text: u64) -> Option<Pclntab> {
        let head = bytes.get(..HEADER)?;
        let flags = match half(head, 0)? {
            MAGIC_1_18 => 37,
            MAGIC_1_20 => 41,
            _ => return None,
        };
        // Two zeros, the least length of an instruction, the bytes of a pointer.
        if head[4..8] != [0, 0, 1, 8] {
            return None;
        }
        let functions = word(head, 8).filter(|functions| *functions <= MOST_FUNCTIONS)? as usize;
        let offset = |at: usize| word(head, at).and_then(|offset| usize::try_from(offset).ok()).filter(|offset| *offset <= bytes.len());
        let (names, values, entries) = (offset(32)?, offset(56)?, offset(64)?);
        // The end of the last function stands behind them.
        bytes.get(entries..entries.checked_add(functions * 8 + 4)?)?;
        Some(Pclntab { bytes, text, functions, names, values, entries, flags })
    }

    /// All functions that can be read, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function> {
        (0..self.functions).filter_map(|number| self.function(number))
    }

    /// The function that an address is in.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Function> {
        let within = address.checked_sub(self.text)?;
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = low.midpoint(high);
            if u64::from(half(&self.bytes, self.entries + 8 * middle)?) <= within {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.function(low.checked_sub(1)?).filter(|function| address < function.end)
    }

    fn function(&self, number: usize) -> Option<Function> {
        let at = self.entries + 8 * number;
        let (start, end) = (half(&self.bytes, at)?, half(&self.bytes, at + 8)?);
        let described = self.bytes.get(self.entries.checked_add(half(&self.bytes, at + 4)? as usize)?..)?;
        // The description repeats it.
        if half(described, 0)? != start || end < start {
            return None;
        }
        Some(Function {
            start: self.text.checked_add(start.into())?,
            end: self.text.checked_add(end.into())?,
            flags: *described.get(self.flags)?,
            name: half(described, 4)?,
            frames: half(described, 16)?,
        })
    }

    /// The name of a function, with the dots of its package's path.
    #[must_use]
    pub fn name(&self, function: &Function) -> Option<String> {
        let name = self.bytes.get(self.names.checked_add(function.name as usize)?..)?;
        let name = name.get(..name.iter().position(|byte| *byte == 0)?)?;
        Some(String::from_utf8_lossy(name).replace("%2e", "."))
    }

    /// How large the frame of a function is: from which address on how many bytes lie between the stack pointer and the return address.
    pub fn frame_sizes(&self, function: &Function) -> FrameSizes<'_> {
        let at = self.values.saturating_add(function.frames as usize);
        // Without a table of its own nothing is known.
        let bytes = if function.frames == 0 { &[] } else { self.bytes.get(at..).unwrap_or_default() };
        FrameSizes { bytes, at: function.start, end: function.end, size: -1, is_first: true }
    }
}

/// See [`Pclntab::frame_sizes`].
pub struct FrameSizes<'a> {
    bytes: &'a [u8],
    at: u64,
    end: u64,
    size: i32,
    is_first: bool,
}

impl FrameSizes<'_> {
    /// Base 128, least significant first.
    fn number(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for FrameSizes<'_> {
    type Item = (u64, i32);

    fn next(&mut self) -> Option<(u64, i32)> {
        let change = self.number()?;
        if (change == 0 && !self.is_first) || self.at >= self.end {
            return None;
        }
        self.is_first = false;
        // The lowest bit is the sign.
        self.size = self.size.wrapping_add((change >> 1).cast_signed() ^ -(change & 1).cast_signed());
        let from = self.at;
        // One that stands still would never end.
        self.at += u64::from(self.number().filter(|distance| *distance != 0)?);
        Some((from, self.size))
    }
}

/// What a relocation puts where the header has the first address of code.
fn relocated<S: Source + ?Sized>(elf: &Elf<'_, S>, sections: &[Section], table: &Section) -> Result<Option<u64>, ElfError> {
    let Some(place) = elf.address_of(table.range.start).and_then(|address| address.checked_add(TEXT_START)) else { return Ok(None) };
    let Some(relocations) = sections.iter().find(|section| section.name == b".rela.dyn" || section.name == b".rela") else {
        return Ok(None);
    };
    let entries = elf.bytes(relocations.range.clone())?;
    let found = entries.chunks_exact(24).find(|entry| word(entry, 0) == Some(place) && word(entry, 8) == Some(R_X86_64_RELATIVE));
    Ok(found.and_then(|entry| word(entry, 16)))
}

/// The first address of the code that is not of linkage tables.
fn first_code<S: Source + ?Sized>(elf: &Elf<'_, S>, sections: &[Section]) -> Option<u64> {
    elf.address_of(sections.iter().find(|section| section.name == b".text")?.range.start)
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const TEXT: u64 = 0x40_1000;

    /// A table of these functions: address from the beginning of the code, name, flags, changes of the frame's size.
    pub fn table(magic: u32, functions: &[(u32, &str, u8, &[u8])], end: u32) -> Vec<u8> {
        let (mut names, mut values, mut described) = (vec![0], vec![0], Vec::new());
        let mut entries = Vec::new();
        let after = functions.len() * 8 + 4;
        for (start, name, flags, changes) in functions {
            entries.extend(start.to_le_bytes());
            entries.extend(((after + described.len()) as u32).to_le_bytes());
            let mut fields = vec![*start, names.len() as u32, 0, 0, if changes.is_empty() { 0 } else { values.len() as u32 }, 0, 0, 0, 0];
            if magic == MAGIC_1_20 {
                fields.push(7);
            }
            described.extend(fields.into_iter().flat_map(u32::to_le_bytes));
            described.extend([3, *flags, 0, 0]);
            names.extend(name.bytes().chain([0]));
            values.extend(*changes);
        }
        entries.extend(end.to_le_bytes());
        let (at_names, at_values) = (HEADER as u64, (HEADER + names.len()) as u64);
        let at_entries = at_values + values.len() as u64;
        let head = [functions.len() as u64, 0, 0, at_names, 0, 0, at_values, at_entries];
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        bytes.extend(head.into_iter().flat_map(u64::to_le_bytes));
        [bytes, names, values, entries, described].concat()
    }

    /// From -1 to 0 for 4 bytes, to 24 for 16, back to 0 for 1.
    const FRAMES: &[u8] = &[2, 4, 48, 16, 47, 1, 0];

    fn functions() -> [(u32, &'static str, u8, &'static [u8]); 3] {
        [
            (0, "runtime.goexit", TOP_FRAME | ASSEMBLY, &[2, 0x20, 0]),
            (0x20, "gopkg.in/yaml%2ev3.(*T).Get", 0, FRAMES),
            (0x40, "main.none", 0, &[]),
        ]
    }

    #[test]
    fn functions_are_found_by_address_with_names_and_frames() {
        for magic in [MAGIC_1_18, MAGIC_1_20] {
            let table = Pclntab::parse(table(magic, &functions(), 0x50), TEXT).unwrap();
            assert_eq!(
                table.functions().map(|f| (f.start - TEXT, f.end - TEXT, f.flags)).collect::<Vec<_>>(),
                [(0, 0x20, TOP_FRAME | ASSEMBLY), (0x20, 0x40, 0), (0x40, 0x50, 0)]
            );
            let get = table.at(TEXT + 0x3f).unwrap();
            assert_eq!(table.name(&get).as_deref(), Some("gopkg.in/yaml.v3.(*T).Get"));
            let sizes: Vec<_> = table.frame_sizes(&get).collect();
            assert_eq!(sizes, [(TEXT + 0x20, 0), (TEXT + 0x24, 24), (TEXT + 0x34, 0)]);
            assert_eq!(table.frame_sizes(&table.at(TEXT + 0x40).unwrap()).count(), 0);
            assert_eq!((table.at(TEXT - 1), table.at(TEXT + 0x50)), (None, None));
        }
        assert!(Pclntab::parse(table(0xffff_fffa, &functions(), 0x50), TEXT).is_none(), "Go 1.16");
    }

    /// Each byte cut off and each byte changed: what is read ends, and no table reads outside of its bytes.
    #[test]
    fn no_bytes_keep_it_from_ending() {
        let whole = table(MAGIC_1_20, &functions(), 0x50);
        let read = |bytes: Vec<u8>| {
            let Some(table) = Pclntab::parse(bytes, TEXT) else { return 0 };
            let all: Vec<Function> = table.functions().collect();
            all.iter().map(|f| table.frame_sizes(f).count() + table.name(f).map_or(0, |name| name.len())).sum::<usize>()
                + (0..0x60).filter_map(|at| table.at(TEXT + at)).count()
        };
        let right = read(whole.clone());
        assert!(right > 0x50, "{right}");
        for at in 0..whole.len() {
            read(whole[..at].to_vec());
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                assert!(read(changed) < 1 << 20);
            }
        }
    }
}
