//! The collector: starts the kernel half, follows cgroups, reads figures and tables, and puts them together.
//!
//! One owner per state: everything here belongs to the one task that calls it. The kernel half never waits for it; what happens
//! while it sleeps stands in the tables.

mod capture;
mod containers;
pub mod cost;
pub mod dirtied;
pub mod filter;
pub mod follow;
pub mod histograms;
mod jvms;
pub mod kmsg;
mod look_ahead;
pub mod mappings;
mod named;
pub mod names;
pub mod oom;
mod owners;
pub mod regions;
mod removed;
pub mod retired;
mod retirement;
pub mod session;
mod snapshot;
mod table_names;
pub mod words;
