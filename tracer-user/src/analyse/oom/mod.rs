//! OOM autopsies: what the kernel knew when it killed, and what the memory was.
//!
//! | file | what |
//! |---|---|
//! | [`judge`] | which limit it was |
//! | [`figures`] | a level's memory by kind |
//! | [`evidence`] | files, regions and verdicts as of the kill |
//! | [`facts`] | what is known of a kill |
//! | [`autopsy`] | everything together |
//! | [`growth`] | what grew |
//! | [`forecast`] | when a limit is reached |
//! | [`loops`] | kills that repeat, and the limits of the whole host |
//! | `sentence` | the same in one sentence |
//! | [`log`] | the kernel's own log lines, and whether they agree |
//!
//! Pure: no kernel is asked here. Every field says where it comes from; what is not known is `None`.

pub mod autopsy;
pub mod evidence;
pub mod facts;
pub mod figures;
pub mod forecast;
pub mod growth;
pub mod judge;
pub mod log;
pub mod loops;
mod sentence;

pub use crate::report::autopsy::Autopsy;
pub use autopsy::autopsy;
pub use facts::{KillFacts, Warning};

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
    /// The frozen picture, because memory.stat was older than the growth.
    pub const NOT_FLUSHED: &str = "frozen picture: the kernel had not flushed memory.stat";
    /// The frozen picture: samples.
    pub const PICTURE: &str = "frozen picture";
    /// The frozen picture, with what processes were like when they were last looked into before.
    pub const SURVEYED: &str = "frozen picture; processes as last looked into";
    /// Samples as of now, without a kill.
    pub const LIVE: &str = "live samples";
    /// A cgroup's files, read for a warning.
    pub const NOW: &str = "cgroup files";
    /// What remains.
    pub const REMAINDER: &str = "remainder";
    /// The kernel's log.
    pub const LOG: &str = "kernel log";

    /// The frozen picture, with what was asked of its pages so many seconds after the kill.
    #[must_use]
    pub fn swept(after_s: f64) -> String {
        format!("frozen picture; dirty and writeback asked {after_s:.3} s after")
    }

    /// A cgroup's files, read so many seconds before the kill.
    #[must_use]
    pub fn files(age_s: f64) -> String {
        format!("cgroup files, {age_s:.1} s before")
    }
}
