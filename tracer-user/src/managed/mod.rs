//! Functions that interpreters run: which files hold an interpreter that is known, what the kernel half tells of functions, and where the
//! interpreter's frames stand among those of the machine. See [`tracer_common::managed`] for how the kernel half records them.
//!
//! | module | what it does |
//! |---|---|
//! | [`python`] | tells from a file which CPython it holds, and where that keeps what is read; pure |
//! | [`lines`] | from a place in a function's code to its line; pure |
//! | [`interleave`] | puts the interpreter's frames in the places of its own; pure |
//! | [`functions`] | what was told of functions, by number |
//! | [`listener`] | the thread that hears of them |
//!
//! Never here: symbols of machine code (see [`crate::symbols`]); memory of a traced process, which the kernel half alone reads.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

pub mod functions;
pub mod interleave;
pub mod lines;
pub mod listener;
pub mod python;

pub use functions::{Function, Functions};
