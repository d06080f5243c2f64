//! Where a HotSpot JVM keeps what the kernel half reads, by its own description ([`crate::region::vm_structs`]).
//!
//! The description is read in one process of each build, since the library writes it as it is loaded. What it does not say is from HotSpot's sources, and was
//! tried on JDK 8, 11, 17, 21, 25 and 26.

use crate::{
    host::proc::{Process, maps::Vma},
    region::{
        jvm::is_jvm,
        memory::{ProcessMemory, ReadMemory},
        vm_structs::{Field, VmStructs},
    },
};
use std::{fs::File, io, os::unix::fs::MetadataExt as _};
use tracer_common::{
    layout::ABSENT,
    managed::hotspot::{HotSpot, LINES, LINES_WITHOUT_ZERO},
};

/// The symbol by which the library is known.
const SYMBOL: &[u8] = b"gHotSpotVMStructs";

const HEAPS: Field = ("CodeCache", "_heaps");
/// In JDK 8, the only one.
const HEAP: Field = ("CodeCache", "_heap");
const INTERPRETER: Field = ("AbstractInterpreter", "_code");
const MAJOR: Field = ("Abstract_VM_Version", "_vm_major_version");

/// All that is asked for. Some are of one version only.
const WANTED: &[Field] = &[
    HEAPS,
    HEAP,
    INTERPRETER,
    MAJOR,
    ("GrowableArray<int>", "_data"),
    ("CodeHeap", "_memory"),
    ("CodeHeap", "_segmap"),
    ("CodeHeap", "_log2_segment_size"),
    ("VirtualSpace", "_low_boundary"),
    ("VirtualSpace", "_high_boundary"),
    ("VirtualSpace", "_low"),
    ("StubQueue", "_stub_buffer"),
    ("StubQueue", "_buffer_limit"),
    ("CodeBlob", "_name"),
    ("CodeBlob", "_frame_size"),
    ("CodeBlob", "_frame_complete_offset"),
    ("CodeBlob", "_code_begin"),
    ("CodeBlob", "_code_offset"),
    ("CodeBlob", "_mutable_data"),
    ("CodeBlob", "_relocation_size"),
    ("CompiledMethod", "_method"),
    ("CompiledMethod", "_scopes_data_begin"),
    ("CompiledMethod", "_deopt_handler_begin"),
    ("CompiledMethod", "_deopt_mh_handler_begin"),
    ("nmethod", "_method"),
    ("nmethod", "_compile_id"),
    ("nmethod", "_immutable_data"),
    ("nmethod", "_scopes_pcs_offset"),
    ("nmethod", "_scopes_data_offset"),
    ("nmethod", "_dependencies_offset"),
    ("nmethod", "_metadata_offset"),
    ("nmethod", "_deopt_handler_offset"),
    ("nmethod", "_deopt_handler_entry_offset"),
    ("nmethod", "_deoptimize_offset"),
    ("nmethod", "_deopt_mh_handler_offset"),
    ("nmethod", "_deoptimize_mh_offset"),
    ("nmethod", "_orig_pc_offset"),
    ("Method", "_constMethod"),
    ("ConstMethod", "_constants"),
    ("ConstMethod", "_constMethod_size"),
    ("ConstMethod", "_flags"),
    ("ConstMethod", "_flags._flags"),
    ("ConstMethod", "_code_size"),
    ("ConstMethod", "_name_index"),
    ("ConstMethod", "_signature_index"),
    ("ConstantPool", "_pool_holder"),
    ("ConstantPool", "_source_file_name_index"),
    ("InstanceKlass", "_source_file_name_index"),
    ("Klass", "_name"),
    ("Symbol", "_length"),
    ("Symbol", "_body"),
];
const TYPES: &[&str] = &["HeapBlock", "ConstMethod", "ConstantPool"];

