//! The programs in the kernel: load, attach, and the tables they keep. Never sees outputs.

pub mod attach;
pub mod baseline;
pub mod batch;
pub mod calibrate;
pub mod diagnosis;
mod loader;
pub mod mappings;
pub mod oom_event;
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

use aya::{Ebpf, include_bytes_aligned};
use tracer_common::settings::Control;

pub use loader::Loader;

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
    /// No provider of a required probe could be attached.
    #[error("no provider for probe {probe} on this kernel: {reasons}")]
    NoProvider {
        /// Which probe.
        probe: &'static str,
        /// Why each was refused.
        reasons: String,
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

/// Sets what changes while the trace runs.
pub fn set_control(bpf: &mut Ebpf, control: Control) -> Result<(), BpfError> {
    let map = bpf.map_mut("CONTROL").ok_or(BpfError::Missing("map CONTROL"))?;
    let mut map = aya::maps::Array::<_, Control>::try_from(map).map_err(|source| BpfError::Map { name: "CONTROL", source })?;
    map.set(0, control, 0).map_err(|source| BpfError::Map { name: "CONTROL", source })
}

/// Tells the programs where the page structs begin.
pub fn set_vmemmap(bpf: &mut Ebpf, base: u64) -> Result<(), BpfError> {
    // The only global that is not read-only.
    let name = ".bss";
    let map = bpf.map_mut(name).ok_or(BpfError::Missing("section .bss"))?;
    let mut map = aya::maps::Array::<_, u64>::try_from(map).map_err(|source| BpfError::Map { name, source })?;
    map.set(0, base, 0).map_err(|source| BpfError::Map { name, source })
}
