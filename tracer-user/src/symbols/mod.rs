//! Raw addresses to frames that a human can read.
//!
//! A user address is found by the mapping it lies in and looked up in the file behind it by file offset, so that one answer
//! serves every process that runs the file, and the process need not live. Symbols come from blazesym; everything it reads of a
//! traced process is hostile and goes through [`elf_guard`] first, on a thread of its own ([`reader`]): who asks waits for a stated time
//! and no longer. Kernel addresses are looked up in `/proc/kallsyms`, code of JITs in perf maps.
//!
//! A frame keeps the file and the offset that it came from; its name is one of many things to be known of that place.
//!
//! Never here: who ran what (see [`crate::process`]), escaping for an output, decisions about bytes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

mod debug_files;
mod demangle;
mod elf;
pub mod elf_guard;
mod found;
pub mod kernel;
mod mini_debug;
mod patience;
pub mod perf_map;
pub mod reader;
pub mod stack;
mod user;

pub use debug_files::{DebugFiles, NotNamed};
pub use found::Binary;
pub use patience::Waiting;
pub use stack::{Status, judge_user_stack};
pub use user::{SymbolCounters, Symbolizer, SymbolizerOptions, Traced, Unknown, UserStack};

use std::sync::Arc;

/// Longest name given out, bytes; C++ and Rust names can be far longer.
pub const MAX_NAME_BYTES: usize = 512;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A function of the program.
    User,
    /// A function that the compiler put into its caller; it has no return address of its own.
    Inlined,
    /// A function that an interpreter runs.
    Managed,
    /// A function of the kernel.
    Kernel,
    /// Known by its place only: `[binary+0xoffset]`, or not at all: `[unknown]`.
    Unknown,
}

/// A file with code, for as long as the [`Symbolizer`] lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BinaryId(u64);

/// One line of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The file that it is in; `None` for the kernel, for code that was written at run time, and where nothing is mapped.
    pub binary: Option<BinaryId>,
    /// Where in that file the code is, bytes; 0 without a file.
    pub offset: u64,
    /// Name without any escaping: it may hold `;`, control characters and what else a hostile file says. Frames of one name share it.
    pub name: Arc<str>,
    /// What it is.
    pub kind: FrameKind,
}

impl Frame {
    pub(crate) fn new(kind: FrameKind, name: &str) -> Frame {
        Frame { binary: None, offset: 0, name: cut(name, MAX_NAME_BYTES).into(), kind }
    }

    pub(crate) fn unknown() -> Frame {
        Frame::new(FrameKind::Unknown, "[unknown]")
    }
}

/// The beginning of a name, of so many bytes at most.
fn cut(name: &str, most: usize) -> &str {
    let end = (0..=most.min(name.len())).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    &name[..end]
}
