//! The kernel's type information (BTF): member offsets, sizes, enumerators, functions and tracepoints, by name.
//!
//! Reads only what memtrail asks for; aya's own parser keeps its look-ups private. Format: Documentation/bpf/btf.rst.

use std::{collections::HashMap, io, path::Path};

/// Why the type information could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read the kernel's type information {path}: {source} (the kernel needs CONFIG_DEBUG_INFO_BTF)")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not BTF, or cut.
    #[error("the kernel's type information is malformed: {0}")]
    Malformed(&'static str),
}

const INT: u32 = 1;
pub(super) const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
pub(super) const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
pub(super) const FUNC: u32 = 12;
pub(super) const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Anonymous members nest a few levels deep in the kernel; malformed input could nest for ever.
const MAX_NESTING: u32 = 16;
/// What the names of the types of tracepoints begin with (include/trace/bpf_probe.h).
pub(super) const TRACEPOINT_TYPES: &str = "btf_trace_";

/// Parsed type information.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Byte offset of each type; type id 0 is void.
    types: Vec<usize>,
    by_name: HashMap<(u32, Vec<u8>), u32>,
}

impl Btf {
    /// Reads a BTF file, usually /sys/kernel/btf/vmlinux, and indexes the types whose names are `wanted`: a kernel has 130,000, and
    /// indexing all would be most of the time that it takes to start.
    pub fn from_file(path: &Path, wanted: impl Fn(&[u8]) -> bool) -> Result<Btf, BtfError> {
        let data = std::fs::read(path).map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Btf::parse(data, wanted)
    }

    /// Indexes BTF in memory.
    pub fn parse(data: Vec<u8>, wanted: impl Fn(&[u8]) -> bool) -> Result<Btf, BtfError> {
        let mut btf = Btf { data, strings: 0, types: vec![0], by_name: HashMap::new() };
        if btf.u16(0)? != 0xeb9f {
            return Err(BtfError::Malformed("no BTF magic"));
        }
        let header = btf.u32(4)? as usize;
        let (type_offset, type_length) = (btf.u32(8)? as usize, btf.u32(12)? as usize);
        let string_offset = btf.u32(16)? as usize;
        let start = header.checked_add(type_offset).ok_or(BtfError::Malformed("type offset"))?;
        let end = start.checked_add(type_length).filter(|end| *end <= btf.data.len()).ok_or(BtfError::Malformed("type length"))?;
        btf.strings = header.checked_add(string_offset).ok_or(BtfError::Malformed("string offset"))?;
        let mut at = start;
        while at < end {
            let (kind, count) = btf.kind_and_count(at)?;
            let extra = match kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                ENUM | FUNC_PROTO => 8 * count,
                PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            let id = btf.types.len() as u32;
            btf.types.push(at);
            if matches!(kind, STRUCT | UNION | ENUM | ENUM64 | FUNC | TYPEDEF | VAR) {
                let name = btf.string(btf.u32(at)?)?;
                if wanted(name) {
                    let name = name.to_vec();
                    btf.by_name.entry((kind, name)).or_insert(id);
                }
            }
            at += 12 + extra;
        }
        Ok(btf)
    }

    /// Byte offset of a member of a struct or union, also through anonymous members.
    #[must_use]
    pub fn member_offset(&self, type_name: &str, member: &str) -> Option<u32> {
        let id = self.id(STRUCT, type_name).or_else(|| self.id(UNION, type_name))?;
        Some(self.find_member(id, member.as_bytes(), 0)? / 8)
    }

    /// Size of a struct or union in bytes.
    #[must_use]
    pub fn size(&self, type_name: &str) -> Option<u32> {
        let id = self.id(STRUCT, type_name).or_else(|| self.id(UNION, type_name))?;
        self.u32(self.type_at(id)? + 8).ok()
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, enum_name: &str, enumerator: &str) -> Option<u32> {
        if let Some(id) = self.id(ENUM, enum_name) {
            return self.find_enumerator(id, 8, enumerator.as_bytes());
        }
        self.find_enumerator(self.id(ENUM64, enum_name)?, 12, enumerator.as_bytes())
    }

