//! What differs between builds of HotSpot, as numbers: the kernel half reads all of them by the same code. Offsets are in bytes.
//!
//! | table | what is in it |
//! |---|---|
//! | `HOTSPOTS` | where each build keeps what is read ([`HotSpot`]), by the number in [`crate::unwind::FileTable::state`] |
//! | `JAVA_PROCESSES` | where each process has its code ([`JavaProcess`]), by its identity |
//! | `JAVA_CODE` | what stands at a place in that code ([`Code`]), by process and address |

/// Builds that there is room for.
pub const HOTSPOTS: u32 = 32;
/// Processes that there is room for.
pub const PROCESSES: u32 = 1024;
/// Places in code that there is room for.
pub const PLACES: u32 = 4096;

/// Heaps of code that a process has at the most.
pub const CODE_HEAPS: usize = 4;
/// Methods that one place in compiled code stands for, at the most: the one that was compiled, and those that were put into it.
pub const MOST_INLINED: usize = 16;
/// Bytes that are read of the record of a piece of code, at the most.
pub const BLOB_BYTES: usize = 384;
/// Bytes that are read of the constant part of a method.
pub const CONST_BYTES: usize = 56;

/// In the room for a function's file, the name of the class: so many bytes, and the name of its source behind.
pub const CLASS_BYTES: usize = 192;
/// See [`CLASS_BYTES`].
pub const SOURCE_BYTES: usize = super::FILE_BYTES - CLASS_BYTES;

/// The kinds of tables of lines that methods have ([`super::FunctionEvent::lines_format`]): pairs of a byte each or of numbers, whose bytes
/// stand for themselves, or from JDK 20 on for one less.
pub const LINES: u32 = 200;
/// See [`LINES`].
pub const LINES_WITHOUT_ZERO: u32 = 201;
/// A piece of the JVM's own code: it has no file.
pub const STUB: u32 = 202;

/// Slots of an interpreted frame (src/hotspot/cpu/x86/frame_x86.hpp), in bytes from its frame pointer; see also [`HotSpot::bytecode`].
pub mod interpreted {
    /// Where the caller's stack pointer stands.
    pub const SENDER: i64 = -8;
    /// The method.
    pub const METHOD: i64 = -24;
}

