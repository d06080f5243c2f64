//! Where a HotSpot JVM has its heap and its compiled code, from the description of itself that it exports for debuggers:
//! `gHotSpotVMStructs` (src/hotspot/share/runtime/vmStructs.cpp), an array of fields with their offsets and, of static ones, addresses.
//!
//! Found in the library's dynamic symbols (read from the file that memtrail opened), its values in the process's memory. Nothing is asked
//! of the JVM. Metaspace and the collector's tables are not in that description (before JDK 22): they are told by the functions of the JVM
//! that reserved them, where those were seen and its library has their names.

use super::PAGE_BYTES;
use super::classify::{Claim, by};
use super::memory::ReadMemory;
use super::{Class, elf};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Most fields that a JVM describes; JDK 17 has some 2600.
const MOST_FIELDS: u64 = 16_384;
/// Longest name compared, with its NUL.
const NAME_BYTES: usize = 24;

/// The fields asked for: type and name.
const WANTED: [(&str, &str); 6] = [
    ("Universe", "_collectedHeap"),
    ("CollectedHeap", "_reserved"),
    ("MemRegion", "_start"),
    ("MemRegion", "_word_size"),
    ("CodeCache", "_low_bound"),
    ("CodeCache", "_high_bound"),
];

/// What a stack that reserved address space tells of it, by the JVM's own functions (innermost frames of src/hotspot). `None` for everything
/// else: a stack of a thread, say, that one of them started.
#[must_use]
pub fn reserved_by(frames: &[String]) -> Option<Class> {
    // G1 and what all collectors share; Parallel; Shenandoah. ZGC reserves its heap otherwise.
    const COLLECTOR: [&str; 6] = ["G1", "CardTable::", "ParMarkBitMap::", "ParallelCompactData::", "ShenandoahHeap::", "MarkBitMap::"];
    let reserves = |frame: &String| frame.starts_with("os::") && frame.contains("reserve_memory");
    if !frames.iter().any(reserves) {
        return None;
    }
    let begins = |names: &[&str]| frames.iter().any(|frame| names.iter().any(|name| frame.starts_with(name)));
    if begins(&["metaspace::", "Metaspace::"]) {
        Some(Class::JavaMetaspace)
    } else if begins(&["ReservedHeapSpace::"]) {
        // The heap, which describes itself.
        None
    } else {
        begins(&COLLECTOR).then_some(Class::JavaGc)
    }
}

/// The file of the JVM, which has no other name on Linux.
#[must_use]
pub fn is_jvm(path: &[u8]) -> bool {
    path.ends_with(b"/libjvm.so")
}

/// Ranges of a JVM whose library's beginning is mapped at `start`.
pub fn claims(memory: &mut dyn ReadMemory, start: u64, library: &File) -> Vec<Claim> {
    let Some(found) = Fields::read(memory, start, library) else {
        log::debug!("a JVM at {start:#x} does not describe itself");
        return Vec::new();
    };
    let claim = |range: Option<(u64, u64)>, class| {
        let (start, end) = range?;
        let is_range = start != 0 && start < end && start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        is_range.then_some(Claim { start, end, class, by: by::VM_STRUCTS })
    };
    let heap = found.heap(memory);
    let code = found.code(memory);
    [claim(heap, Class::JavaHeap), claim(code, Class::JavaCode)].into_iter().flatten().collect()
}

/// Offsets, and addresses of static ones, of the fields in [`WANTED`].
struct Fields(HashMap<(&'static str, &'static str), (u64, u64)>);

