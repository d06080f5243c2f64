//! Where things are: the workspace, and the cache that outlives it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The workspace's root folder.
pub fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Path::to_path_buf).with_context(|| format!("{} has no parent", here.display()))
}

/// The folder for what is slow to get and the same for every checkout: bpf-linker, kernels. `MEMTRAIL_CACHE` overrides it.
pub fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("MEMTRAIL_CACHE").filter(|cache| !cache.is_empty()) {
        return std::path::absolute(&cache).with_context(|| format!("MEMTRAIL_CACHE={}", cache.display()));
    }
    if is_root() {
        return Ok(PathBuf::from("/var/cache/memtrail"));
    }
    let home = env::var_os("HOME").context("neither HOME nor MEMTRAIL_CACHE is set")?;
    Ok(PathBuf::from(home).join(".cache/memtrail"))
}

/// Whether this process may install packages and load programs.
pub fn is_root() -> bool {
    // SAFETY: geteuid reads a property of the process, takes no argument and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
