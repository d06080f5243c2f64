//! The programs in the kernel: load, attach, and the tables they keep. Never sees outputs.

pub mod attach;
pub mod baseline;
pub mod calibrate;
pub mod diagnosis;
pub mod empty;
pub mod events;
mod loaded;
mod loader;
pub mod picture;
pub mod plan;
pub mod preemption;
pub mod probes;
pub mod program_info;
pub mod rates;
pub mod sizes;
pub mod stack;
pub mod start;
pub mod stats;
pub mod tables;
pub mod unwind;
pub mod wish;

use aya::include_bytes_aligned;

pub use loaded::KernelHalf;
pub use loader::Loader;
pub use tables::mappings;

/// The object that build.rs chose.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("MEMTRAIL_BPF_OBJECT"));

/// Why the kernel half is not running.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// No thread to make the loader on.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// aya panicked while it read the kernel's type information.
    #[error("cannot load the eBPF object: the kernel's type information made its parser panic")]
    LoaderPanicked,
    /// The object or its maps could not be loaded.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// A map of the object has another type than this half expects.
    #[error("map {name}: {source}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// The object has no such map or program.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// A program that must run could not.
    #[error("cannot run {program}: {}", attach::describe(.error))]
    Run {
        /// Which.
        program: &'static str,
        /// Why. Not the error's `source`: a verifier log can be megabytes, and `describe` gives its end.
        error: Box<aya::programs::ProgramError>,
    },
    /// A program could not be attached where it is to be measured.
    #[error("program {program} on {tracepoint}: {}", attach::describe(.error))]
    Attach {
        /// Which.
        program: &'static str,
        /// Where.
        tracepoint: String,
        /// Why.
        error: Box<aya::programs::ProgramError>,
    },
    /// No provider of a required probe could be attached.
    #[error("no provider for probe {probe} on this kernel: {reasons}")]
    NoProvider {
        /// Which probe.
        probe: probes::ProbeId,
        /// Why each was refused.
        reasons: String,
    },
    /// A process that was asked for cannot be followed.
    #[error("process {tgid} cannot be followed: the table of followed processes is {why}")]
    NotFollowed {
        /// Its thread-group id in the initial pid namespace.
        tgid: u32,
        /// Why.
        why: &'static str,
    },
    /// The frame table could not be placed.
    #[error("cannot find the kernel's page structs: {0}")]
    Calibration(String),
    /// The ring of the kernel half's own messages.
    #[error("cannot read the kernel half's own messages: {0}")]
    Diagnosis(String),
    /// Reading a file of /proc.
    #[error("{path}: {source}")]
    Proc {
        /// Which.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
