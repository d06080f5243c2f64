//! Opens the files whose code walks meet, for their names, and makes the tables by which the kernel half walks user stacks (see [`tracer_common::unwind`]): a walk that meets a file without a table asks
//! for it, and it is there some milliseconds later; those of the C library and of a command that is started are made ahead.
//!
//! | module | what it does |
//! |---|---|
//! | [`rows`], [`go`] | read what a file says of its code; pure |
//! | [`space`], [`store`] | where tables stand, and which makes room; pure |
//! | [`opener`] | opens the files that processes map, and those that a program will map |
//! | [`builder`] | the thread that hears of files and fills the tables |
//! | [`interpreters`] | tells the kernel half of interpreters in files |
//! | [`jobs`] | what threads with deadlines do for it |

pub mod builder;
mod go;
mod interpreters;
mod jobs;
pub mod opener;
pub mod rows;
pub mod space;
pub mod store;

pub use builder::{Builder, Counters};
