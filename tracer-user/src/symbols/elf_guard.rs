//! Plans the copy of an ELF file and looks it over before a parser gets it that trusts its input. Knows nothing of symbols.
//!
//! Files of traced processes are hostile. Mapping one means SIGBUS when its owner cuts it, so that only copies are parsed: headers,
//! symbol tables and debug information at their old offsets in an anonymous file, holes elsewhere. A parser that follows links
//! opens paths that the file names (`.gnu_debuglink` may be absolute: a FIFO or a device of the host), and one that unpacks
//! compressed sections unpacks a thousand times their size: such files lose their DWARF, or are refused.

use crate::host::elf::{Elf, ElfError, Section, Source};
use gimli::{DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitHeader};
use object::elf::{SHF_COMPRESSED, SHT_DYNSYM, SHT_NOTE, SHT_STRTAB, SHT_SYMTAB, SHT_SYMTAB_SHNDX};
use std::ops::Range;

/// Most bytes of symbol tables copied of one file.
const MAX_TABLE_BYTES: u64 = 128 << 20;
/// Most bytes of debug information; with more of it a file has its own symbols only. The parser touches nearly all of it, and what it
/// touches is resident.
const MAX_DEBUG_BYTES: u64 = 36 << 20;
/// Most bytes of one file that are read or copied at all: those, and headers and names of sections.
pub const MAX_BYTES: u64 = MAX_TABLE_BYTES + MAX_DEBUG_BYTES + (4 << 20);
/// Deepest nesting of debug information that is handed on: the parser recurses.
const MAX_DWARF_DEPTH: isize = 400;

/// Why a file is refused; the words follow its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its headers.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Its class.
    #[error("is not a 64-bit ELF file")]
    Narrow,
    /// Unpacking has no bound.
    #[error("has compressed symbol tables")]
    CompressedTables,
    /// Too many symbols.
    #[error("has {0} bytes of symbol tables, where at most {MAX_TABLE_BYTES} are read")]
    LargeTables(u64),
    /// Its owner wrote to it meanwhile.
    #[error("changed while it was read")]
    Changed,
}

/// What to take of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Byte ranges to copy, [`MAX_BYTES`] together at most.
    pub ranges: Vec<Range<u64>>,
    /// Why debug information is left out; `None` if it is not.
    pub no_debug: Option<&'static str>,
    /// Where `.debug_info` and `.debug_abbrev` lie, for [`dwarf_is_shallow`].
    pub dwarf: [Range<u64>; 2],
}

