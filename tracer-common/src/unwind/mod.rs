//! Unwinding of user stacks by tables, for code that keeps no frame pointers.
//!
//! The user half makes a table of each file from its `.eh_frame`: rows that say from which offset in the file on which [`Rule`] leads from
//! a frame to its caller. The kernel half finds the mapping of each address, the file behind it, the row and the rule, and goes one frame
//! on ([`step`]).
//!
//! | table | what is in it |
//! |---|---|
//! | `UNWIND_FILES` | by [`FileKey`]: where the pages of a file stand in the directory |
//! | `UNWIND_PAGES` | the directory: for each page of a file ([`PAGE_BYTES`]) where its rows are ([`PageRows`]) |
//! | `UNWIND_ROWS` | rows in chunks: offset in the page, number of the rule |
//! | `UNWIND_RULES` | rules, each once for all files: all files of a Debian system have some 4,000 |

pub mod search;
pub mod step;

use crate::mix64;

pub use step::{End, Memory, Registers};

/// Rows of a chunk: 64 KiB.
pub const CHUNK_ROWS: usize = 16_384;

/// Bytes of a file that an entry of the directory is for.
pub const PAGE_BYTES: u64 = 4096;

/// Most rows that a page may have: the search takes as many steps as this has bits.
pub const MOST_PAGE_ROWS: usize = 4096;

/// Steps of the search: after so many halvings one row of [`MOST_PAGE_ROWS`] is left.
pub const SEARCH_STEPS: u32 = 13;

/// Rules that there is room for. Their numbers are halves of a row.
pub const RULES: u32 = 16_384;

/// Files that there is room for.
pub const FILES: u32 = 4096;

/// Rows of one chunk, which is one entry of the table, so that one look-up reaches all rows of a page.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Chunk {
    /// Low half: offset in the page; high half: number of the rule.
    pub rows: [u32; CHUNK_ROWS],
}
crate::assert_size!(Chunk, 4 * CHUNK_ROWS);
crate::plain_data!(Chunk);

/// A file as the kernel half sees it: the inode behind a mapping. On overlayfs that is the file of the layer, whatever stat says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct FileKey {
    /// Inode number; [`SPECIAL`] for a mapping that the kernel makes of its own pages.
    pub inode: u64,
    /// When its bytes were last written to, as a number that is another then ([`FileKey::written_at`]); 0 if the kernel does not say. What is known of other bytes
    /// in the same place is of no use.
    pub written: u64,
    /// Device as `s_dev` has it: major number above bit 20.
    pub device: u32,
    /// Generation of the inode; of a special mapping its pages.
    pub generation: u32,
}
crate::assert_size!(FileKey, 24);
crate::plain_data!(FileKey);

impl FileKey {
    /// [`FileKey::written`] of a moment.
    #[inline(always)]
    #[must_use]
    pub const fn written_at(seconds: u64, nanoseconds: u64) -> u64 {
        seconds << 30 ^ nanoseconds
    }

    /// The file in frames: a hash of 31 bits, so that both halves know it without asking. Of 500 files two have the same number once in 17,000
    /// recordings; whoever knows both then takes neither.
    #[inline(always)]
    #[must_use]
    pub const fn number(&self) -> u32 {
        let hash = mix64(mix64(self.inode, self.written), (self.device as u64) << 32 | self.generation as u64);
        (hash >> 33) as u32
    }
}

/// In the place of an inode number: the vDSO, or what uprobes use.
pub const SPECIAL: u64 = u64::MAX;

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileTable {
    /// First page of the file that has an entry in the directory.
    pub first_page: u32,
    /// Pages that have one; 0: there is no table.
    pub pages: u32,
    /// Entry of the first.
    pub entry: u32,
    /// Any of [`WITHOUT`], [`BY_ADDRESS`] and [`CLOSED`]; above them, of a file that holds CPython ([`PYTHON_SHIFT`]), V8
    /// ([`V8_SHIFT`]) or HotSpot ([`HOTSPOT_SHIFT`]), one more than its number in `PYTHONS`, `V8S` or `HOTSPOTS`, in 8 bits each.
    pub state: u32,
    /// When a walk last asked for it, seconds of the monotonic clock.
    pub asked_s: u32,
    /// When a walk last met the file, alike.
    pub used_s: u32,
}
crate::assert_size!(FileTable, 24);
crate::plain_data!(FileTable);

/// The file has nothing that a table can be made of, or there is no room for it: it is not asked for.
pub const WITHOUT: u32 = 1;
/// What stands in the file is not code that it was made with, as in memory that a runtime writes its own to: its frames are addresses.
pub const BY_ADDRESS: u32 = 2;
/// User space has closed the file, and is told when a walk meets it again.
pub const CLOSED: u32 = 4;
/// See [`FileTable::state`].
pub const PYTHON_SHIFT: u32 = 8;
/// See [`FileTable::state`].
pub const V8_SHIFT: u32 = 16;
/// See [`FileTable::state`].
pub const HOTSPOT_SHIFT: u32 = 24;
/// Bits of the number of an interpreter there.
pub const INTERPRETER: u32 = 0xff;

