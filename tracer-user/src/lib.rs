//! memtrail's user half, from the ground up. Imports run downward in this list, and `tests/architecture.rs` says so.
//!
//! | room | holds |
//! |---|---|
//! | [`text`] | names, sizes, times and patterns as text |
//! | [`report`] | the typed report that every output reads |
//! | [`host`] | facts about this host, its kernel and this process |
//! | [`cgroup`], [`containers`], [`process`], [`files`], [`region`] | one subject each |
//! | [`kernel_half`] | the probes, their plan, loading, tables and events |
//! | [`managed`] | functions that interpreters run |
//! | [`symbols`] | names of addresses |
//! | [`snapshot`] | a moment of a trace as a value |
//! | [`analyse`] | from snapshots to rows, verdicts, autopsies and comparisons |
//! | [`trace`] | a running trace |
//! | [`output`], [`recording`] | formats and views; the .mtrail format |
//! | [`command`] | the command of `record -- CMD` |
//! | [`serve`] | a running trace by HTTP |
//! | [`top`] | screens of a running trace |
//! | [`cli`] | verbs |

pub mod analyse;
pub mod cgroup;
pub mod cli;
pub mod command;
pub mod containers;
pub mod files;
pub mod host;
pub mod kernel_half;
pub mod managed;
pub mod output;
pub mod process;
pub mod recording;
pub mod region;
pub mod report;
pub mod serve;
pub mod snapshot;
pub mod symbols;
pub mod text;
pub mod top;
pub mod trace;
pub mod unwind;
