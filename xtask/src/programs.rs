//! Builds the programs that run on every kernel under test: static, so that a virtual machine needs no libraries, and with frame
//! pointers, so that their stacks are whole.
//!
//! They have a folder of their own below the target folder, that of their target: the ordinary build is not disturbed by the other flags, and
//! what runs while they are built (macros, build scripts) is built once for both.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{command, workspace};

/// Without musl: glibc links statically for all that is used here.
const RUSTFLAGS: &str = "-Ctarget-feature=+crt-static\x1f-Cforce-frame-pointers=yes";
/// An emulated machine is some thirty times slower than this one: there the program is optimised, as users have it, and still checks itself.
const OPTIMISED: &str = "profile.dev.package.tracer-user.opt-level=1";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The variable that forces an eBPF object, see `tracer-user/build.rs`.
pub const OBJECT_OVERRIDE: &str = "MEMTRAIL_BPF_OBJECT_OVERRIDE";

/// Programs by the name of their target.
pub type Programs = BTreeMap<String, PathBuf>;

/// The init program of the virtual machines.
pub fn init() -> Result<PathBuf> {
    let mut programs = build(&["build", "-p", "memtrail-tests", "--bin", "memtrail-vm-init"], None)?;
    programs.remove("memtrail-vm-init").context("cargo built no memtrail-vm-init")
}

/// All binaries of the product and of the tests. `object` is the eBPF object to embed whatever is committed.
pub fn binaries(object: Option<&Path>) -> Result<Programs> {
    build(&["build", "-p", "memtrail-tests", "-p", "tracer-user", "--bins"], object)
}

/// One test program of the `tests` crate.
pub fn test(name: &str, object: Option<&Path>) -> Result<PathBuf> {
    let mut programs = build(&["test", "--no-run", "-p", "memtrail-tests", "--test", name], object)?;
    programs.remove(name).with_context(|| format!("cargo built no test program {name}"))
}

/// The product and the workloads as users build them: for this machine, optimised.
pub fn release() -> Result<Programs> {
    let mut cargo = cargo();
    cargo.current_dir(workspace::root()?).args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "-p",
        "tracer-user",
        "-p",
        "memtrail-tests",
        "--bins",
    ]);
    executables(&command::stdout(cargo.args(["--message-format", "json-render-diagnostics"]))?)
}

/// The product as packages have it: static, optimised, without its debug information, and equal wherever its sources lie.
pub fn dist() -> Result<PathBuf> {
    let root = workspace::root()?;
    let home =
        env::var_os("CARGO_HOME").map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let mut cargo = cargo();
    let remapped = |from: &Path, to: &str| format!("\x1f--remap-path-prefix={}={to}", from.display());
    cargo.env(
        "CARGO_ENCODED_RUSTFLAGS",
        format!("{RUSTFLAGS}\x1f-Cstrip=symbols{}{}", remapped(&root, "/memtrail"), remapped(&home, "/cargo")),
    );
    cargo.current_dir(&root).args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "--target",
        TARGET,
        "-p",
        "tracer-user",
        "--bin",
        "memtrail",
    ]);
    let mut programs = executables(&command::stdout(cargo.args(["--message-format", "json-render-diagnostics"]))?)?;
    programs.remove("memtrail").context("cargo built no memtrail")
}

/// What cargo says of each thing it built; the rest of the line is of no interest.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn build(args: &[&str], object: Option<&Path>) -> Result<Programs> {
    let mut cargo = cargo();
    cargo.current_dir(workspace::root()?).args(args);
    cargo.args(["--quiet", "--locked", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.args(["--config", OPTIMISED]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS).env_remove("RUSTFLAGS");
    if let Some(object) = object {
        cargo.env(OBJECT_OVERRIDE, object);
    }
    executables(&command::stdout(&mut cargo)?)
}

/// The cargo that runs us, else the one in PATH.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn executables(messages: &str) -> Result<Programs> {
    let mut programs = Programs::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo said {line}"))?;
        if let (Some(executable), Some(target)) = (message.executable, message.target) {
            programs.insert(target.name, executable);
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_with_an_executable_count() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"libc","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"memtrail","kind":["bin"]},"executable":"/t/memtrail","fresh":true}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let programs = executables(messages).expect("valid messages");
        assert_eq!(programs.into_iter().collect::<Vec<_>>(), [("memtrail".to_owned(), PathBuf::from("/t/memtrail"))]);
    }
}
