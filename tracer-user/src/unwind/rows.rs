//! The rows of a file: what its `.eh_frame`, and for Go code its table of functions, say of each place in its code, by offset in the file. Pure.
//!
//! The bytes are hostile: their number is bounded, each entry of the section is looked at once, and what cannot be read ends there, with what
//! was read before. A frame that is described and cannot be followed is a row that says so.

use super::go;
use crate::host::elf::{Elf, ElfError, Source};
use crate::host::pclntab::Pclntab;
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, Expression, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindSection as _, UnwindTableRow,
};
use std::collections::HashMap;
use tracer_common::unwind::{Rule, kind, register, saved};

/// Most bytes of a file that are read. Firefox has 30 MB of such descriptions.
const MOST_BYTES: u64 = 64 << 20;
/// Most rows: as many as the largest table has room for.
const MOST_ROWS: usize = 4 << 20;
/// Kinds of program headers (elf.h): where the index of the descriptions stands.
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
/// Executable segment.
const PF_X: u32 = 1;

/// DWARF's numbers of the frame pointer, the stack pointer, and the return address.
const BP: Register = Register(6);
const SP: Register = Register(7);
const RETURN: Register = Register(16);

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// From an offset in the file on, a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Offset in the file.
    pub offset: u32,
    /// Number in [`Rows::rules`].
    pub rule: u16,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// By offset.
    pub rows: Vec<Row>,
    /// Rules, each once.
    pub rules: Vec<Rule>,
    /// Entries that could not be read.
    pub unread: u64,
}

/// Why a file has no rows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// Not a file of this machine's programs.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A program of 32 bits: its stacks are walked by frame pointers.
    #[error("is a 32-bit program")]
    Narrow,
    /// Nothing describes its code.
    #[error("has no .eh_frame, and is not of Go 1.18 or later")]
    NoDescriptions,
}

/// Reads them.
///
/// # Errors
/// There is nothing to read.
pub fn read<S: Source + ?Sized>(source: &S) -> Result<Rows, RowsError> {
    let elf = Elf::open(source, MOST_BYTES)?;
    if !elf.is_64() {
        return Err(RowsError::Narrow);
    }
    let offset_of = |code: u64| {
        let segment = elf.loaded().find(|s| s.flags & PF_X != 0 && code.wrapping_sub(s.address) < s.in_memory)?;
        u32::try_from(code - segment.address + segment.offset).ok()
    };
    let mut collected = Collected::default();
    // What C a Go program has is described as all C is. A table that cannot be read costs the Go code's rows only.
    let go = Pclntab::of(&elf);
    collected.unread += u64::from(go.is_err());
    let go = go.ok().flatten();
    match descriptions(&elf) {
        Ok((bytes, address)) => collected.read(&bytes, address, offset_of),
        Err(RowsError::NoDescriptions) if go.is_some() => {}
        Err(error) => return Err(error),
    }
    if let Some(table) = go {
        go::rows(&table, |code, rule| {
            if collected.rows.len() < MOST_ROWS
                && let Some(offset) = offset_of(code)
            {
                collected.push(offset, rule);
            }
        });
    }
    Ok(collected.finish())
}

/// The bytes of the descriptions and their address.
fn descriptions<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Result<(Vec<u8>, u64), RowsError> {
    // Sections first: they say how long it is.
    let section = elf.sections().ok().and_then(|sections| sections.into_iter().find(|section| section.name == b".eh_frame"));
    if let Some(section) = section.filter(|section| !section.range.is_empty()) {
        let address = elf.address_of(section.range.start).ok_or(RowsError::NoDescriptions)?;
        return Ok((elf.bytes(section.range)?, address));
    }
    // A file without sections: from where the index says to the end of the segment. The descriptions say where they end.
    let index = elf.segments().iter().find(|segment| segment.kind == PT_GNU_EH_FRAME).ok_or(RowsError::NoDescriptions)?;
    let head = elf.bytes(index.offset..index.offset.saturating_add(8))?;
    // Version 1; the pointer is relative to itself and of four bytes, as all linkers write it (LSB, chapter 10.6.2).
    if head[..2] != [1, 0x1b] {
        return Err(RowsError::NoDescriptions);
    }
    let relative = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let address = index.address.wrapping_add(4).wrapping_add_signed(relative.into());
    let found = elf.loaded().find_map(|segment| Some((segment, segment.offset_of(address)?)));
    let (segment, start) = found.ok_or(RowsError::NoDescriptions)?;
    Ok((elf.bytes(start..segment.offset.saturating_add(segment.in_file))?, address))
}