/// A build of HotSpot, as `gHotSpotVMStructs` of a process describes it (src/hotspot/share/runtime/vmStructs.cpp).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HotSpot {
    /// `CodeCache::_heaps`: added to the address at which the first byte of the file would be mapped as its code is.
    pub heaps: u64,
    /// `AbstractInterpreter::_code`, alike.
    pub interpreter: u64,
    /// In the list of heaps, behind their number, where they stand; [`crate::layout::ABSENT`] where [`HotSpot::heaps`] is the only heap itself, as in
    /// JDK 8.
    pub list_data: u32,
    /// In a heap of code, its beginning and its end.
    pub heap_low: u32,
    /// See [`HotSpot::heap_low`].
    pub heap_high: u32,
    /// In it, a byte a segment: how far before it, at least, the block with it begins.
    pub heap_segments: u32,
    /// In it, the binary logarithm of a segment's bytes.
    pub heap_shift: u32,
    /// In the interpreter's code, where it begins and how many bytes it has.
    pub queue_start: u32,
    /// See [`HotSpot::queue_start`].
    pub queue_bytes: u32,
    /// Bytes before the record of a piece of code in its block.
    pub block_bytes: u32,
    /// In a record, the name.
    pub blob_name: u32,
    /// In it, the words of a frame of its.
    pub blob_frame: u32,
    /// In it, from where on in the code the frame is whole, and the bits of that number.
    pub blob_complete: u32,
    /// See [`HotSpot::blob_complete`].
    pub complete_mask: u32,
    /// In it, where the code begins: an address, or if [`HotSpot::is_relative`] an offset in the record.
    pub blob_code: u32,
    /// 1: places are offsets, as in JDK 8, and from JDK 23 on.
    pub is_relative: u32,
    /// In the record of a compiled method, the method.
    pub method: u32,
    /// In it, the number of its compilation.
    pub compile_id: u32,
    /// In it, what does not change after it was made: [`crate::layout::ABSENT`] where that stands in the record itself.
    pub immutable: u32,
    /// In it, an offset there of the list of places in the code.
    pub places: u32,
    /// In it, an offset there of what follows that list.
    pub places_end: u32,
    /// In it, where the scopes are: an address, or an offset there if [`HotSpot::is_relative`].
    pub scopes: u32,
    /// In it, the offset in the record of the list of methods; or with [`HotSpot::immutable`], the address of what changes, in which they
    /// follow so many bytes as [`HotSpot::relocation`] says.
    pub metadata: u32,
    /// See [`HotSpot::metadata`].
    pub relocation: u32,
    /// In it, where a method goes on that is no longer valid: an address, or if [`HotSpot::is_relative`] an offset in the record.
    pub deoptimised: u32,
    /// The same of a call through a method handle; [`crate::layout::ABSENT`] where there is none.
    pub deoptimised_call: u32,
    /// In it, where in the frame of such a one stands where it was.
    pub original: u32,
    /// In a method, its constant part.
    pub method_const: u32,
    /// In that, the constants of the class.
    pub const_pool: u32,
    /// In it, how many words of 8 bytes it has.
    pub const_words: u32,
    /// In it, a word of 16 bits whose lowest bit says that it has a table of lines.
    pub const_flags: u32,
    /// In it, bytes of bytecode.
    pub const_code_bytes: u32,
    /// In it, which of the constants is the name.
    pub const_name: u32,
    /// In it, which is the signature.
    pub const_signature: u32,
    /// In it, the first bytecode.
    pub const_code: u32,
    /// In the constants, the class.
    pub pool_class: u32,
    /// In them, or if [`HotSpot::source_in_class`] in the class, which of them is the name of the source.
    pub source: u32,
    /// See [`HotSpot::source`].
    pub source_in_class: u32,
    /// In them, the first.
    pub pool_first: u32,
    /// In a class, its name.
    pub class_name: u32,
    /// In a name, its bytes.
    pub symbol_bytes: u32,
    /// In it, the first of them.
    pub symbol_text: u32,
    /// [`LINES`] or [`LINES_WITHOUT_ZERO`].
    pub lines: u32,
    /// In an interpreted frame, the bytecode that it is at, where it has called: so many bytes below its frame pointer.
    pub bytecode: u32,
}
crate::assert_size!(HotSpot, 16 + 4 * 42);
crate::plain_data!(HotSpot);

/// Where a process has its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct JavaProcess {
    /// Its identity.
    pub process: u64,
    /// Number in `HOTSPOTS`.
    pub build: u64,
    /// Where the first byte of the JVM's file would be mapped.
    pub base: u64,
    /// Heaps of code; 0: they were not read yet.
    pub heaps: u64,
    /// First address of the interpreter, and how many bytes it has.
    pub interpreter: u64,
    /// See [`JavaProcess::interpreter`].
    pub interpreter_bytes: u64,
    /// First address of each heap.
    pub low: [u64; CODE_HEAPS],
    /// End of each.
    pub high: [u64; CODE_HEAPS],
    /// Its bytes for segments.
    pub segments: [u64; CODE_HEAPS],
    /// Binary logarithm of a segment's bytes.
    pub shift: [u64; CODE_HEAPS],
    /// Its identity once more, as [`Code::check`].
    pub check: u64,
}
crate::assert_size!(JavaProcess, 56 + 32 * CODE_HEAPS);
crate::plain_data!(JavaProcess);

/// What stands at a place in a process's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Code {
    /// Its key, as [`Code::check`].
    pub key: u64,
    /// The record of the piece of code.
    pub blob: u64,
    /// Address from which on its frame is whole.
    pub complete: u64,
    /// Bytes of its frame; 0: it has one by the frame pointer, where it is whole.
    pub frame_bytes: u32,
    /// Number of its compilation: another piece of code in its place has another; 0 of code that is no method.
    pub compile_id: u32,
    /// Frames that stand for it.
    pub count: u64,
    /// They, innermost first, as in a [`crate::stack::StackRecord`].
    pub frames: [u64; MOST_INLINED],
    /// Its key once more: who reads it while it makes room for another sees two that differ.
    pub check: u64,
}
crate::assert_size!(Code, 48 + 8 * MOST_INLINED);
crate::plain_data!(Code);
