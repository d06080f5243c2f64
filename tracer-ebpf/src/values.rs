//! What stands in the tables of the kernel half's own, which user space never reads. What both halves read is in `tracer_common`.
//!
//! Types only, without the code that works with them: [`crate::maps`] names them, and everything else names the maps.

use tracer_common::{
    attribution::{KeyRecord, Sample},
    file::FileRecord,
    managed::{
        FunctionEvent, KnownFunction,
        hotspot::{BLOB_BYTES, Code, JavaProcess, MOST_INLINED},
        python::PIECE_BYTES,
    },
    mapping::MappingRecord,
    stack::{MAX_FRAMES, StackRecord},
    unwind::{FileKey, FileTable, Miss, Registers, Rule, register},
};

/// Which program asks for working memory.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Slot {
    PageAlloc = 0,
    LruInsertion = 1,
    AnonCommit = 2,
    FileCommit = 3,
    ShmemCommit = 4,
    Swapin = 5,
    Migrate = 6,
    FromUser = 7,
    Hugetlb = 8,
    MoveAccount = 9,
    PageFree = 10,
    Oom = 11,
    Dirty = 12,
    Mapping = 13,
    PageAllocSpare = 14,
    Unwind = 15,
}

/// Number of slots.
pub const SLOTS: u32 = 16;

/// Working memory of one program on one CPU (see [`crate::scratch`]).
#[repr(C)]
pub struct Scratch {
    /// 1 while a program works with it.
    pub busy: u64,
    /// A key on its way into the table.
    pub key: KeyRecord,
    /// A sample on its way into the table.
    pub sample: Sample,
    /// A stack on its way into the table.
    pub stack: StackRecord,
    /// A record of address space on its way into the table.
    pub mapping: MappingRecord,
    /// A walk over a user stack.
    pub unwind: Unwind,
}

/// Words of the stack that are read at once.
pub const WINDOW: usize = 256;
/// Mappings that a walk remembers, besides the one that it is in.
pub const KNOWN: usize = 4;
/// Where the status stands above the number of frames in what a walk gives.
pub const WALK_SHIFT: u32 = 8;

/// Working memory of a walk (see [`crate::unwind`]).
#[repr(C)]
pub struct Unwind {
    /// Where it stands.
    pub registers: Registers,
    /// Frames so far.
    pub length: u64,
    /// Where the next one is written: behind the innermost frames in a ring.
    pub place: u64,
    /// 1: the frame is the innermost.
    pub is_leaf: u64,
    /// 1: the frame's address may be the beginning of a function.
    pub is_planted: u64,
    /// Guesses that it rests on.
    pub guessed: u64,
    /// 1: mappings are looked up whose code cannot be executed, too.
    pub any: u64,
    /// Seconds of the monotonic clock, of 2^30 nanoseconds each.
    pub now_s: u64,
    /// The task's memory descriptor.
    pub mm: u64,
    /// Address whose mapping is looked up.
    pub look: u64,
    /// Which of the remembered mappings goes next.
    pub turn: u64,
    /// Look-ups of this mapping that met a change.
    pub tries: u64,
    /// A word that was read.
    pub word: u64,
    /// Address of the mapping that was read.
    pub vma: u64,
    /// Address of the window's first word.
    pub window_at: u64,
    /// Bytes in it.
    pub window_bytes: u64,
    /// 1: the task runs 32-bit code.
    pub is_narrow: u64,
    /// One more than the number in `PYTHONS` of a file that the walk met; 0 for none.
    pub python: u64,
    /// Where the first byte of that file would be mapped.
    pub python_base: u64,
    /// One more than the number in `V8S` of a file that the walk met; 0 for none.
    pub v8: u64,
    /// One more than the number in `HOTSPOTS` of a file that the walk met; 0 for none.
    pub hotspot: u64,
    /// Where the first byte of that file would be mapped.
    pub hotspot_base: u64,
    /// What the walk knows of the process's code (see [`crate::managed::hotspot`]).
    pub java_state: u64,
    /// 1: it was asked whether a JVM made the frame's code.
    pub java_asked: u64,
    /// Where in code that a JVM made the frame stands.
    pub java_pc: u64,
    /// The method of an interpreted frame, and the bytecode that it is at.
    pub java_method: u64,
    /// See [`Unwind::java_method`].
    pub java_bytecode: u64,
    /// Where the process has its code.
    pub java: JavaProcess,
    /// What stands at [`Unwind::java_pc`].
    pub java_code: Code,
    /// Of each frame that may be of JavaScript the frame pointer, by its place; 0 of others.
    pub script_frames: [u64; MAX_FRAMES],
    /// i_sb to i_ino of an inode.
    pub inode: [u64; 4],
    /// The mapping that the walk is in.
    pub current: Range,
    /// Others that it was in.
    pub known: [Range; KNOWN],
    /// The rule that leads out of the frame.
    pub rule: Rule,
    /// A file's entry on its way into the table.
    pub asked: FileTable,
    /// What user space is asked for.
    pub miss: Miss,
    /// Registers of the innermost frame: `struct pt_regs`.
    pub leaf: [u64; register::COUNT],
    /// A node of the tree of mappings, or the beginning of a mapping.
    pub node: [u64; 32],
    /// Part of the stack.
    pub window: [u64; WINDOW],
}
const _: () = assert!(MAX_FRAMES < 1 << WALK_SHIFT);

