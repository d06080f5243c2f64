//! `cargo xtask build-ebpf`: from the sources of the kernel half to a checked object beside its manifest.
//!
//! The same sources and toolchain give the same bytes, wherever the checkout is.

mod manifest;
mod object;
mod toolchain;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use manifest::Manifest;
use toolchain::{Toolchain, Versions};

use crate::{command, inputs, workspace};

const TARGET: &str = "bpfel-unknown-none";
/// Crates that use unstable features of the compiler: inline assembly for BPF, and aya's declarations of the helpers.
const UNSTABLE: &str = "aya_ebpf,tracer_ebpf";

/// A freshly built object, kept in `target/bpf`.
pub struct Built {
    manifest: Manifest,
    bytes: Vec<u8>,
    /// Where it is.
    pub path: PathBuf,
}

/// How the committed object compares with a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The same bytes.
    Same,
    /// The same sources, but another toolchain: the bytes say nothing.
    OtherToolchain,
}

/// Builds, checks and keeps the object in `target/bpf`, and prints what is in it.
pub fn build() -> Result<Built> {
    let root = workspace::root()?;
    let toolchain = Toolchain::ensure()?;
    // Before and after: somebody may edit while the compiler runs.
    let inputs_sha256 = inputs::inputs_sha256(&root)?;
    let versions = toolchain.versions()?;
    forget_other_toolchain(&root.join(inputs::LOCAL), &versions)?;
    let linked = compile(&root, &toolchain)?;
    if inputs::inputs_sha256(&root)? != inputs_sha256 {
        bail!("the sources changed during the build: run it again");
    }
    let local = root.join(inputs::LOCAL);
    let stripped = local.join(".stripped.o");
    toolchain.strip(&linked, &stripped)?;
    let bytes = fs::read(&stripped).with_context(|| stripped.display().to_string())?;
    fs::remove_file(&stripped).with_context(|| stripped.display().to_string())?;
    let contents = object::check(&bytes)?;
    print(&contents, bytes.len());
    let manifest = Manifest {
        inputs_sha256,
        object_sha256: inputs::sha256(&bytes),
        toolchain: versions,
        programs: contents.programs,
        maps: contents.maps,
    };
    manifest.write(&local, &bytes)?;
    Ok(Built { manifest, bytes, path: local.join(inputs::OBJECT) })
}

impl Built {
    /// Makes this the committed object.
    pub fn commit(&self) -> Result<()> {
        let folder = workspace::root()?.join(inputs::COMMITTED);
        self.manifest.write(&folder, &self.bytes)?;
        println!("wrote {}/{{{},{}}}", inputs::COMMITTED, inputs::OBJECT, inputs::MANIFEST);
        Ok(())
    }

    /// Compares the committed object; an error if it is stale or not what its manifest says.
    pub fn compare(&self) -> Result<Committed> {
        let folder = workspace::root()?.join(inputs::COMMITTED);
        let committed = Manifest::read(&folder)?;
        let path = folder.join(inputs::OBJECT);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        if committed.inputs_sha256 != self.manifest.inputs_sha256 {
            bail!("the committed eBPF object is stale: run `cargo xtask build-ebpf` and commit {}", inputs::COMMITTED);
        }
        if inputs::sha256(&bytes) != committed.object_sha256 {
            bail!("the committed eBPF object is not the one that its manifest describes: run `cargo xtask build-ebpf`");
        }
        if committed.toolchain != self.manifest.toolchain {
            println!("notice: bytes not compared, the committed object was built by another toolchain:");
            println!("  committed {:?}\n  here      {:?}", committed.toolchain, self.manifest.toolchain);
            return Ok(Committed::OtherToolchain);
        }
        if bytes != self.bytes {
            bail!("the same sources and toolchain gave other bytes than the committed eBPF object: the build is not reproducible");
        }
        Ok(Committed::Same)
    }
}

/// Removes what another toolchain built: cargo notices another compiler, but not another linker.
fn forget_other_toolchain(local: &Path, versions: &Versions) -> Result<()> {
    let stamp = local.join(".toolchain");
    let text = format!("{versions:?}");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let built = local.join(TARGET);
    if built.exists() {
        fs::remove_dir_all(&built).with_context(|| built.display().to_string())?;
    }
    fs::create_dir_all(local).with_context(|| local.display().to_string())?;
    fs::write(&stamp, text).with_context(|| stamp.display().to_string())
}

/// Compiles and links; returns the object with debug information.
fn compile(root: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let target = root.join(inputs::LOCAL);
    // Unpacks what is missing, so that the folders to rename below are there.
    command::run(toolchain.cargo()?.current_dir(root).args(["fetch", "--quiet", "--locked"]))?;
    let mut cargo = toolchain.cargo()?;
    cargo.current_dir(root.join("tracer-ebpf"));
    cargo.args(["build", "--quiet", "--locked", "--package", "tracer-ebpf", "--profile", "bpf", "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target);
    cargo.env("RUSTC_BOOTSTRAP", UNSTABLE).env("CARGO_ENCODED_RUSTFLAGS", rustflags(root)?);
    command::run(&mut cargo)?;
    Ok(target.join(TARGET).join("bpf/tracer-ebpf"))
}

/// The flags, separated as cargo wants them. Paths that differ between machines become names: they would end in the line
/// information that the verifier's log quotes.
fn rustflags(root: &Path) -> Result<OsString> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let mut renamed = vec![(root.to_path_buf(), "memtrail")];
    // One folder per registry, named after a hash of its address: a mirror has another.
    let registries = home.join("registry/src");
    for registry in fs::read_dir(&registries).with_context(|| registries.display().to_string())? {
        renamed.push((registry?.path(), "crates"));
    }
    let mut flags = OsString::from(inputs::RUSTFLAGS.join("\x1f"));
    for (from, to) in renamed {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

fn print(contents: &object::Contents, bytes: usize) {
    println!("{:32} {:40} {:>6} {:>6}", "program", "section", "insns", "stack");
    for (name, facts) in &contents.programs {
        println!("{name:32} {:40} {:>6} {:>6}", facts.section, facts.instructions, facts.stack_bytes);
    }
    println!("{} programs, {} maps ({}), {bytes} bytes", contents.programs.len(), contents.maps.len(), contents.maps.join(" "));
}
