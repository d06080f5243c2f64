//! Files with code that processes run, and what else is asked of a process by its id.
//!
//! Which file a stack's code is in, the kernel half says itself (see [`tracer_common::stack`]); [`opener`] opens it while a process has it mapped, and
//! [`files`] keeps it open, so that it can be read after that process is gone.
//!
//! Never here: symbols (see [`crate::symbols`]), BPF, outputs. What does not fit is dropped and counted.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

pub mod files;
pub mod opener;
pub(crate) mod sys;
pub mod thread;

pub use files::{CodeFile, FileStore, FileVersion, Loop, Mapped, OpenFile};
pub use sys::{give_large_blocks_back, give_memory_back};
