//! OOM autopsies: what the kernel knew when it killed, and what the memory was.
//!
//! | file | what |
//! |---|---|
//! | [`event`] | the kernel half's events, from bytes |
//! | [`judge`] | which limit it was |
//! | [`figures`] | a level's memory by kind |
//! | [`autopsy`] | everything together, and the sentence |
//! | [`model`] | the autopsy, as every output reads it |
//! | [`log`] | the kernel's own log lines, and whether they agree |
//!
//! Pure: no kernel is asked here. Every field says where it comes from; what is not known is `None`.

pub mod autopsy;
pub mod event;
pub mod figures;
pub mod judge;
pub mod log;
pub mod model;
mod sentence;

pub use autopsy::{Case, autopsy};
pub use model::Autopsy;

/// Where a field comes from.
pub mod source {
    /// Read in the kernel at the kill.
    pub const PROBE: &str = "probe";
    /// Worked out from the cgroups' counters, which were read in the kernel at the kill.
    pub const COUNTERS: &str = "probe: worked out from the cgroups' counters";
    /// Worked out from the stack of the task whose allocation failed.
    pub const STACK: &str = "probe: worked out from the kernel stack";
    /// The figures of memory.stat as the kernel kept them at the kill.
    pub const STAT: &str = "probe: memory.stat as of the kernel's last flush";
    /// The frozen picture: samples.
    pub const PICTURE: &str = "frozen picture";
    /// Samples as of now, without a kill.
    pub const LIVE: &str = "live samples";
    /// A cgroup's files, read for a warning.
    pub const NOW: &str = "cgroup files";
    /// What remains.
    pub const REMAINDER: &str = "remainder";
    /// The kernel's log.
    pub const LOG: &str = "kernel log";

    /// A cgroup's files, read so many seconds before the kill.
    #[must_use]
    pub fn files(age_s: f64) -> String {
        format!("cgroup files, {age_s:.1} s before")
    }
}