/// Where the rows of a page are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PageRows {
    /// The chunk.
    pub chunk: u32,
    /// The first of them in it.
    pub first: u16,
    /// How many; 0: nothing is known of the page.
    pub count: u16,
}
crate::assert_size!(PageRows, 8);
crate::plain_data!(PageRows);

/// How a frame leads to its caller. The numbers of registers are places in `struct pt_regs` (see [`register`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// What is added to the base register for the canonical frame address (CFA).
    pub cfa: i32,
    /// Where rbp is saved: added to what [`Rule::frame_pointer`] says.
    pub bp: i32,
    /// Where the return address is: added to the CFA.
    pub ra: i16,
    /// Added to what is read where the CFA stands in memory.
    pub then: i16,
    /// A [`kind`].
    pub kind: u8,
    /// The base register.
    pub base: u8,
    /// A [`saved`].
    pub frame_pointer: u8,
    /// The register that holds the return address; 0 if it is in memory (as r15 never does).
    pub return_register: u8,
}
crate::assert_size!(Rule, 16);
crate::plain_data!(Rule);

impl Rule {
    /// One that needs no other register than the stack pointer.
    #[must_use]
    pub fn of_kind(kind: u8) -> Rule {
        Rule { kind, base: register::SP, ..Rule::default() }
    }
}

/// Kinds of rules.
pub mod kind {
    /// Nothing is known of the code.
    pub const NONE: u8 = 0;
    /// The CFA is a register and a distance.
    pub const REGISTER: u8 = 1;
    /// The CFA is read from memory at a register and a distance.
    pub const MEMORY: u8 = 2;
    /// An entry of a procedure linkage table whose push is at its sixth byte: the CFA is 8 or 16 above rsp, by the place in the entry.
    pub const PLT: u8 = 3;
    /// The same with the push at the fifth byte (after `endbr64`).
    pub const PLT_AFTER_ENDBR: u8 = 4;
    /// The frame of a signal: the interrupted registers stand in memory.
    pub const SIGNAL: u8 = 5;
    /// Nothing called this.
    pub const ROOT: u8 = 6;
    /// What leads to the caller is known and is none of these.
    pub const UNSUPPORTED: u8 = 7;
    /// The frame pointer is that of the function that called this one, on another stack; of that function the place is not known, and it is
    /// left out.
    pub const OTHER_STACK: u8 = 8;
    /// HotSpot's interpreter: the frame pointer is the frame's, and where the caller's stack ends stands below it.
    pub const INTERPRETED: u8 = 9;
}

/// Where the caller's rbp is.
pub mod saved {
    /// In rbp.
    pub const SAME: u8 = 0;
    /// In memory, at a distance from the CFA.
    pub const FROM_CFA: u8 = 1;
    /// In memory, at a distance from rbp.
    pub const FROM_BP: u8 = 2;
    /// Nowhere.
    pub const LOST: u8 = 3;
}

/// Places of registers in `struct pt_regs` of x86_64 (arch/x86/include/uapi/asm/ptrace.h), in words.
pub mod register {
    /// All of them.
    pub const COUNT: usize = 21;
    /// Frame pointer.
    pub const BP: u8 = 4;
    /// Overwritten by a system call.
    pub const R11: u8 = 6;
    /// Overwritten by a system call.
    pub const CX: u8 = 11;
    /// Number of the system call; all ones where none was made.
    pub const ORIG_AX: u8 = 15;
    /// Program counter.
    pub const IP: u8 = 16;
    /// Code segment.
    pub const CS: u8 = 17;
    /// Stack pointer.
    pub const SP: u8 = 19;
    /// By number of DWARF (System V ABI for x86_64, figure 3.36): rax rdx rcx rbx rsi rdi rbp rsp r8 to r15.
    pub const OF_DWARF: [u8; 16] = [10, 12, CX, 5, 13, 14, BP, SP, 9, 8, 7, R11, 3, 2, 1, 0];
}

/// Entry of `RUN_RESULTS` that says which file user space has mapped somewhere: an [`End`], 0 if it was found, and the parts of its
/// [`FileKey`]: inode, time, and the device above the generation.
pub const IDENTIFIED: u32 = 2;

/// Entry of `RUN_RESULTS` that says what a walk that was run by hand took: nanoseconds, frames, and the number of its
/// [`crate::stack::StackStatus`].
pub const WALKED: u32 = 3;

/// A walk that met a file which user space does not have open, or has no table of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Miss {
    /// The file.
    pub key: FileKey,
    /// First address of its mapping; 0: a process begins to execute it.
    pub start: u64,
    /// End of it, or 0.
    pub end: u64,
    /// Identity of the process.
    pub process: u64,
    /// Thread-group id.
    pub tgid: u32,
    /// Nothing.
    pub reserved: u32,
}
crate::assert_size!(Miss, 56);
crate::plain_data!(Miss);