/// Rows on their way.
#[derive(Default)]
struct Collected {
    rows: Vec<Row>,
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    unread: u64,
}

impl Collected {
    fn read(&mut self, bytes: &[u8], address: u64, offset_of: impl Fn(u64) -> Option<u32>) {
        let section = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(address);
        let mut commons = HashMap::new();
        let mut context = UnwindContext::new();
        let mut entries = section.entries(&bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => return,
                // Where the next one begins is not known.
                Err(_) => {
                    self.unread += 1;
                    return;
                }
            };
            let described = partial.parse(|section, bases, at| match commons.get(&at.0) {
                Some(common) => Ok(Clone::clone(common)),
                None => {
                    let common = section.cie_from_offset(bases, at)?;
                    commons.insert(at.0, common.clone());
                    Ok(common)
                }
            });
            let Ok(described) = described else {
                self.unread += 1;
                continue;
            };
            let (start, length) = (described.initial_address(), described.len());
            if length == 0 || self.rows.len() >= MOST_ROWS {
                continue;
            }
            let is_signal = described.is_signal_trampoline();
            let first = self.rows.len();
            let mut is_whole = false;
            if let Ok(mut table) = described.rows(&section, &bases, &mut context) {
                loop {
                    match table.next_row() {
                        Ok(Some(row)) => {
                            let rule = if is_signal { Rule::of_kind(kind::SIGNAL) } else { rule(row, &section) };
                            if let Some(offset) = offset_of(row.start_address()) {
                                self.push(offset, rule);
                            }
                        }
                        Ok(None) => {
                            is_whole = true;
                            break;
                        }
                        Err(_) => break,
                    }
                    if self.rows.len() >= MOST_ROWS {
                        break;
                    }
                }
            }
            if !is_whole {
                // A part would be wrong for the rest of the function.
                self.unread += 1;
                self.rows.truncate(first);
                continue;
            }
            if let Some(end) = start.checked_add(length).and_then(&offset_of) {
                self.push(end, Rule::default());
            }
        }
    }

    fn push(&mut self, offset: u32, rule: Rule) {
        let next = u16::try_from(self.rules.len());
        let number = match (self.numbers.get(&rule), next) {
            (Some(number), _) => *number,
            (None, Ok(number)) => {
                self.rules.push(rule);
                self.numbers.insert(rule, number);
                number
            }
            // No compiler writes so many: the place is not known.
            (None, Err(_)) => return,
        };
        self.rows.push(Row { offset, rule: number });
    }

    /// Sorts, and leaves out what changes nothing. Where one description ends and another begins, the one that begins is in force.
    fn finish(mut self) -> Rows {
        let is_end = |row: &Row| self.rules[usize::from(row.rule)].kind == kind::NONE;
        self.rows.sort_by_key(|row| (row.offset, !is_end(row)));
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            match rows.last_mut() {
                Some(last) if last.offset == row.offset => *last = row,
                Some(last) if last.rule == row.rule => {}
                _ => rows.push(row),
            }
        }
        // A row that was put in the place of another may say what the one before says.
        rows.dedup_by_key(|row| row.rule);
        rows.shrink_to_fit();
        Rows { rows, rules: self.rules, unread: self.unread }
    }
}

