//! `memtrail-workload`: makes exact amounts of memory resident through functions with known names.
//!
//! All of it is C (see `workload.h` for the protocol): the functions that touch memory need certain frame pointers and unmangled
//! names, and nothing of the Rust runtime should stand between them and `main`. This file only makes cargo link them.
#![no_main]