/// A mapping.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// End.
    pub end: u64,
    /// Added to an address, the offset in the file.
    pub delta: u64,
    /// Its flags.
    pub flags: u64,
    /// 1: there may be code that a runtime made: of JavaScript, or of Java.
    pub may_be_script: u64,
    /// What frames in it have in common ([`tracer_common::stack::tag`]); 0: they are addresses.
    pub tag: u64,
    /// The file; all zeros for none.
    pub key: FileKey,
    /// Its table.
    pub table: FileTable,
}

/// Words that are read of an interpreter's frame, and of a function's code object.
pub const PIECE: usize = PIECE_BYTES / 8;

/// Words that have room for the record of a piece of code.
pub const BLOB: usize = (BLOB_BYTES / 8).next_power_of_two();

/// Working memory of a walk over an interpreter's frames (see [`crate::managed`]).
#[repr(C)]
pub struct Managed {
    /// 1 while a program works with it.
    pub busy: u64,
    /// Number in `PYTHONS` or `V8S`.
    pub build: u64,
    /// Identity of the process.
    pub process: u64,
    /// Where the first byte of the interpreter's file would be mapped.
    pub base: u64,
    /// Address of the next frame.
    pub frame: u64,
    /// How many were found.
    pub place: u64,
    /// Address of the frame's code object.
    pub code: u64,
    /// Where in its code it is.
    pub at: u64,
    /// Set in its number: [`tracer_common::managed::OUTERMOST`].
    pub marks: u64,
    /// A word that was read.
    pub word: u64,
    /// What is known of the function.
    pub known: KnownFunction,
    /// What was found, innermost first.
    pub frames: [u64; MAX_FRAMES],
    /// The beginning of the frame.
    pub frame_words: [u64; PIECE],
    /// The beginning of the code object, or of what is shared by the closures of a function.
    pub code_words: [u64; PIECE],
    /// The object that is looked at, and the type of it.
    pub object: u64,
    /// See [`Managed::object`].
    pub object_type: u64,
    /// Characters that are read by now, in bytes.
    pub filled: u64,
    /// A text that comes behind.
    pub behind: u64,
    /// Where in the object the text begins, in characters.
    pub start: u64,
    /// Another name, for where there is none.
    pub other: u64,
    /// 1: something that should be there could not be read.
    pub failed: u64,
    /// Seconds of the monotonic clock, of 2^30 nanoseconds each.
    pub now_s: u64,
    /// A function that user space is told of.
    pub event: FunctionEvent,
    /// The record of a piece of code that a JVM made, or the beginning of it.
    pub blob: [u64; BLOB],
    /// Where the scopes at a place in that code are described: of the place itself or the next one that has some, and of the one before if there is
    /// none of the place itself; 0 for none.
    pub scopes: [u64; 2],
    /// 1: the place has scopes of its own.
    pub has_place: u64,
    /// How many methods these have.
    pub scope_counts: [u64; 2],
    /// Set in the number of the frame: [`tracer_common::managed::NEAR`].
    pub near: u64,
    /// Bounds of a search in a list of places.
    pub low: u64,
    /// See [`Managed::low`].
    pub high: u64,
    /// Which of the first ones is next.
    pub scope_next: u64,
    /// The methods by their number, and the bytecodes that they are at: innermost first, of each list in half of the room.
    pub scope_methods: [u64; 4 * MOST_INLINED],
}

/// Working memory for a file's record of one program on one CPU (see [`crate::kernel::file`]).
#[repr(C)]
pub struct FileScratch {
    /// 1 while a program works with it.
    pub busy: u64,
    /// Where pointers are read to: the callers leave little of the stack.
    pub word: u64,
    /// A record on its way into the table.
    pub record: FileRecord,
}

/// What khugepaged did last (see [`crate::attribute::collapse`]).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Collapse {
    /// Key of the last sample that it ended; 0 for none.
    pub ended_key: u64,
    /// File of that sample.
    pub ended_file: u64,
    /// Where in the file or address space, in units of a huge page.
    pub ended_at: u64,
    /// Slot of the last sample that it made, still under khugepaged's own key; 0 for none.
    pub made: u64,
}

/// A wait for memory that has begun (see [`crate::probes::reclaim`]).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Wait {
    /// Memory cgroup of the task.
    pub owner: u64,
    /// Monotonic nanoseconds.
    pub since_ns: u64,
}

/// A charge that waits.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stall {
    /// When its first reclaim began, and whose it is.
    pub wait: Wait,
    /// Nanoseconds in reclaim so far.
    pub reclaim_ns: u64,
    /// 1: it runs the OOM killer.
    pub oom: u64,
}
