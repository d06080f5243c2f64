//! Copies what is needed of an ELF file and looks it over before a parser gets it that trusts its input. Knows nothing of symbols.
//!
//! Files of traced processes are hostile. Mapping one means SIGBUS when its owner cuts it, so that only copies are parsed: headers,
//! symbol tables and debug information at their old offsets in an anonymous file, holes elsewhere. A parser that follows links
//! opens paths that the file names (`.gnu_debuglink` may be absolute: a FIFO or a device of the host), and one that unpacks
//! compressed sections unpacks a thousand times their size: such files lose their DWARF, or are refused.

use gimli::{DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitHeader};
use std::ops::Range;

/// Most bytes of symbol tables copied of one file.
const MAX_TABLE_BYTES: u64 = 128 << 20;
/// Most bytes of debug information; with more of it a file has its own symbols only. The parser touches nearly all of it, and what it
/// touches is resident: this bound keeps the collector below its 64 MiB.
const MAX_DEBUG_BYTES: u64 = 36 << 20;
/// Most sections of a program.
const MAX_SECTIONS: u64 = 4096;
/// Deepest nesting of debug information that is handed on: the parser recurses.
const MAX_DWARF_DEPTH: isize = 400;

/// What to take of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Byte ranges to copy.
    pub ranges: Vec<Range<u64>>,
    /// Why debug information is left out; `None` if it is not.
    pub no_debug: Option<&'static str>,
    /// Where `.debug_info` and `.debug_abbrev` lie, for [`dwarf_is_shallow`].
    pub dwarf: [Range<u64>; 2],
}

const SHF_COMPRESSED: u64 = 1 << 11;
const SHT_SYMTAB: u64 = 2;
const SHT_STRTAB: u64 = 3;
const SHT_NOTE: u64 = 7;
const SHT_NOBITS: u64 = 8;
const SHT_DYNSYM: u64 = 11;
const SHT_SYMTAB_SHNDX: u64 = 18;

/// Plans the copy of a file. `read` gives `length` bytes at an offset, or `None`. An error is why the file is refused.
pub fn plan(read: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Result<Plan, &'static str> {
    let (mut ranges, sections) = sections(&read)?;
    let mut no_debug = None;
    for section in &sections {
        if section.compressed && !section.is_debug() {
            return Err("compressed symbol tables");
        }
        no_debug = no_debug.or_else(|| section.debug_objection(&read));
    }
    let bytes = |keep: &dyn Fn(&Section) -> bool| sections.iter().filter(|s| keep(s)).fold(0_u64, |sum, s| sum.saturating_add(s.length()));
    if bytes(&Section::is_table) > MAX_TABLE_BYTES {
        return Err("symbol tables too large");
    }
    if bytes(&Section::is_copied_debug) > MAX_DEBUG_BYTES {
        no_debug = no_debug.or(Some("debug information too large"));
    }
    ranges.extend(sections.iter().filter(|s| s.is_table() || (s.is_copied_debug() && no_debug.is_none())).map(|s| s.range.clone()));
    let named = |name: &[u8]| sections.iter().find(|s| s.name == name).map_or(0..0, |s| s.range.clone());
    Ok(Plan { ranges, no_debug, dwarf: [named(b".debug_info"), named(b".debug_abbrev")] })
}