/// Plans the copy of a file.
///
/// # Errors
/// Why the file is refused.
pub fn plan<S: Source + ?Sized>(source: &S) -> Result<Plan, Refusal> {
    let elf = Elf::open(source, MAX_BYTES)?;
    if !elf.is_64() {
        return Err(Refusal::Narrow);
    }
    let mut ranges = elf.headers()?;
    let sections = elf.sections()?;
    // The first one stands for nothing.
    let sections = sections.get(1..).unwrap_or_default();
    let mut no_debug = None;
    for section in sections {
        if is_compressed(section) && !is_debug(section) {
            return Err(Refusal::CompressedTables);
        }
        no_debug = no_debug.or_else(|| debug_objection(&elf, section));
    }
    let bytes = |keep: fn(&Section) -> bool| sections.iter().filter(|s| keep(s)).fold(0_u64, |sum, s| sum.saturating_add(length(s)));
    let tables = bytes(is_table);
    if tables > MAX_TABLE_BYTES {
        return Err(Refusal::LargeTables(tables));
    }
    if bytes(is_copied_debug) > MAX_DEBUG_BYTES {
        no_debug = no_debug.or(Some("debug information too large"));
    }
    for section in sections.iter().filter(|s| is_table(s) || (is_copied_debug(s) && no_debug.is_none())) {
        ranges.push(elf.claim(section.range.clone())?);
    }
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

fn length(section: &Section) -> u64 {
    section.range.end - section.range.start
}

fn is_compressed(section: &Section) -> bool {
    section.flags & u64::from(SHF_COMPRESSED) != 0
}

fn is_debug(section: &Section) -> bool {
    [&b".debug_"[..], b".zdebug_", b".gnu_debug"].iter().any(|prefix| section.name.starts_with(prefix))
}

/// What tells of functions and inlined ones; where variables live and indexes for debuggers do not.
fn is_copied_debug(section: &Section) -> bool {
    const OTHERS: [&[u8]; 6] =
        [b".debug_loc", b".debug_loclists", b".debug_pubnames", b".debug_pubtypes", b".debug_macro", b".debug_names"];
    is_debug(section) && !OTHERS.contains(&&*section.name)
}

fn is_table(section: &Section) -> bool {
    !is_debug(section) && [SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_DYNSYM, SHT_SYMTAB_SHNDX].contains(&section.kind)
}

/// Why this section forbids the use of the file's debug information.
fn debug_objection<S: Source + ?Sized>(elf: &Elf<'_, S>, section: &Section) -> Option<&'static str> {
    match &*section.name {
        // A plain file name is looked for in the host's debug directories only. All digits would be a descriptor of ours, since
        // the copy is given to the parser as /proc/self/fd/N.
        b".gnu_debuglink" => {
            let start = section.range.start;
            let data = elf.bytes(start..start.saturating_add(length(section).min(4096))).unwrap_or_default();
            let name = data.split(|&b| b == 0).next().unwrap_or_default();
            let plain = !name.contains(&b'/') && name != b".." && name != b"." && !name.iter().all(u8::is_ascii_digit);
            (!plain).then_some("debug link that is a path")
        }
        b".gnu_debugaltlink" | b".debug_sup" => Some("link to a supplementary file"),
        name if is_compressed(section) || name.starts_with(b".zdebug_") => Some("compressed debug information"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPRESSED: u64 = SHF_COMPRESSED as u64;

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

    fn objection(file: &[u8]) -> Option<&'static str> {
        plan(file).unwrap().no_debug
    }

    #[test]
    fn ordinary_files_pass() {
        assert_eq!(objection(&elf(".text", 0, b"code")), None);
        assert_eq!(objection(&elf(".gnu_debuglink", 0, b"libc.so.6.debug\0crc!")), None);
        // As a compiler makes it. This very program may have more debug information than is read.
        let folder = tempfile::tempdir().unwrap();
        let (source, made) = (folder.path().join("x.c"), folder.path().join("x"));
        std::fs::write(&source, "int main(void) { return 0; }").unwrap();
        assert!(std::process::Command::new("cc").arg("-g").arg(&source).arg("-o").arg(&made).status().unwrap().success());
        let made = std::fs::read(made).unwrap();
        let plan = plan(&made[..]).unwrap();
        assert_eq!(plan.no_debug, None);
        let part = |range: &Range<u64>| &made[range.start as usize..range.end as usize];
        assert!(!plan.dwarf[0].is_empty() && dwarf_is_shallow(part(&plan.dwarf[0]), part(&plan.dwarf[1])));
    }

    #[test]
    fn code_is_not_copied_but_tables_are() {
        let file = elf(".text", 0, b"code");
        let copied = |file: &[u8]| plan(file).unwrap().ranges.iter().map(|r| r.end - r.start).sum::<u64>();
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
        assert!(objection(&elf(".debug_info", COMPRESSED, b"")).is_some());
        assert!(objection(&elf(".zdebug_info", 0, b"")).is_some());
        assert!(plan(&elf(".symtab", COMPRESSED, b"")[..]).is_err());
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
    fn headers_that_claim_gigabytes_are_refused() {
        let mut file = [0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 64;
        file[0x36..0x3a].fill(0xff);
        let planned = plan(&file[..]).map(|plan| plan.ranges.iter().map(|range| range.end - range.start).sum::<u64>());
        assert!(planned.is_err(), "{planned:?}");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = elf(".gnu_debuglink", 0, b"name\0");
        for length in 0..whole.len() {
            assert!(plan(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = plan(&changed[..]);
            }
        }
    }
}
