//! Makes the tables by which the kernel half walks user stacks (see [`tracer_common::unwind`]): a walk that meets a file without a table asks
//! for it, and it is there some milliseconds later; those of the C library and of a command that is started are made ahead.
//!
//! | module | what it does |
//! |---|---|
//! | [`rows`], [`go`] | read what a file says of its code; pure |
//! | [`space`], [`store`] | where tables stand, and which makes room; pure |
//! | [`opener`] | opens the file of a mapping, and those that a program will map |
//! | [`builder`] | the thread that does it |

pub mod builder;
mod go;
pub mod opener;
pub mod rows;
pub mod space;
pub mod store;

pub use builder::{Builder, Counters};