/// Why a JVM is not known.
#[derive(Debug, thiserror::Error)]
pub enum NotKnown {
    /// Of another version. The words follow its name.
    #[error("a JVM of unknown layout (HotSpot {0}) is not known to this version of memtrail: methods of Java have names by perf maps only")]
    Layout(u32),
    /// Its library has just been loaded, or its memory cannot be read.
    #[error("it has not described itself yet")]
    NotYet,
    /// The process is gone, or does not let itself be read.
    #[error(transparent)]
    Gone(#[from] io::Error),
}

/// Whether a symbol of that name tells that a file is a JVM.
#[must_use]
pub fn wants(name: &[u8]) -> bool {
    name == SYMBOL
}

/// Asks the process that has the library mapped at that address; 0: somewhere.
///
/// # Errors
/// See [`NotKnown`].
pub fn ask(tgid: u32, start: u64, library: &File) -> Result<HotSpot, NotKnown> {
    let process = Process::open(tgid)?;
    let maps = process.maps()?;
    let inode = library.metadata()?.ino();
    // Another process may have come to its id, and another file to its addresses.
    let is_code = |vma: &&Vma| {
        let is_there = if start == 0 { is_jvm(&vma.name) } else { (vma.start..vma.end).contains(&start) };
        is_there && vma.execute && vma.inode == inode
    };
    let code = maps.vmas.iter().find(is_code).ok_or(NotKnown::NotYet)?;
    let is_beginning = |vma: &&Vma| vma.offset == 0 && (vma.inode, vma.device) == (code.inode, code.device) && vma.start <= code.start;
    let beginning = maps.vmas.iter().rfind(is_beginning).ok_or(NotKnown::NotYet)?;
    let mut memory = ProcessMemory::open(&process)?;
    let said = VmStructs::read(&mut memory, beginning.start, library, WANTED, TYPES).ok_or(NotKnown::NotYet)?;
    // Where the kernel half counts from.
    let base = code.start.wrapping_sub(code.offset);
    let place = |field| said.address(field).map(|address| address.wrapping_sub(base));
    let mut major = [0; 4];
    if !said.address(MAJOR).is_some_and(|at| memory.read(at, &mut major)) {
        return Err(NotKnown::NotYet);
    }
    let said = Said {
        offset: &|field| said.offset(field).and_then(|offset| u32::try_from(offset).ok()),
        bytes: &|name| said.bytes(name).and_then(|bytes| u32::try_from(bytes).ok()),
        heaps: place(HEAPS),
        heap: place(HEAP),
        interpreter: place(INTERPRETER),
        major: u32::from_ne_bytes(major),
    };
    layout(&said).ok_or(NotKnown::Layout(said.major))
}

/// What a JVM says.
struct Said<'a> {
    offset: &'a dyn Fn(Field) -> Option<u32>,
    bytes: &'a dyn Fn(&str) -> Option<u32>,
    /// Places of [`HEAPS`], [`HEAP`] and [`INTERPRETER`].
    heaps: Option<u64>,
    heap: Option<u64>,
    interpreter: Option<u64>,
    major: u32,
}

