//! Functions that interpreters run: which files hold an interpreter that is known, what the kernel half tells of functions, and where the
//! interpreter's frames stand among those of the machine. See [`tracer_common::managed`] for how the kernel half records them.
//!
//! | module | what it does |
//! |---|---|
//! | [`python`] | tells from a file which CPython it holds, and where that keeps what is read; pure |
//! | [`v8`] | the same of V8; pure |
//! | [`hotspot`] | the same of a JVM, which says it itself |
//! | [`elf`] | where functions begin in a file; pure |
//! | [`java`] | names of Java's methods; pure |
//! | [`lines`] | from a place in a function's code to its line; pure |
//! | [`interleave`] | puts the interpreter's frames in the places of its own; pure |
//! | [`scripts`] | lines of JavaScript, by its files |
//! | [`functions`] | what was told of functions, by number |
//! | [`listener`] | the thread that hears of them |
//!
//! Never here: symbols of machine code (see [`crate::symbols`]); names in the memory of a traced process, which the kernel half alone reads.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "tests"))]

mod elf;
pub mod functions;
pub mod hotspot;
pub mod interleave;
mod java;
pub mod lines;
pub mod listener;
pub mod python;
pub mod scripts;
pub mod v8;

pub use functions::{Function, Functions};

use crate::{
    host::elf::{Elf, Source},
    process::Loop,
};
use tracer_common::managed;

/// An interpreter in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// CPython, and the code that runs its frames.
    Python(managed::python::Python, Loop),
    /// V8.
    V8(managed::v8::V8),
    /// HotSpot: where it keeps what is read, a process that has it is asked ([`hotspot::ask`]).
    HotSpot,
}

/// The interpreters in a file, or why one is not known.
pub type Found = Vec<Result<Interpreter, String>>;

/// Most bytes that are read of a file: those of its dynamic symbols, and of the index of its functions.
const MOST_BYTES: u64 = 96 << 20;

/// The interpreters that a file holds.
#[must_use]
pub fn recognise<S: Source + ?Sized>(source: &S) -> Found {
    let wants = |name: &[u8]| python::wants(name) || v8::wants(name) || hotspot::wants(name);
    let Ok(elf) = Elf::open(source, MOST_BYTES) else { return Found::new() };
    let symbols = if elf.is_64() { elf.dynamic_symbols(wants).unwrap_or_default().unwrap_or_default() } else { Vec::new() };
    if symbols.is_empty() {
        return Found::new();
    }
    let python = python::recognise(&elf, &symbols).map(|found| found.map(|(python, code)| Interpreter::Python(python, code)));
    let v8 = v8::recognise(&elf, &symbols).map(|found| found.map(Interpreter::V8));
    let python = python.map_err(|error| error.to_string()).transpose();
    let v8 = v8.map_err(|error| error.to_string()).transpose();
    let hotspot = symbols.iter().any(|symbol| hotspot::wants(&symbol.name)).then_some(Ok(Interpreter::HotSpot));
    python.into_iter().chain(v8).chain(hotspot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_interpreter_has_none() {
        assert_eq!(recognise(&std::fs::File::open("/proc/self/exe").unwrap()), Found::new());
        assert_eq!(recognise(&b"\x7fELF"[..]), Found::new());
    }
}