/// What a row says, as far as it can be followed.
fn rule(row: &UnwindTableRow<usize>, section: &EhFrame<Bytes<'_>>) -> Rule {
    let unsupported = Rule::of_kind(kind::UNSUPPORTED);
    // gimli keeps no rule for a register that is undefined; every common entry has one for the return address.
    if matches!(row.register(RETURN), None | Some(RegisterRule::Undefined)) {
        return Rule::of_kind(kind::ROOT);
    }
    let Some(mut rule) = frame_address(row.cfa(), section) else { return unsupported };
    (rule.frame_pointer, rule.bp) = match row.register(BP) {
        None | Some(RegisterRule::SameValue) => (saved::SAME, 0),
        Some(RegisterRule::Offset(offset)) => i32::try_from(offset).map_or((saved::LOST, 0), |offset| (saved::FROM_CFA, offset)),
        Some(RegisterRule::Expression(expression)) => match expression.get(section).ok().and_then(|e| place(&e)) {
            Some((BP, offset, [])) => (saved::FROM_BP, offset),
            _ => (saved::LOST, 0),
        },
        _ => (saved::LOST, 0),
    };
    match row.register(RETURN) {
        Some(RegisterRule::Offset(offset)) => match i16::try_from(offset) {
            Ok(offset) => rule.ra = offset,
            Err(_) => return unsupported,
        },
        Some(RegisterRule::Register(number)) => match numbered(number) {
            Some(number) if number != 0 => rule.return_register = number,
            _ => return unsupported,
        },
        _ => return unsupported,
    }
    rule
}

/// Where the frame is.
fn frame_address(cfa: &CfaRule<usize>, section: &EhFrame<Bytes<'_>>) -> Option<Rule> {
    match cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            Some(Rule { kind: kind::REGISTER, base: numbered(*register)?, cfa: i32::try_from(*offset).ok()?, ..Rule::default() })
        }
        CfaRule::Expression(expression) => {
            let expression = expression.get(section).ok()?;
            if let Some(kind) = linkage_table(expression.0.slice()) {
                return Some(Rule::of_kind(kind));
            }
            let (base, cfa, rest) = place(&expression)?;
            let rule = Rule { base: numbered(base)?, cfa, ..Rule::default() };
            // DW_OP_deref, and perhaps DW_OP_plus_uconst.
            match rest {
                [] => Some(Rule { kind: kind::REGISTER, ..rule }),
                [0x06] => Some(Rule { kind: kind::MEMORY, ..rule }),
                [0x06, 0x23, then @ 0..=0x7f] => Some(Rule { kind: kind::MEMORY, then: (*then).into(), ..rule }),
                _ => None,
            }
        }
    }
}

/// The expression that linkers write for entries of procedure linkage tables:
/// `breg7 8, breg16 0, lit15, and, lit11 or lit10, ge, lit3, shl, plus`.
fn linkage_table(expression: &[u8]) -> Option<u8> {
    match expression {
        [0x77, 8, 0x80, 0, 0x3f, 0x1a, pushed, 0x2a, 0x33, 0x24, 0x22] => match pushed {
            0x3b => Some(kind::PLT),
            0x3a => Some(kind::PLT_AFTER_ENDBR),
            _ => None,
        },
        _ => None,
    }
}

/// A register and a distance (`DW_OP_breg0` to `DW_OP_breg15`), and what follows.
fn place<'e>(expression: &Expression<Bytes<'e>>) -> Option<(Register, i32, &'e [u8])> {
    let (code, mut rest) = expression.0.slice().split_first()?;
    let register = code.checked_sub(0x70).filter(|number| *number < 16)?;
    // A signed LEB128 of at most five bytes.
    let (mut value, mut shift) = (0_i64, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value |= i64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            if byte & 0x40 != 0 {
                value |= -1 << shift;
            }
            break;
        }
        if shift > 28 {
            return None;
        }
    }
    Some((Register(register.into()), i32::try_from(value).ok()?, rest))
}

fn numbered(register: Register) -> Option<u8> {
    register::OF_DWARF.get(usize::from(register.0)).copied()
}

const _: () = assert!(register::OF_DWARF[SP.0 as usize] == register::SP && register::OF_DWARF[BP.0 as usize] == register::BP);