    /// Type id of a tracepoint, if the kernel has it.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.id(TYPEDEF, &format!("{TRACEPOINT_TYPES}{name}"))
    }

    /// Type id of a variable. The kernel describes those of which each CPU has its own.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<u32> {
        self.id(VAR, name)
    }

    /// Where a type begins.
    pub(super) fn type_at(&self, id: u32) -> Option<usize> {
        self.types.get(id as usize).copied()
    }

    /// Number of arguments of a tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        let mut at = *self.types.get(self.tracepoint(name)? as usize)?;
        // typedef void (*btf_trace_NAME)(void *data, arguments)
        for _ in 0..MAX_NESTING {
            let (kind, count) = self.kind_and_count(at).ok()?;
            match kind {
                FUNC_PROTO => return u32::try_from(count).ok()?.checked_sub(1),
                TYPEDEF | PTR | CONST => at = *self.types.get(self.u32(at + 8).ok()? as usize)?,
                _ => return None,
            }
        }
        None
    }

    /// Position of a tracepoint's argument of that name: the typedef has none, the functions that are made for the tracepoint do, as far as
    /// type information has them.
    #[must_use]
    pub fn tracepoint_argument(&self, tracepoint: &str, argument: &str) -> Option<u32> {
        tracepoint_functions(tracepoint).iter().find_map(|function| {
            let prototype = self.type_at(self.u32(self.type_at(self.id(FUNC, function)?)? + 8).ok()?)?;
            let (kind, count) = self.kind_and_count(prototype).ok()?;
            let name = |n: usize| self.string(self.u32(prototype + 12 + 8 * n).ok()?).ok();
            let at = (0..if kind == FUNC_PROTO { count } else { 0 }).find(|n| name(*n) == Some(argument.as_bytes()))?;
            // Behind the data that the tracepoint was registered with.
            u32::try_from(at).ok()?.checked_sub(1)
        })
    }

    pub(super) fn id(&self, kind: u32, name: &str) -> Option<u32> {
        self.by_name.get(&(kind, name.as_bytes().to_vec())).copied()
    }

    /// Bit offset of a member below type `id`.
    fn find_member(&self, id: u32, member: &[u8], depth: u32) -> Option<u32> {
        if depth > MAX_NESTING {
            return None;
        }
        let at = self.type_at(id)?;
        let (kind, count) = self.kind_and_count(at).ok()?;
        if matches!(kind, TYPEDEF | CONST | VOLATILE | RESTRICT | TYPE_TAG) {
            return self.find_member(self.u32(at + 8).ok()?, member, depth + 1);
        }
        if kind != STRUCT && kind != UNION {
            return None;
        }
        let bitfields = self.u32(at + 4).ok()? >> 31 == 1;
        for i in 0..count {
            let entry = at + 12 + 12 * i;
            let name = self.string(self.u32(entry).ok()?).ok()?;
            let raw = self.u32(entry + 8).ok()?;
            let offset = if bitfields { raw & 0x00ff_ffff } else { raw };
            if name == member {
                return Some(offset);
            }
            if name.is_empty()
                && let Some(inner) = self.find_member(self.u32(entry + 4).ok()?, member, depth + 1)
            {
                return offset.checked_add(inner);
            }
        }
        None
    }

    fn find_enumerator(&self, id: u32, stride: usize, enumerator: &[u8]) -> Option<u32> {
        let at = self.type_at(id)?;
        let (_, count) = self.kind_and_count(at).ok()?;
        for i in 0..count {
            let entry = at + 12 + stride * i;
            if self.string(self.u32(entry).ok()?).ok()? == enumerator {
                return self.u32(entry + 4).ok();
            }
        }
        None
    }

    pub(super) fn kind_and_count(&self, at: usize) -> Result<(u32, usize), BtfError> {
        let info = self.u32(at + 4)?;
        Ok((info >> 24 & 31, (info & 0xffff) as usize))
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let start = self.strings.checked_add(offset as usize).ok_or(BtfError::Malformed("string offset"))?;
        let rest = self.data.get(start..).ok_or(BtfError::Malformed("string offset"))?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or(BtfError::Malformed("string without end"))?;
        Ok(&rest[..end])
    }

    fn u16(&self, at: usize) -> Result<u16, BtfError> {
        let bytes = self.data.get(at..at + 2).ok_or(BtfError::Malformed("cut"))?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..at + 4).ok_or(BtfError::Malformed("cut"))?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Functions that the kernel makes for a tracepoint, with the names of its arguments.
#[must_use]
pub fn tracepoint_functions(tracepoint: &str) -> [String; 3] {
    ["__bpf_trace_", "__traceiter_", "trace_event_raw_event_"].map(|prefix| format!("{prefix}{tracepoint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_cut_data_is_an_error_and_never_a_panic() {
        assert!(Btf::parse(Vec::new(), |_| true).is_err());
        assert!(Btf::parse(vec![0x7f; 64], |_| true).is_err());
        let mut header = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        header.extend([0_u8; 4]);
        header.extend(u32::MAX.to_le_bytes());
        header.extend([0_u8; 8]);
        assert!(Btf::parse(header, |_| true).is_err());
    }

    #[test]
    fn the_running_kernel_has_what_every_kernel_has() {
        let Ok(btf) = Btf::from_file(Path::new("/sys/kernel/btf/vmlinux"), |_| true) else { return };
        assert!(btf.size("page").is_some_and(|size| size >= 56));
        assert!(btf.member_offset("task_struct", "comm").is_some());
        assert_eq!(btf.member_offset("page", "no_such_member"), None);
        assert!(btf.enumerator("pageflags", "PG_lru").is_some());
        assert!(btf.tracepoint("mm_page_alloc").is_some() && btf.tracepoint("no_such_tracepoint").is_none());
        assert!(btf.variable("runqueues").is_some() && btf.variable("no_such_variable").is_none());
        assert_eq!(btf.tracepoint_argument("mm_page_alloc", "order"), Some(1));
        assert_eq!(btf.tracepoint_argument("mm_page_alloc", "no_such_argument"), None);
        assert_eq!(btf.tracepoint_argument("mm_page_alloc", "__data"), None);
    }
}
