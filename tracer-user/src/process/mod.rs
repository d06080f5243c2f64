//! Who ran, when, and what it had mapped: the processes of the host as intervals of monotonic time.
//!
//! [`feed`] reads the kernel's process records (a dummy perf event per CPU) and lists `/proc` once they are on; [`merge`] puts the
//! records of all CPUs in order; [`registry`] keeps one [`Image`] per program that a process ran; [`opener`] and [`files`] open
//! the mapped files while the process still lives, so that they can be read after it is gone.
//!
//! Never here: symbols (see [`crate::symbols`]), BPF, outputs. Nothing here ever blocks the kernel or a traced process: what
//! does not fit is dropped and counted.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

pub mod event;
pub mod feed;
pub mod files;
pub mod identity;
pub mod image;
pub mod listing;
pub mod merge;
pub mod opener;
pub mod record;
pub mod registry;
mod rings;
pub(crate) mod sys;
pub mod thread;

pub use event::{Change, ProcessEvent};
pub use feed::{Feed, FeedError, FeedOptions, NewFiles};
pub use files::{FileStore, FileVersion, OpenFile};
pub use identity::FileIdentity;
pub use image::{Image, MappedFile, Mapping};
pub use registry::{Bounds, Registry};
pub use rings::RingsError;
pub use sys::{give_large_blocks_back, give_memory_back};