impl Fields {
    fn read(memory: &mut dyn ReadMemory, start: u64, library: &File) -> Option<Fields> {
        let file = elf::Dynamic::read(library, b"gHotSpot")?;
        let bias = file.bias(start);
        let mut word = |name: &str| memory.word(bias.wrapping_add(file.symbol(name)?));
        let table = word("gHotSpotVMStructs")?;
        let stride = word("gHotSpotVMStructEntryArrayStride")?;
        let [type_name, field_name, offset, address] = ["TypeName", "FieldName", "Offset", "Address"]
            .map(|field| word(&format!("gHotSpotVMStructEntry{field}Offset")).filter(|at| *at < stride && stride <= 256));
        let (type_name, field_name, offset, address) = (type_name?, field_name?, offset?, address?);
        let mut fields = HashMap::new();
        for index in 0..MOST_FIELDS {
            let entry = table.checked_add(index * stride)?;
            let names = [type_name, field_name].map(|at| memory.word(entry.wrapping_add(at)).unwrap_or(0));
            if names.contains(&0) || fields.len() == WANTED.len() {
                break;
            }
            let [type_name, field_name] = names.map(|name| file.text(library, name.wrapping_sub(bias)));
            let is_it = |(wanted, field): &&(&str, &str)| is_text(&type_name, wanted) && is_text(&field_name, field);
            if let Some(wanted) = WANTED.iter().find(is_it) {
                let value = |memory: &mut dyn ReadMemory, at| memory.word(entry.wrapping_add(at)).unwrap_or(0);
                fields.insert(*wanted, (value(memory, offset), value(memory, address)));
            }
        }
        Some(Fields(fields))
    }

    /// Value of a static field.
    fn value(&self, memory: &mut dyn ReadMemory, field: (&str, &str)) -> Option<u64> {
        memory.word(self.0.get(&field)?.1)
    }

    fn offset(&self, field: (&str, &str)) -> Option<u64> {
        self.0.get(&field).map(|(offset, _)| *offset)
    }

    /// All that is reserved for objects.
    fn heap(&self, memory: &mut dyn ReadMemory) -> Option<(u64, u64)> {
        let heap = self.value(memory, ("Universe", "_collectedHeap"))?;
        let reserved = heap.checked_add(self.offset(("CollectedHeap", "_reserved"))?)?;
        let start = memory.word(reserved.checked_add(self.offset(("MemRegion", "_start"))?)?)?;
        let words = memory.word(reserved.checked_add(self.offset(("MemRegion", "_word_size"))?)?)?;
        Some((start, start.checked_add(words.checked_mul(8)?)?))
    }

    /// From the lowest to the highest code heap.
    fn code(&self, memory: &mut dyn ReadMemory) -> Option<(u64, u64)> {
        let low = self.value(memory, ("CodeCache", "_low_bound"))?;
        let high = self.value(memory, ("CodeCache", "_high_bound"))?;
        Some((low, high))
    }
}

fn is_text(bytes: &[u8; NAME_BYTES], text: &str) -> bool {
    bytes.starts_with(text.as_bytes()) && bytes.get(text.len()) == Some(&0)
}

impl elf::Dynamic {
    /// Bytes at an address of the file; zeros where it has none.
    fn text(&self, library: &File, address: u64) -> [u8; NAME_BYTES] {
        let mut bytes = [0; NAME_BYTES];
        match self.file_offset(address) {
            Some(offset) if library.read_at(&mut bytes, offset).is_ok() => bytes,
            _ => [0; NAME_BYTES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As JDK 17 has them.
    #[test]
    fn what_the_jvm_reserves() {
        let told = |frames: &[&str]| reserved_by(&frames.iter().map(|frame| (*frame).to_owned()).collect::<Vec<_>>());
        const RESERVE: &str = "os::reserve_memory(unsigned long, bool, MEMFLAGS)";
        let class_space =
            ["universe_init()", "Metaspace::reserve_address_space_for_compressed_classes(unsigned long)", RESERVE, "__GI___mmap64"];
        assert_eq!(told(&class_space), Some(Class::JavaMetaspace));
        assert_eq!(told(&["metaspace::VirtualSpaceNode::create_node(unsigned long)", RESERVE]), Some(Class::JavaMetaspace));
        assert_eq!(told(&["G1CollectedHeap::initialize()", "G1CMMarkStack::resize(unsigned long)", RESERVE]), Some(Class::JavaGc));
        let heap = ["G1CollectedHeap::initialize()", "ReservedHeapSpace::try_reserve_range(char*)", "os::attempt_reserve_memory_at(char*)"];
        assert_eq!(told(&heap), None);
        assert_eq!(told(&["G1CollectedHeap::initialize()", "os::create_thread(Thread*)", "__pthread_create_2_1", "mmap64"]), None);
        assert_eq!(told(&["main", RESERVE]), None);
        assert_eq!(told(&["metaspace::x()", "malloc"]), None);
    }
}
