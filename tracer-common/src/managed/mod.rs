//! Frames of managed runtimes: functions that no file's code stands for, since an interpreter runs them.
//!
//! Where a stack goes through the file of a runtime that is known, the kernel half reads the runtime's own frames from the process's memory
//! and records them behind those of the machine. Which function a frame is in it says by a hash of the function's name, file and first line,
//! so that it is the same in every process; what the hash stands for it tells user space once ([`FunctionEvent`]), because the process may be
//! gone a moment later. User space puts the frames in the places of the interpreter's.
//!
//! | table | what is in it |
//! |---|---|
//! | `PYTHONS` | where each build of CPython keeps what is read ([`python::Python`]), by the number in [`crate::unwind::FileTable::state`] |
//! | `V8S` | the same of each build of V8 ([`v8::V8`]) |
//! | `HOTSPOTS`, `JAVA_PROCESSES`, `JAVA_CODE` | see [`hotspot`] |
//! | `FUNCTIONS` | functions by process and address of their code, and those that user space was told of ([`KnownFunction`]) |
//! | `RUNTIME_THREADS` | where the runtime keeps what it knows of a thread, by thread id |

pub mod hotspot;
pub mod python;
pub mod v8;

use crate::mix64;

/// Set in the number of a managed frame, where no address has a bit.
pub const MANAGED: u64 = 1 << 62;
/// Set in that of a frame behind which the machine's stack goes on: the caller of the interpreter is not one of its frames.
pub const OUTERMOST: u64 = 1 << 61;

/// Set in that of a frame that stands in the place of the machine's own.
pub const IN_PLACE: u64 = 1 << 60;

/// Set besides where compiled code says of the place no more than what comes next: the outermost frame that has it is of the right function, and its place is near; those
/// further in may be of the next function that is called.
pub const NEAR: u64 = OUTERMOST;

/// Bits of a function's number.
pub const FUNCTION_BITS: u32 = 40;
/// Bits of a place in its code.
pub const PLACE_BITS: u32 = 20;
/// A place that has no room: beyond it every place is this one.
pub const FAR: u64 = (1 << PLACE_BITS) - 1;

/// A frame of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManagedFrame {
    /// Number of the function ([`number_of`]); 0: it could not be read.
    pub function: u64,
    /// Where in its code it is, in units of the runtime's; [`FAR`] if that is not known.
    pub place: u32,
    /// The interpreter's function was called for this frame: what is further out is the machine's again. Of a frame in its place: [`NEAR`].
    pub is_outermost: bool,
    /// It stands in the place of the machine's own frame: its code was compiled, or the interpreter has a frame of its own for it.
    pub is_in_place: bool,
}

impl ManagedFrame {
    /// The frame that a number stands for, if it is one of these.
    #[must_use]
    pub const fn of(number: u64) -> Option<ManagedFrame> {
        if number >> 62 != 1 {
            return None;
        }
        Some(ManagedFrame {
            function: number & ((1 << FUNCTION_BITS) - 1),
            place: (number >> FUNCTION_BITS & FAR) as u32,
            is_outermost: number & OUTERMOST != 0,
            is_in_place: number & IN_PLACE != 0,
        })
    }

    /// The number that stands for it.
    #[must_use]
    pub const fn number(self) -> u64 {
        number(self.function, self.place as u64)
            | if self.is_outermost { OUTERMOST } else { 0 }
            | if self.is_in_place { IN_PLACE } else { 0 }
    }
}

/// The number of a frame that is not an interpreter's outermost one.
#[inline(always)]
#[must_use]
pub const fn number(function: u64, place: u64) -> u64 {
    MANAGED | (if place < FAR { place } else { FAR }) << FUNCTION_BITS | function & ((1 << FUNCTION_BITS) - 1)
}

/// The number of a function with that hash; never 0.
#[inline(always)]
#[must_use]
pub const fn number_of(hash: u64) -> u64 {
    let number = hash >> (64 - FUNCTION_BITS);
    if number == 0 { 1 } else { number }
}

/// What is known of an address at which a process has a function's code, or of a function that user space was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KnownFunction {
    /// A hash of what stands there, so that another function in the same place is not taken for it.
    pub check: u64,
    /// The function's number.
    pub number: u64,
}
crate::assert_size!(KnownFunction, 16);
crate::plain_data!(KnownFunction);

