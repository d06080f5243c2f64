//! The BPF toolchain: Debian's compiler with a core library for BPF, LLVM 22, and bpf-linker built against it.
//!
//! Found where it is installed, else installed. Nothing of it is needed to build the user half.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{apt, command, workspace};

/// What the compiler, its core library for bpfel-unknown-none, and the linker's build need.
const PACKAGES: &[&str] =
    &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22", "llvm-22-dev", "libzstd-dev", "zlib1g-dev", "g++"];
const LLVM: &str = "/usr/lib/llvm-22";
// By path, not by name: where rustup is installed, its compilers come first in PATH and have no core for BPF.
const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const LINKER_VERSION: &str = "0.13.0";

/// A toolchain that is there.
pub struct Toolchain {
    linker: PathBuf,
}

/// The versions that decide the bytes of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `rustc --version`.
    pub rustc: String,
    /// Debian's version of the core library for BPF.
    pub core: String,
    /// `llvm-config --version`.
    pub llvm: String,
    /// bpf-linker's version.
    pub bpf_linker: String,
}

impl Toolchain {
    /// Finds the toolchain, or installs what is missing.
    pub fn ensure() -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "the eBPF object is built on x86_64 only");
        apt::ensure_installed(PACKAGES)?;
        let home = workspace::cache()?.join("bpf-linker");
        let linker = home.join("bin/bpf-linker");
        // Run, not just found: after an upgrade of LLVM an old binary may no longer start.
        if linker_version(&linker).is_err() {
            install_linker(&home)?;
            linker_version(&linker)?;
        }
        Ok(Self { linker })
    }

    /// Versions for the manifest.
    pub fn versions(&self) -> Result<Versions> {
        Ok(Versions {
            rustc: command::output(Command::new(RUSTC).arg("--version"))?,
            core: apt::version("libstd-rust-web-dev-bpf").context("libstd-rust-web-dev-bpf is not installed")?,
            llvm: command::output(Command::new(llvm("llvm-config")).arg("--version"))?,
            bpf_linker: linker_version(&self.linker)?,
        })
    }

    /// Debian's cargo, set up so that nothing of the caller's environment reaches the object.
    pub fn cargo(&self) -> Result<Command> {
        let mut cargo = cargo()?;
        let linker = self.linker.parent().context("bpf-linker has no folder")?;
        cargo.env("PATH", path_with(&[linker, &llvm("")])?);
        Ok(cargo)
    }

    /// Writes `object` without debug information to `stripped`. Type information (`.BTF`, `.BTF.ext`) stays.
    pub fn strip(&self, object: &Path, stripped: &Path) -> Result<()> {
        command::run(Command::new(llvm("llvm-strip")).arg("--strip-debug").arg("-o").arg(stripped).arg(object))
    }
}

fn cargo() -> Result<Command> {
    let mut cargo = Command::new(CARGO);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        // Left alone: where cargo keeps its registry, and how it reaches it.
        let kept = name_text == "CARGO_HOME" || name_text.starts_with("CARGO_HTTP_") || name_text.starts_with("CARGO_NET_");
        if !kept && ["CARGO", "RUST"].iter().any(|prefix| name_text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("RUSTC", RUSTC);
    Ok(cargo)
}

fn install_linker(home: &Path) -> Result<()> {
    println!("building bpf-linker {LINKER_VERSION} into {} (one to five minutes)", home.display());
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    let mut cargo = cargo()?;
    cargo.env("LLVM_PREFIX", LLVM).env("PATH", path_with(&[&llvm("")])?);
    cargo.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--quiet"]);
    cargo.args(["--no-default-features", "--features", "llvm-22", "--root"]).arg(home);
    command::run(&mut cargo)
}

fn linker_version(linker: &Path) -> Result<String> {
    let version = command::output(Command::new(linker).arg("--version"))?;
    let version = version.split_whitespace().last().unwrap_or_default().to_owned();
    ensure!(version == LINKER_VERSION, "{} is version {version}, not {LINKER_VERSION}", linker.display());
    Ok(version)
}

/// A tool of LLVM 22 by its path; an empty name is their folder.
fn llvm(tool: &str) -> PathBuf {
    Path::new(LLVM).join("bin").join(tool)
}

fn path_with(first: &[&Path]) -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = first.iter().map(|path| path.to_path_buf()).chain(env::split_paths(&rest));
    env::join_paths(all).context("cannot compose PATH")
}
