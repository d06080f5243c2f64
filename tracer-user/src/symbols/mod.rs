//! Raw addresses to frames that a human can read.
//!
//! A user address is found by the mapping it lies in and looked up in the file behind it by file offset, so that one answer
//! serves every process that runs the file, and the process need not live. Symbols come from blazesym; everything it reads of a
//! traced process is hostile and goes through [`elf_guard`] first. Kernel addresses are looked up in `/proc/kallsyms`, code of
//! JITs in perf maps.
//!
//! Never here: who ran what (see [`crate::process`]), escaping for an output, decisions about bytes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

mod demangle;
mod elf;
pub mod elf_guard;
pub mod kernel;
pub mod perf_map;
pub mod stack;
mod user;

pub use stack::{Status, judge_user_stack};
pub use user::{Binary, SymbolCounters, Symbolizer, SymbolizerOptions, Unknown, UserStack};

/// Longest name given out, bytes; C++ and Rust names can be far longer.
pub const MAX_NAME_BYTES: usize = 512;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A function of the program.
    User,
    /// A function that the compiler put into its caller; it has no return address of its own.
    Inlined,
    /// A function of the kernel.
    Kernel,
    /// Known by its place only: `[binary+0xoffset]`, or not at all: `[unknown]`.
    Unknown,
}

/// One line of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Name without any escaping: it may hold `;`, control characters and what else a hostile file says.
    pub name: String,
    /// What it is.
    pub kind: FrameKind,
}

impl Frame {
    pub(crate) fn new(kind: FrameKind, name: &str) -> Frame {
        let end = (0..=MAX_NAME_BYTES.min(name.len())).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        Frame { name: name[..end].to_owned(), kind }
    }

    pub(crate) fn unknown() -> Frame {
        Frame::new(FrameKind::Unknown, "[unknown]")
    }
}