/// The key of a function of a process in `FUNCTIONS`.
#[inline(always)]
#[must_use]
pub const fn key_of_code(process: u64, address: u64) -> u64 {
    mix64(process, address)
}

/// The key of a function that user space was told of, alike.
#[inline(always)]
#[must_use]
pub const fn key_of_told(number: u64) -> u64 {
    mix64(0x746f_6c64, number)
}

/// Functions that there is room for in `FUNCTIONS`, those of which user space was told included.
pub const FUNCTIONS: u32 = 8192;
/// Threads that there is room for.
pub const THREADS: u32 = 4096;

/// Bytes of a function's name.
pub const NAME_BYTES: usize = 128;
/// Bytes of the path of its file: the last ones of a longer path are cut.
pub const FILE_BYTES: usize = 256;
/// Bytes of the table of its lines: of a longer one the beginning, which says the lines of the first instructions.
pub const LINES_BYTES: usize = 1024;

/// How many bytes of text there are and of which width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Text {
    /// Characters that the whole text has.
    pub characters: u32,
    /// Bytes of one: 1 (Latin 1), 2 or 4; 0: the text could not be read.
    pub width: u32,
}
crate::assert_size!(Text, 8);

/// A function that is met for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct FunctionEvent {
    /// Its number.
    pub number: u64,
    /// Which table of lines it has: the `lines` of [`python::Python`] or [`hotspot::HotSpot`], [`v8::POSITIONS`], or [`hotspot::STUB`].
    pub lines_format: u32,
    /// The line on which it begins; of a method of Java a number that tells it from others of its name in its class.
    pub first_line: u32,
    /// Units of its code, where the runtime says that beside it; else 0.
    pub code_units: u32,
    /// Bytes that the table of its lines has; 0: it could not be read.
    pub lines_bytes: u32,
    /// Thread-group id of the process that was met in it.
    pub tgid: u32,
    /// Nothing.
    pub reserved: u32,
    /// What [`FunctionEvent::name`] holds.
    pub name_text: Text,
    /// What [`FunctionEvent::file`] holds.
    pub file_text: Text,
    /// Its name, with the names of the classes and functions that it is in where the runtime keeps them.
    pub name: [u8; NAME_BYTES],
    /// The path of its file as the runtime has it; of a method of Java its class, and its source ([`hotspot::CLASS_BYTES`]).
    pub file: [u8; FILE_BYTES],
    /// The table of its lines.
    pub lines: [u8; LINES_BYTES],
}
crate::assert_size!(FunctionEvent, 48 + NAME_BYTES + FILE_BYTES + LINES_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{LEFT_OUT, UserFrame};

    #[test]
    fn frames_come_back_as_they_were_and_are_no_others() {
        let most = (1 << FUNCTION_BITS) - 1;
        for (function, place) in [(0, 0), (1, 7), (most, FAR as u32), (0x12_3456_789a, FAR as u32 - 1)] {
            for is_outermost in [false, true] {
                let frame = ManagedFrame { function, place, is_outermost, is_in_place: !is_outermost };
                assert_eq!(ManagedFrame::of(frame.number()), Some(frame));
                assert_eq!(UserFrame::of(frame.number()), UserFrame::Managed(frame));
            }
        }
        for other in [0, LEFT_OUT, 0x7fff_ffff_f000, UserFrame::InFile { file: 1 << 30, offset: 5 }.number()] {
            assert_eq!(ManagedFrame::of(other), None, "{other:#x}");
        }
    }

    #[test]
    fn a_place_or_number_that_is_too_large_stays_in_its_bits() {
        let frame = ManagedFrame::of(number(u64::MAX, u64::MAX)).unwrap();
        assert_eq!(frame, ManagedFrame { function: (1 << FUNCTION_BITS) - 1, place: FAR as u32, is_outermost: false, is_in_place: false });
        assert_ne!(number_of(0), 0);
        assert!(number_of(u64::MAX) >> FUNCTION_BITS == 0);
        assert_ne!(key_of_told(5), key_of_code(0, 5));
    }
}
