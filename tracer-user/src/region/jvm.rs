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

/// Most flags of a JVM; JDK 17 has some 1200.
const MOST_FLAGS: u64 = 4096;
/// The flag without which compiled code leaves no frame that a walk of frame pointers sees: it passes over the method.
const FRAME_POINTERS: &str = "PreserveFramePointer";

/// The fields asked for: type and name.
const WANTED: [(&str, &str); 10] = [
    ("JVMFlag", "_name"),
    ("JVMFlag", "_addr"),
    ("JVMFlag", "flags"),
    ("JVMFlag", "numFlags"),
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
    let calls = |what: &'static str| move |frame: &String| frame.starts_with("os::") && frame.contains(what);
    // Metaspace maps anew what it is about to use of what it has reserved.
    if let Some(commits) = frames.iter().position(calls("commit_memory")) {
        let by_metaspace = commits.checked_sub(1).is_some_and(|outer| frames[outer].starts_with("metaspace::"));
        return by_metaspace.then_some(Class::JavaMetaspace);
    }
    if !frames.iter().any(calls("reserve_memory")) {
        return None;
    }
    let begins = |names: &[&str]| frames.iter().any(|frame| names.iter().any(|name| frame.starts_with(name)));
    if begins(&["metaspace::", "Metaspace::"]) {
        Some(Class::JavaMetaspace)
    } else if begins(&["CodeHeap::"]) {
        // What tells its blocks apart; the code describes itself.
        Some(Class::JavaCode)
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

/// What a JVM says of itself.
#[derive(Debug, Default)]
pub struct Description {
    /// Ranges whose class it tells.
    pub claims: Vec<Claim>,
    /// Whether its compiled code leaves frames on stacks; `None` where it does not tell.
    pub java_frames: Option<bool>,
}

/// Asks a JVM whose library's beginning is mapped at `start`.
pub fn describe(memory: &mut dyn ReadMemory, start: u64, library: &File) -> Description {
    let Some(found) = Fields::read(memory, start, library) else {
        log::debug!("a JVM at {start:#x} does not describe itself");
        return Description::default();
    };
    let claim = |range: Option<(u64, u64)>, class| {
        let (start, end) = range?;
        let is_range = start != 0 && start < end && start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        is_range.then_some(Claim { start, end, class, by: by::VM_STRUCTS })
    };
    let heap = found.heap(memory);
    let code = found.code(memory);
    let claims = [claim(heap, Class::JavaHeap), claim(code, Class::JavaCode)].into_iter().flatten().collect();
    Description { claims, java_frames: found.flag(memory, library, FRAME_POINTERS) }
}

/// What a JVM exports for debuggers.
struct Fields {
    /// Offsets, and addresses of static ones, of the fields in [`WANTED`].
    fields: HashMap<(&'static str, &'static str), (u64, u64)>,
    /// Bytes of a `JVMFlag`.
    flag_bytes: Option<u64>,
    library: elf::Dynamic,
    /// From addresses of the file to those of the process.
    bias: u64,
}

impl Fields {
    fn read(memory: &mut dyn ReadMemory, start: u64, library: &File) -> Option<Fields> {
        let file = elf::Dynamic::read(library, b"gHotSpot")?;
        let bias = file.bias(start);
        let mut word = |name: &str| memory.word(bias.wrapping_add(file.symbol(name)?));
        let types = ["s", "EntryArrayStride", "EntryTypeNameOffset", "EntrySizeOffset"].map(|part| word(&format!("gHotSpotVMType{part}")));
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
        let flag_bytes = size_of_type(memory, types, "JVMFlag", |address| file.text(library, address.wrapping_sub(bias)));
        Some(Fields { fields, flag_bytes, library: file, bias })
    }

    /// Value of a static field.
    fn value(&self, memory: &mut dyn ReadMemory, field: (&str, &str)) -> Option<u64> {
        memory.word(self.fields.get(&field)?.1)
    }

    fn offset(&self, field: (&str, &str)) -> Option<u64> {
        self.fields.get(&field).map(|(offset, _)| *offset)
    }

    /// Value of a flag that is true or false.
    fn flag(&self, memory: &mut dyn ReadMemory, library: &File, wanted: &str) -> Option<bool> {
        let (table, flags) = (self.value(memory, ("JVMFlag", "flags"))?, self.value(memory, ("JVMFlag", "numFlags"))?);
        let (name, address) = (self.offset(("JVMFlag", "_name"))?, self.offset(("JVMFlag", "_addr"))?);
        let bytes = self.flag_bytes.filter(|bytes| name < *bytes && address < *bytes)?;
        let flag = (0..flags.min(MOST_FLAGS)).map_while(|index| table.checked_add(index * bytes)).find(|flag| {
            let text = memory.word(flag.wrapping_add(name)).unwrap_or(0);
            text != 0 && is_text(&self.library.text(library, text.wrapping_sub(self.bias)), wanted)
        })?;
        let mut value = [0];
        let at = memory.word(flag.wrapping_add(address))?;
        memory.read(at, &mut value).then_some(value[0] != 0)
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

/// Bytes of a type in the table of types: its address, its stride, and where in an entry the name and the size are.
fn size_of_type(memory: &mut dyn ReadMemory, table: [Option<u64>; 4], wanted: &str, text: impl Fn(u64) -> [u8; NAME_BYTES]) -> Option<u64> {
    let [Some(start), Some(stride), Some(name), Some(size)] = table else { return None };
    if stride > 256 || name >= stride || size >= stride {
        return None;
    }
    for index in 0..MOST_FIELDS {
        let entry = start.checked_add(index * stride)?;
        let address = memory.word(entry.wrapping_add(name)).filter(|address| *address != 0)?;
        if is_text(&text(address), wanted) {
            return memory.word(entry.wrapping_add(size)).filter(|bytes| (16..=256).contains(bytes));
        }
    }
    None
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
        let commits =
            ["G1CollectedHeap::x()", "metaspace::VirtualSpaceNode::commit_range(MetaWordImpl**)", "os::commit_memory(char*)", "mmap64"];
        assert_eq!(told(&commits), Some(Class::JavaMetaspace));
        assert_eq!(told(&["metaspace::x()", "G1PageBasedVirtualSpace::commit()", "os::commit_memory(char*)"]), None);
        assert_eq!(told(&["CodeCache::initialize()", "CodeHeap::reserve(ReservedSpace)", RESERVE]), Some(Class::JavaCode));
        assert_eq!(told(&["G1CollectedHeap::initialize()", "G1CMMarkStack::resize(unsigned long)", RESERVE]), Some(Class::JavaGc));
        let heap = ["G1CollectedHeap::initialize()", "ReservedHeapSpace::try_reserve_range(char*)", "os::attempt_reserve_memory_at(char*)"];
        assert_eq!(told(&heap), None);
        assert_eq!(told(&["G1CollectedHeap::initialize()", "os::create_thread(Thread*)", "__pthread_create_2_1", "mmap64"]), None);
        assert_eq!(told(&["main", RESERVE]), None);
        assert_eq!(told(&["metaspace::x()", "malloc"]), None);
    }
}