/// What of it the kernel half reads; `None` if that is not all there.
fn layout(said: &Said<'_>) -> Option<HotSpot> {
    /// From this version on the bytes of numbers are one more than their digits (JDK-8292758).
    const WITHOUT_ZERO: u32 = 20;
    let of = |name: &'static str| move |field: &'static str| (said.offset)((name, field));
    let (heap, space, queue, blob, compiled, native) =
        (of("CodeHeap"), of("VirtualSpace"), of("StubQueue"), of("CodeBlob"), of("CompiledMethod"), of("nmethod"));
    let (constant, pool) = (of("ConstMethod"), of("ConstantPool"));
    let (segments, memory) = (heap("_segmap")?, heap("_memory")?);
    let immutable = native("_immutable_data");
    // JDK 8 calls its JVM 25.
    let is_oldest = said.heap.is_some();
    let is_relative = is_oldest || immutable.is_some();
    let source = pool("_source_file_name_index");
    let either = |old: Option<u32>, new: Option<u32>| if is_relative { new } else { old };
    Some(HotSpot {
        heaps: said.heap.or(said.heaps)?,
        interpreter: said.interpreter?,
        list_data: if is_oldest { ABSENT } else { (said.offset)(("GrowableArray<int>", "_data"))? },
        heap_low: memory.checked_add(space("_low_boundary")?)?,
        heap_high: memory.checked_add(space("_high_boundary")?)?,
        heap_segments: segments.checked_add(space("_low")?)?,
        heap_shift: heap("_log2_segment_size")?,
        queue_start: queue("_stub_buffer")?,
        queue_bytes: queue("_buffer_limit")?,
        block_bytes: (said.bytes)("HeapBlock")?,
        blob_name: blob("_name")?,
        blob_frame: blob("_frame_size")?,
        blob_complete: blob("_frame_complete_offset")?,
        complete_mask: if immutable.is_some() { u16::MAX.into() } else { u32::MAX },
        blob_code: either(blob("_code_begin"), blob("_code_offset"))?,
        is_relative: is_relative.into(),
        method: either(compiled("_method"), native("_method"))?,
        compile_id: native("_compile_id")?,
        immutable: immutable.unwrap_or(ABSENT),
        places: native("_scopes_pcs_offset")?,
        places_end: if immutable.is_some() { native("_scopes_data_offset") } else { native("_dependencies_offset") }?,
        scopes: either(compiled("_scopes_data_begin"), native("_scopes_data_offset"))?,
        metadata: if immutable.is_some() { blob("_mutable_data") } else { native("_metadata_offset") }?,
        relocation: if immutable.is_some() { blob("_relocation_size")? } else { 0 },
        deoptimised: either(
            compiled("_deopt_handler_begin"),
            ["_deopt_handler_entry_offset", "_deopt_handler_offset", "_deoptimize_offset"].into_iter().find_map(native),
        )?,
        deoptimised_call: either(
            compiled("_deopt_mh_handler_begin"),
            native("_deopt_mh_handler_offset").or_else(|| native("_deoptimize_mh_offset")),
        )
        .unwrap_or(ABSENT),
        original: native("_orig_pc_offset")?,
        method_const: of("Method")("_constMethod")?,
        const_pool: constant("_constants")?,
        const_words: constant("_constMethod_size")?,
        const_flags: constant("_flags").or_else(|| constant("_flags._flags"))?,
        const_code_bytes: constant("_code_size")?,
        const_name: constant("_name_index")?,
        const_signature: constant("_signature_index")?,
        const_code: (said.bytes)("ConstMethod")?,
        pool_class: pool("_pool_holder")?,
        source: source.or_else(|| of("InstanceKlass")("_source_file_name_index"))?,
        source_in_class: source.is_none().into(),
        pool_first: (said.bytes)("ConstantPool")?,
        class_name: of("Klass")("_name")?,
        symbol_bytes: of("Symbol")("_length")?,
        symbol_text: of("Symbol")("_body")?,
        lines: if !is_oldest && said.major >= WITHOUT_ZERO { LINES_WITHOUT_ZERO } else { LINES },
        // Since JDK 9 the class of the method stands in the frame, too.
        bytecode: if is_oldest { 56 } else { 64 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, fs::read_to_string};

    /// What a JVM said, in the lines of a fixture: `TYPE FIELD OFFSET`, `TYPE FIELD static`, `TYPE = BYTES`, `major = VERSION`.
    fn said(version: u32) -> HashMap<(String, String), String> {
        let path = format!("{}/tests/fixtures/hotspot/{version}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = read_to_string(path).unwrap();
        let entry = |line: &str| {
            let words: Vec<&str> = line.rsplitn(3, ' ').collect();
            ((words[2].to_owned(), words[1].to_owned()), words[0].to_owned())
        };
        text.lines().map(entry).collect()
    }

    fn layout_of(said: &HashMap<(String, String), String>) -> Option<HotSpot> {
        let number = |of: &str, name: &str| said.get(&(of.to_owned(), name.to_owned()))?.parse().ok();
        let place = |(of, name): Field, place: u64| said.get(&(of.to_owned(), name.to_owned())).map(|_| place);
        layout(&Said {
            offset: &|(of, name)| number(of, name),
            bytes: &|name| number(name, "="),
            heaps: place(HEAPS, 0x1000),
            heap: place(HEAP, 0x3000),
            interpreter: place(INTERPRETER, 0x2000),
            major: number("major", "=").unwrap(),
        })
    }

    #[test]
    fn each_version_is_laid_out_as_it_says() {
        let [eleven, seventeen, twenty_one, twenty_five] = [11, 17, 21, 25].map(|version| layout_of(&said(version)).unwrap());
        // The source of a class moved to its constants, code lost its addresses, and numbers their zeros.
        assert_eq!((eleven.source_in_class, eleven.source, seventeen.source_in_class, seventeen.source), (1, 298, 0, 54));
        assert_eq!([eleven, seventeen, twenty_one, twenty_five].map(|layout| layout.is_relative), [0, 0, 0, 1]);
        let lines = [eleven, seventeen, twenty_one, twenty_five].map(|layout| layout.lines);
        assert_eq!(lines, [LINES, LINES, LINES_WITHOUT_ZERO, LINES_WITHOUT_ZERO]);
        assert_eq!((seventeen.block_bytes, twenty_five.block_bytes), (16, 8));
        assert_eq!((seventeen.immutable, seventeen.metadata, seventeen.places, seventeen.places_end), (ABSENT, 260, 268, 272));
        assert_eq!((twenty_five.immutable, twenty_five.metadata, twenty_five.relocation), (96, 16, 28));
        assert_eq!((twenty_five.places, twenty_five.places_end, twenty_five.scopes), (196, 200, 200));
        assert_eq!((eleven.heap_low, eleven.heap_high, eleven.heap_segments), (8, 16, 136));
        assert_eq!((seventeen.heaps, seventeen.interpreter, seventeen.list_data), (0x1000, 0x2000, 8));
        let eight = layout_of(&said(8)).unwrap();
        assert_eq!((eight.heaps, eight.list_data, eight.is_relative, eight.bytecode, eight.lines), (0x3000, ABSENT, 1, 56, LINES));
        assert_eq!((eight.places, eight.places_end, eight.scopes, eight.metadata, eight.deoptimised), (180, 184, 176, 172, 148));
        assert_eq!([eight, seventeen, twenty_five].map(|layout| layout.deoptimised_call), [152, 136, 180]);
        assert_eq!([eight, seventeen, twenty_five].map(|layout| layout.complete_mask), [u32::MAX, u32::MAX, 0xffff]);
    }

    #[test]
    fn what_is_missing_in_a_description_is_not_made_up() {
        for version in [8, 11, 17, 21, 25, 26] {
            let whole = said(version);
            for field in whole.keys().filter(|(of, name)| of != "major" && name != "_vm_major_version") {
                let mut part = whole.clone();
                part.remove(field);
                match layout_of(&part) {
                    None => {}
                    // Not every one has it.
                    Some(found) if field.1.contains("_mh_") => assert_eq!(found.deoptimised_call, ABSENT),
                    // The oldest has no list of heaps, and keeps methods elsewhere.
                    Some(_)
                        if version == 8
                            && ["GrowableArray<int>._data", "CodeBlob._relocation_size"]
                                .contains(&&*format!("{}.{}", field.0, field.1)) => {}
                    Some(found) => panic!("{version} without {field:?} is {found:?}"),
                }
            }
        }
    }

    #[test]
    fn another_process_than_a_jvm_is_not_known() {
        let own = File::open("/proc/self/exe").unwrap();
        assert!(matches!(ask(std::process::id(), 0, &own), Err(NotKnown::NotYet)));
        assert!(matches!(ask(u32::MAX, 0, &own), Err(NotKnown::Gone(_))));
    }
}
