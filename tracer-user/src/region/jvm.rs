//! Where a HotSpot JVM has its heap and its compiled code, from the description of itself that it exports for debuggers
//! ([`super::vm_structs`]). Metaspace and the collector's tables are not in that description (before JDK 22): they are told by the functions of the JVM
//! that reserved them, where those were seen and its library has their names.

use super::Class;
use super::PAGE_BYTES;
use super::classify::{Claim, by};
use super::memory::ReadMemory;
use super::vm_structs::{Field, VmStructs, is_text};
use std::fs::File;

/// Most flags of a JVM; JDK 17 has some 1200.
const MOST_FLAGS: u64 = 4096;
/// The flag without which compiled code leaves no frame that a walk of frame pointers sees: it passes over the method.
const FRAME_POINTERS: &str = "PreserveFramePointer";

/// The fields asked for: type and name.
const WANTED: &[Field] = &[
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
    let Some(found) = VmStructs::read(memory, start, library, WANTED, &["JVMFlag"]) else {
        log::debug!("a JVM at {start:#x} does not describe itself");
        return Description::default();
    };
    let claim = |range: Option<(u64, u64)>, class| {
        let (start, end) = range?;
        let is_range = start != 0 && start < end && start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        is_range.then_some(Claim { start, end, class, by: by::VM_STRUCTS })
    };
    let heap = heap(&found, memory);
    let code = code(&found, memory);
    let claims = [claim(heap, Class::JavaHeap), claim(code, Class::JavaCode)].into_iter().flatten().collect();
    Description { claims, java_frames: flag(&found, memory, library, FRAME_POINTERS) }
}

/// Value of a flag that is true or false.
fn flag(found: &VmStructs, memory: &mut dyn ReadMemory, library: &File, wanted: &str) -> Option<bool> {
    let (table, flags) = (found.value(memory, ("JVMFlag", "flags"))?, found.value(memory, ("JVMFlag", "numFlags"))?);
    let (name, address) = (found.offset(("JVMFlag", "_name"))?, found.offset(("JVMFlag", "_addr"))?);
    let is_sane = |bytes: &u64| (16..=256).contains(bytes) && name < *bytes && address < *bytes;
    let bytes = found.bytes("JVMFlag").filter(is_sane)?;
    let flag = (0..flags.min(MOST_FLAGS)).map_while(|index| table.checked_add(index * bytes)).find(|flag| {
        let text = memory.word(flag.wrapping_add(name)).unwrap_or(0);
        text != 0 && is_text(&found.text(library, text), wanted)
    })?;
    let mut value = [0];
    let at = memory.word(flag.wrapping_add(address))?;
    memory.read(at, &mut value).then_some(value[0] != 0)
}

/// All that is reserved for objects.
fn heap(found: &VmStructs, memory: &mut dyn ReadMemory) -> Option<(u64, u64)> {
    let heap = found.value(memory, ("Universe", "_collectedHeap"))?;
    let reserved = heap.checked_add(found.offset(("CollectedHeap", "_reserved"))?)?;
    let start = memory.word(reserved.checked_add(found.offset(("MemRegion", "_start"))?)?)?;
    let words = memory.word(reserved.checked_add(found.offset(("MemRegion", "_word_size"))?)?)?;
    Some((start, start.checked_add(words.checked_mul(8)?)?))
}

/// From the lowest to the highest code heap.
fn code(found: &VmStructs, memory: &mut dyn ReadMemory) -> Option<(u64, u64)> {
    Some((found.value(memory, ("CodeCache", "_low_bound"))?, found.value(memory, ("CodeCache", "_high_bound"))?))
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
