//! The collector: starts the kernel half, follows cgroups, reads figures and tables, and puts them together.
//!
//! One owner per state: everything here belongs to the one task that calls it. The kernel half never waits for it; what happens
//! while it sleeps stands in the tables.

pub mod assemble;
mod containers;
pub mod dirtied;
pub mod filter;
pub mod follow;
pub mod histograms;
mod jvms;
pub mod kmsg;
pub mod mappings;
pub mod marks;
pub mod names;
pub mod oom;
mod owners;
mod phases;
pub mod rates;
pub mod regions;
mod removed;
pub mod retired;
mod retirement;
pub mod session;
mod snapshot;
pub mod start;
mod table_names;

/// Nanoseconds of a clock; 0 if the kernel does not have it.
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec; an unknown clock is an error and leaves zeros.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
