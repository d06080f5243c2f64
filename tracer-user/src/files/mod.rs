//! Files in words: from what the kernel half noted of a file to a path that an operator can use.
//!
//! [`name`] reads the record, [`mounts`] the mount table, [`volume`] what a path says about pods and volumes, [`resolve`] puts them together; only
//! the last opens files, and only of `/proc`. Paths are bytes of other processes: they are compared as bytes and escaped when they
//! become text, never opened.

pub mod mounts;
pub mod name;
pub mod resolve;
pub mod volume;

pub use resolve::{Resolver, Seen};