/// Whether no entry of the debug information is nested deeper than a recursive parser can bear.
#[must_use]
pub fn dwarf_is_shallow(info: &[u8], abbreviations: &[u8]) -> bool {
    let info = DebugInfo::from(EndianSlice::new(info, LittleEndian));
    let abbreviations = DebugAbbrev::from(EndianSlice::new(abbreviations, LittleEndian));
    let mut units = info.units();
    loop {
        match units.next() {
            Ok(Some(unit)) if unit_is_shallow(&unit, &abbreviations) == Some(true) => {}
            Ok(None) => return true,
            // What this does not understand, nobody has to.
            Ok(Some(_)) | Err(_) => return false,
        }
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

fn unit_is_shallow(unit: &UnitHeader<Slice<'_>>, abbreviations: &DebugAbbrev<Slice<'_>>) -> Option<bool> {
    let abbreviations = unit.abbreviations(abbreviations).ok()?;
    let mut entries = unit.entries_raw(&abbreviations, None).ok()?;
    while !entries.is_empty() {
        if entries.next_depth() > MAX_DWARF_DEPTH {
            return Some(false);
        }
        if let Some(abbreviation) = entries.read_abbreviation().ok()? {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
        }
    }
    Some(true)
}

struct Section {
    name: Vec<u8>,
    kind: u64,
    compressed: bool,
    range: Range<u64>,
}

impl Section {
    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn is_debug(&self) -> bool {
        [&b".debug_"[..], b".zdebug_", b".gnu_debug"].iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// What tells of functions and inlined ones; where variables live and indexes for debuggers do not.
    fn is_copied_debug(&self) -> bool {
        const OTHERS: [&[u8]; 6] =
            [b".debug_loc", b".debug_loclists", b".debug_pubnames", b".debug_pubtypes", b".debug_macro", b".debug_names"];
        self.is_debug() && !OTHERS.contains(&&*self.name)
    }

    fn is_table(&self) -> bool {
        !self.is_debug() && [SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_DYNSYM, SHT_SYMTAB_SHNDX].contains(&self.kind)
    }

    /// Why this section forbids the use of the file's debug information.
    fn debug_objection(&self, read: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Option<&'static str> {
        match &*self.name {
            // A plain file name is looked for in the host's debug directories only. All digits would be a descriptor of ours, since
            // the copy is given to the parser as /proc/self/fd/N.
            b".gnu_debuglink" => {
                let data = read(self.range.start, self.length().min(4096)).unwrap_or_default();
                let name = data.split(|&b| b == 0).next().unwrap_or_default();
                let plain = !name.contains(&b'/') && name != b".." && name != b"." && !name.iter().all(u8::is_ascii_digit);
                (!plain).then_some("debug link that is a path")
            }
            b".gnu_debugaltlink" | b".debug_sup" => Some("link to a supplementary file"),
            name if self.compressed || name.starts_with(b".zdebug_") => Some("compressed debug information"),
            _ => None,
        }
    }
}

/// The ranges of the headers and the sections of a 64-bit little-endian ELF file. No sections are fine, strange ones are not.
fn sections(read: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Result<(Vec<Range<u64>>, Vec<Section>), &'static str> {
    const MALFORMED: &str = "malformed headers";
    let file = read(0, 64).ok_or("too short for an ELF file")?;
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF file");
    }
    let field = |at, length| number(&file, at, length).ok_or(MALFORMED);
    let (segments_at, segment, segments) = (field(0x20, 8)?, field(0x36, 2)?, field(0x38, 2)?);
    let (at, entry, count, names) = (field(0x28, 8)?, field(0x3a, 2)?, field(0x3c, 2)?, field(0x3e, 2)?);
    let segments_end = segments_at.checked_add(segment * segments).ok_or(MALFORMED)?;
    let mut ranges = vec![0..64, segments_at..segments_end];
    if at == 0 && count == 0 {
        return Ok((ranges, vec![]));
    }
    // Zero and 0xffff stand for numbers kept elsewhere, in files of more than 65,279 sections: no program is one.
    if entry != 64 || count == 0 || count > MAX_SECTIONS || names >= count {
        return Err(MALFORMED);
    }
    let headers = read(at, count * 64).ok_or(MALFORMED)?;
    ranges.push(at..at.checked_add(count * 64).ok_or(MALFORMED)?);
    let header = |index: u64| headers.get(usize::try_from(index * 64).ok()?..)?.get(..64);
    let range = |header: &[u8]| {
        let start = number(header, 0x18, 8)?;
        Some(start..start.checked_add(number(header, 0x20, 8)?)?)
    };
    let names = header(names).and_then(range).ok_or(MALFORMED)?;
    let names = read(names.start, (names.end - names.start).min(1 << 20)).ok_or(MALFORMED)?;
    let sections = (1..count).map(|index| {
        let header = header(index)?;
        let name = names.get(usize::try_from(number(header, 0, 4)?).ok()?..)?.split(|&b| b == 0).next()?.to_vec();
        let kind = number(header, 4, 4)?;
        // .bss has a size but no bytes.
        let range = if kind == SHT_NOBITS { 0..0 } else { range(header)? };
        Some(Section { name, kind, compressed: number(header, 8, 8)? & SHF_COMPRESSED != 0, range })
    });
    Ok((ranges, sections.collect::<Option<Vec<_>>>().ok_or(MALFORMED)?))
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of one section besides the names.
    fn elf(name: &str, flags: u64, data: &[u8]) -> Vec<u8> {
        let mut names = b"\0.shstrtab\0".to_vec();
        let name_at = names.len() as u32;
        names.extend(name.as_bytes());
        names.push(0);
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        let names_at = file.len() as u64;
        file.extend(&names);
        let data_at = file.len() as u64;
        file.extend(data);
        let at = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&at.to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 1, 0]);
        for (name, kind, flags, start, length) in
            [(0, 0, 0, 0, 0), (1, 3, 0, names_at, names.len() as u64), (name_at, 1_u32, flags, data_at, data.len() as u64)]
        {
            let mut header = [0; 64];
            header[0..4].copy_from_slice(&u32::to_le_bytes(name));
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&u64::to_le_bytes(flags));
            header[0x18..0x20].copy_from_slice(&start.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
            file.extend(header);
        }
        file
    }

    fn reader(file: &[u8]) -> impl Fn(u64, u64) -> Option<Vec<u8>> + '_ {
        |at, length| Some(file.get(at as usize..(at as usize).checked_add(length as usize)?)?.to_vec())
    }

    fn objection(file: &[u8]) -> Option<&'static str> {
        plan(reader(file)).unwrap().no_debug
    }

    #[test]
    fn ordinary_files_pass() {
        assert_eq!(objection(&elf(".text", 0, b"code")), None);
        assert_eq!(objection(&elf(".gnu_debuglink", 0, b"libc.so.6.debug\0crc!")), None);
        let own = std::fs::read("/proc/self/exe").unwrap();
        let plan = plan(reader(&own)).unwrap();
        assert_eq!(plan.no_debug, None);
        let part = |range: &Range<u64>| &own[range.start as usize..range.end as usize];
        assert!(!plan.dwarf[0].is_empty() && dwarf_is_shallow(part(&plan.dwarf[0]), part(&plan.dwarf[1])));
    }

    #[test]
    fn code_is_not_copied_but_tables_are() {
        let file = elf(".text", 0, b"code");
        let copied = |file: &[u8]| plan(reader(file)).unwrap().ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        assert_eq!(copied(&file) + 4, copied(&elf(".debug_x", 0, b"code")) - 3);
    }

    #[test]
    fn links_that_lead_elsewhere_cost_the_debug_information() {
        for name in ["/dev/watchdog\0", "../../run/fifo\0", "7\0", "..\0", "\0"] {
            assert!(objection(&elf(".gnu_debuglink", 0, name.as_bytes())).is_some(), "{name:?}");
        }
        assert!(objection(&elf(".gnu_debugaltlink", 0, b"x\0")).is_some());
    }

    #[test]
    fn what_unpacks_is_not_unpacked() {
        assert!(objection(&elf(".debug_info", SHF_COMPRESSED, b"")).is_some());
        assert!(objection(&elf(".zdebug_info", 0, b"")).is_some());
        assert!(plan(reader(&elf(".symtab", SHF_COMPRESSED, b""))).is_err());
    }

    #[test]
    fn deep_nesting_is_refused() {
        // One abbreviation: a lexical block with children and without attributes. One unit of nothing but openings.
        let abbreviations = [1, 0x0b, 1, 0, 0, 0];
        let unit = |depth: usize| {
            let mut unit = ((depth + 7) as u32).to_le_bytes().to_vec();
            unit.extend([4, 0, 0, 0, 0, 0, 8]);
            unit.extend(vec![1; depth]);
            unit
        };
        assert!(dwarf_is_shallow(&unit(100), &abbreviations));
        assert!(!dwarf_is_shallow(&unit(100_000), &abbreviations));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = elf(".gnu_debuglink", 0, b"name\0");
        for length in 0..whole.len() {
            assert!(plan(reader(&whole[..length])).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = plan(reader(&changed));
            }
        }
    }
}
