//! Debian packages that a task needs: says which are missing, and installs them when it may.
//!
//! Never removes or upgrades anything on purpose, and never changes the machine's package sources.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{command, workspace};

/// Makes sure that all `packages` are installed.
pub fn ensure_installed(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| version(package).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(workspace::is_root(), "missing Debian packages; as root: apt-get install {names}");
    println!("installing Debian packages: {names}");
    if !missing.iter().all(|package| known(package)) {
        update()?;
    }
    if install(&missing).is_err() {
        // The lists may be older than what the mirror still holds.
        update()?;
        install(&missing)?;
    }
    Ok(())
}

/// The installed version of a package, if it is installed whole.
pub fn version(package: &str) -> Option<String> {
    let format = "-f=${db:Status-Status} ${Version}\n";
    let status = command::output(Command::new("dpkg-query").args(["-W", format, package])).ok()?;
    status.lines().find_map(|line| line.strip_prefix("installed ")).map(str::to_owned)
}

fn known(package: &str) -> bool {
    let policy = command::output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
    policy.lines().any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
}

/// Fetches the machine's package lists.
pub fn update() -> Result<()> {
    command::run(&mut apt_get(&["update"]))
}

fn install(packages: &[&str]) -> Result<()> {
    command::run(apt_get(&["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// `apt-get` that asks nothing and waits for another one's lock.
fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(args);
    command
}
