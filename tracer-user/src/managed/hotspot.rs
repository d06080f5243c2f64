//! Where a HotSpot JVM keeps what the kernel half reads, by its own description ([`crate::region::vm_structs`]).
//!
//! The description is read in one process of each build, since the library writes it as it is loaded. What it does not say is from HotSpot's sources, and was
//! tried on JDK 11, 17, 21 and 25.

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
const INTERPRETER: Field = ("AbstractInterpreter", "_code");
const MAJOR: Field = ("Abstract_VM_Version", "_vm_major_version");

/// All that is asked for. Some are of one version only.
const WANTED: &[Field] = &[
    HEAPS,
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
    ("nmethod", "_method"),
    ("nmethod", "_compile_id"),
    ("nmethod", "_immutable_data"),
    ("nmethod", "_scopes_pcs_offset"),
    ("nmethod", "_scopes_data_offset"),
    ("nmethod", "_dependencies_offset"),
    ("nmethod", "_metadata_offset"),
    ("nmethod", "_deopt_handler_offset"),
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
    let is_code = |vma: &&Vma| match start {
        0 => vma.execute && vma.inode == inode && is_jvm(&vma.name),
        start => (vma.start..vma.end).contains(&start),
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
        statics: [place(HEAPS), place(INTERPRETER)],
        major: u32::from_ne_bytes(major),
    };
    layout(&said).ok_or(NotKnown::Layout(said.major))
}

/// What a JVM says.
struct Said<'a> {
    offset: &'a dyn Fn(Field) -> Option<u32>,
    bytes: &'a dyn Fn(&str) -> Option<u32>,
    /// Places of [`HEAPS`] and [`INTERPRETER`].
    statics: [Option<u64>; 2],
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
    let is_relative = immutable.is_some();
    let source = pool("_source_file_name_index");
    let either = |old: Option<u32>, new: Option<u32>| if is_relative { new } else { old };
    Some(HotSpot {
        heaps: said.statics[0]?,
        interpreter: said.statics[1]?,
        list_data: (said.offset)(("GrowableArray<int>", "_data")).unwrap_or(8),
        heap_low: memory + space("_low_boundary")?,
        heap_high: memory + space("_high_boundary")?,
        heap_segments: segments + space("_low")?,
        heap_shift: heap("_log2_segment_size")?,
        queue_start: queue("_stub_buffer")?,
        queue_bytes: queue("_buffer_limit")?,
        block_bytes: (said.bytes)("HeapBlock")?,
        blob_name: blob("_name")?,
        blob_frame: blob("_frame_size")?,
        blob_complete: blob("_frame_complete_offset")?,
        blob_code: either(blob("_code_begin"), blob("_code_offset"))?,
        is_relative: is_relative.into(),
        method: either(compiled("_method"), native("_method"))?,
        compile_id: native("_compile_id")?,
        immutable: immutable.unwrap_or(ABSENT),
        places: native("_scopes_pcs_offset")?,
        places_end: either(native("_dependencies_offset"), native("_scopes_data_offset"))?,
        scopes: either(compiled("_scopes_data_begin"), native("_scopes_data_offset"))?,
        metadata: either(native("_metadata_offset"), blob("_mutable_data"))?,
        relocation: if is_relative { blob("_relocation_size")? } else { 0 },
        deoptimised: either(compiled("_deopt_handler_begin"), native("_deopt_handler_offset"))?,
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
        lines: if said.major >= WITHOUT_ZERO { LINES_WITHOUT_ZERO } else { LINES },
        reserved: 0,
    })
}
