//! What a HotSpot JVM says of itself for debuggers: `gHotSpotVMStructs` and `gHotSpotVMTypes` (src/hotspot/share/runtime/vmStructs.cpp), arrays of
//! fields with their offsets or, of static ones, addresses, and of types with their sizes.
//!
//! They are found by the library's dynamic symbols, which are read from the file that memtrail opened; their values stand in the process's memory, since the
//! library's own initialisation writes them. Nothing is asked of the JVM, and all of it is hostile.

use super::elf;
use super::memory::ReadMemory;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Most fields, and most types, that a JVM describes; JDK 17 has some 2600 fields.
const MOST: u64 = 16_384;
/// Longest name compared, with its NUL.
pub const NAME_BYTES: usize = 32;
/// Most bytes of an entry.
const MOST_ENTRY_BYTES: u64 = 256;

/// A field, by its type and its name.
pub type Field = (&'static str, &'static str);

/// The beginning of a name, with zeros behind it.
pub type Text = [u8; NAME_BYTES];

/// Takes two names and two values of an entry. Whether more entries are wanted.
type Take = dyn FnMut(&mut VmStructs, [Text; 2], [u64; 2]) -> bool;

/// Some of what a JVM describes.
#[derive(Debug)]
pub struct VmStructs {
    /// Offsets, and addresses of static ones.
    fields: HashMap<Field, (u64, u64)>,
    /// Bytes of each.
    types: HashMap<&'static str, u64>,
    library: elf::Dynamic,
    /// From addresses of the file to those of the process.
    bias: u64,
}

impl VmStructs {
    /// Reads those that are wanted, as far as there are such, of the library whose beginning is mapped at `start`; `None` where it describes nothing, or has not
    /// begun to.
    pub fn read(
        memory: &mut dyn ReadMemory,
        start: u64,
        library: &File,
        wanted: &'static [Field],
        types: &'static [&'static str],
    ) -> Option<VmStructs> {
        let file = elf::Dynamic::read(library, b"gHotSpot")?;
        let bias = file.bias(start);
        let mut found = VmStructs { fields: HashMap::new(), types: HashMap::new(), library: file, bias };
        let [type_name, field_name, offset, address] = ["TypeName", "FieldName", "Offset", "Address"];
        found.entries(memory, library, "Struct", [type_name, field_name], [offset, address], &mut |found, [of, name], values| {
            let field = wanted.iter().find(|(wanted, field)| is_text(&of, wanted) && is_text(&name, field));
            found.fields.extend(field.map(|field| (*field, (values[0], values[1]))));
            found.fields.len() < wanted.len()
        })?;
        if !types.is_empty() {
            found.entries(memory, library, "Type", [type_name, type_name], ["Size", "Size"], &mut |found, [name, _], [bytes, _]| {
                found.types.extend(types.iter().find(|wanted| is_text(&name, wanted)).map(|name| (*name, bytes)));
                found.types.len() < types.len()
            })?;
        }
        Some(found)
    }

    /// Goes through one of the arrays, as long as more is wanted.
    fn entries(
        &mut self,
        memory: &mut dyn ReadMemory,
        library: &File,
        array: &str,
        names: [&str; 2],
        values: [&str; 2],
        take: &mut Take,
    ) -> Option<()> {
        let mut word = |name: &str| memory.word(self.bias.wrapping_add(self.library.symbol(name)?));
        let first = word(&format!("gHotSpotVM{array}s"))?;
        let stride = word(&format!("gHotSpotVM{array}EntryArrayStride"))?;
        let mut place = |field: &str| {
            word(&format!("gHotSpotVM{array}Entry{field}Offset"))
                .filter(|at| at.checked_add(8).is_some_and(|end| end <= stride) && stride <= MOST_ENTRY_BYTES)
        };
        let [names, values] = [names, values].map(|fields| Some([place(fields[0])? as usize, place(fields[1])? as usize]));
        let (names, values) = (names?, values?);
        let mut entry = vec![0; stride as usize];
        for index in 0..MOST {
            if !memory.read(first.checked_add(index * stride)?, &mut entry) {
                return None;
            }
            let at = |place: usize| entry[place..place + 8].try_into().map_or(0, u64::from_ne_bytes);
            let names = names.map(at);
            if names.contains(&0) {
                break;
            }
            let texts = names.map(|name| self.text(library, name));
            if !take(self, texts, values.map(at)) {
                break;
            }
        }
        Some(())
    }

    /// Offset of a field.
    #[must_use]
    pub fn offset(&self, field: Field) -> Option<u64> {
        self.fields.get(&field).map(|(offset, _)| *offset)
    }

    /// Where a static field is.
    #[must_use]
    pub fn address(&self, field: Field) -> Option<u64> {
        self.fields.get(&field).map(|(_, address)| *address)
    }

    /// Value of a static field of eight bytes.
    pub fn value(&self, memory: &mut dyn ReadMemory, field: Field) -> Option<u64> {
        memory.word(self.address(field)?)
    }

    /// Bytes of a type.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.types.get(name).copied()
    }

    /// The beginning of a text of the library's, by its address in the process; zeros where that is not the library's.
    #[must_use]
    pub fn text(&self, library: &File, address: u64) -> Text {
        let mut bytes = [0; NAME_BYTES];
        match self.library.file_offset(address.wrapping_sub(self.bias)) {
            Some(offset) if library.read_at(&mut bytes, offset).is_ok() => bytes,
            _ => [0; NAME_BYTES],
        }
    }
}

/// Whether a text is that one.
#[must_use]
pub fn is_text(bytes: &Text, text: &str) -> bool {
    bytes.starts_with(text.as_bytes()) && bytes.get(text.len()) == Some(&0)
}
