//! Chooses the eBPF object that the library embeds, and says so in `MEMTRAIL_BPF_OBJECT`.
//!
//! The committed object if it was made from exactly these sources, else one built on this machine if that was, else an error that
//! names the command to run. Never builds anything: the user half needs no BPF toolchain.

#[path = "../xtask/src/inputs.rs"]
mod inputs;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Forces an object, whatever it was made from. For development only.
const OVERRIDE: &str = "MEMTRAIL_BPF_OBJECT_OVERRIDE";

fn main() -> ExitCode {
    match choose() {
        Ok(object) => {
            println!("cargo::rustc-env=MEMTRAIL_BPF_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn choose() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(object) = env::var_os(OVERRIDE).filter(|object| !object.is_empty()) {
        return overridden(&root.join(object));
    }
    for input in inputs::SOURCES.iter().copied().chain(["Cargo.toml", "Cargo.lock", "xtask/src/inputs.rs", inputs::COMMITTED]) {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let wanted = inputs::inputs_sha256(&root).map_err(|error| format!("cannot read the sources of the eBPF object: {error}"))?;
    let committed = match matching(&root.join(inputs::COMMITTED), &wanted) {
        Ok(object) => return Ok(object),
        Err(why) => why,
    };
    // Named only where it is used: cargo would run this script each time for a file that does not exist.
    println!("cargo::rerun-if-changed={}", root.join(inputs::LOCAL).join(inputs::MANIFEST).display());
    matching(&root.join(inputs::LOCAL), &wanted).map_err(|local| {
        format!("no eBPF object matches the sources (committed: {committed}; local: {local}): run `cargo xtask build-ebpf`")
    })
}

fn overridden(object: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::warning={OVERRIDE} is set: embedding {} unchecked", object.display());
    object.canonicalize().map_err(|error| format!("{OVERRIDE}: {}: {error}", object.display()))
}

/// The object in `folder` if it is whole and made from the inputs `wanted`, else why it is not.
fn matching(folder: &Path, wanted: &str) -> Result<PathBuf, String> {
    let manifest = fs::read(folder.join(inputs::MANIFEST)).map_err(|error| format!("manifest: {error}"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).map_err(|error| format!("manifest: {error}"))?;
    if manifest["inputs_sha256"].as_str() != Some(wanted) {
        return Err("made from other sources".to_owned());
    }
    let object = folder.join(inputs::OBJECT);
    let bytes = fs::read(&object).map_err(|error| format!("object: {error}"))?;
    if manifest["object_sha256"].as_str() != Some(&inputs::sha256(&bytes)) {
        return Err("object does not match its manifest".to_owned());
    }
    Ok(object)
}
