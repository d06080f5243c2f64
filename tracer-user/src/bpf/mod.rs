//! The programs in the kernel: load, attach, and the tables they keep. Never sees outputs.

pub mod attach;
pub mod baseline;
pub mod calibrate;
pub mod picture;
pub mod program_info;
pub mod sizes;
pub mod stats;
pub mod tables;

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned};
use tracer_common::{
    layout::KernelLayout,
    settings::{Control, Settings},
};

/// The object that build.rs chose.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("MEMTRAIL_BPF_OBJECT"));

/// Why the kernel half is not running.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
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
    /// Reading a file of /proc.
    #[error("{path}: {source}")]
    Proc {
        /// Which.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Loads the object with its settings and table sizes; nothing is attached yet.
pub fn load(layout: &KernelLayout, settings: &Settings, sizes: &sizes::Sizes) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    // aya asks for the log only after a refusal: a load that works pays nothing for it.
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    loader.override_global("LAYOUT", layout, true).override_global("SETTINGS", settings, true);
    let stat_offsets = layout.stat_offsets();
    loader.override_global("STAT_OFFSETS", &stat_offsets, true);
    for (map, entries) in sizes.entries() {
        loader.map_max_entries(map, entries);
    }
    Ok(loader.load(OBJECT)?)
}

/// Sets what changes while the trace runs.
pub fn set_control(bpf: &mut Ebpf, control: Control) -> Result<(), BpfError> {
    let map = bpf.map_mut("CONTROL").ok_or(BpfError::Missing("map CONTROL"))?;
    let mut map = aya::maps::Array::<_, Control>::try_from(map).map_err(|source| BpfError::Map { name: "CONTROL", source })?;
    map.set(0, control, 0).map_err(|source| BpfError::Map { name: "CONTROL", source })
}
