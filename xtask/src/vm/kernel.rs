//! The kernels under test: Debian's cloud kernels, fetched once into the cache.
//!
//! A kernel in the cache is `vmlinuz`, `release` (its version), `config`, and the few modules that its build left out, numbered in load
//! order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use object::{Object as _, ObjectSection as _};

use super::{Hierarchy, mirror::Release};
use crate::{apt, command, workspace};

/// A kernel under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Debian 11
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// The newest one in Debian 13's backports when the cache was filled
    #[value(name = "newest")]
    Newest,
}

/// A kernel in the cache.
#[derive(Debug)]
pub struct Files {
    /// The bootable image.
    pub vmlinuz: PathBuf,
    /// Its version, as `uname -r` gives it.
    pub release: String,
    /// Modules, in an order in which they load.
    pub modules: Vec<PathBuf>,
    /// The hierarchies that can carry its memory controller.
    pub hierarchies: Vec<Hierarchy>,
}

/// Drivers that the tests want and a kernel may have as modules.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4", "overlay", "loop"];
/// Further ones, which a kernel may not have at all: compressed swap, and what it compresses with by default up to 6.11. What needs them must say
/// where they are missing.
const PERHAPS: &[&str] = &["lzo", "lzo_rle", "zram"];
/// The package of each release that depends on its present cloud kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

impl Kernel {
    /// All, oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// Its name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => "trixie-backports",
        }
    }

    /// The kernel from the cache, fetched if it is not there. Removing its folder makes the next call fetch it anew.
    pub fn files(self) -> Result<Files> {
        let folder = workspace::cache()?.join("kernels").join(self.name());
        let config = folder.join("config");
        // A kernel that was fetched for other modules lacks some.
        let asked = fs::read_to_string(folder.join("asked")).unwrap_or_default();
        if !config.is_file() || asked != asked_modules() {
            println!("fetching kernel {} ({}) into {}", self.name(), self.suite(), folder.display());
            self.fetch(&folder)?;
        }
        let mut modules = Vec::new();
        let listing = folder.join("modules");
        for module in fs::read_dir(&listing).with_context(|| listing.display().to_string())? {
            modules.push(module?.path());
        }
        modules.sort();
        let release = folder.join("release");
        let release = fs::read_to_string(&release).with_context(|| release.display().to_string())?;
        let config = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        Ok(Files { vmlinuz: folder.join("vmlinuz"), release, modules, hierarchies: hierarchies(&config) })
    }

    fn fetch(self, folder: &Path) -> Result<()> {
        // xz: newer kernels have compressed modules.
        apt::ensure_installed(&["dpkg", "xz-utils"])?;
        let cache = folder.parent().context("the cache has no folder")?;
        fs::create_dir_all(cache).with_context(|| cache.display().to_string())?;
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache).context("cannot make a working folder")?;
        let unpacked = work.path().join("unpacked");
        let release = Release::fetch(self.suite(), work.path())?;
        let image = release.depends(PACKAGE)?.into_iter().find(|name| name.starts_with("linux-image-"));
        let image = image.with_context(|| format!("{PACKAGE} of {} names no kernel", self.suite()))?;
        let version = image.trim_start_matches("linux-image-").to_owned();
        // Up to 6.x all is in this package; since 7.x it only depends on the packages that hold image, modules and lists.
        let mut packages = release.depends(&image)?;
        packages.retain(|name| name.starts_with("linux-") && name.ends_with(&version));
        packages.push(image);
        release.unpack(&packages, &unpacked)?;

        let done = work.path().join("done");
        fs::create_dir_all(done.join("modules")).context("cannot make the kernel's folder")?;
        let tree = Tree::of(&unpacked, &version)?;
        fs::copy(&tree.vmlinuz, done.join("vmlinuz")).with_context(|| tree.vmlinuz.display().to_string())?;
        for (number, (name, bytes)) in tree.load_order()?.into_iter().enumerate() {
            let path = done.join(format!("modules/{number:02}-{name}.ko"));
            fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        }
        fs::write(done.join("release"), &version).context("cannot write the kernel's version")?;
        fs::write(done.join("asked"), asked_modules()).context("cannot write the names of the modules")?;
        fs::copy(&tree.config, done.join("config")).with_context(|| tree.config.display().to_string())?;
        if folder.exists() {
            // Left by an older version of this task.
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::rename(&done, folder).with_context(|| format!("cannot make {}", folder.display()))
    }
}

/// Since 6.11 the v1 memory controller is an option, which Debian's kernels leave out; before, it came with the controller.
fn hierarchies(config: &str) -> Vec<Hierarchy> {
    let without_v1 = config.lines().any(|line| line == "# CONFIG_MEMCG_V1 is not set");
    Hierarchy::ALL.into_iter().filter(|hierarchy| *hierarchy == Hierarchy::V2 || !without_v1).collect()
}

/// An unpacked kernel.
struct Tree {
    vmlinuz: PathBuf,
    config: PathBuf,
    /// What the kernel has without modules, a path a line.
    builtin: String,
    modules: PathBuf,
}

impl Tree {
    fn of(unpacked: &Path, version: &str) -> Result<Self> {
        let first = |candidates: [PathBuf; 2]| {
            let found = candidates.iter().find(|path| path.exists()).cloned();
            found.with_context(|| format!("{version}: neither {} nor {}", candidates[0].display(), candidates[1].display()))
        };
        let modules = first([unpacked.join("usr/lib/modules").join(version), unpacked.join("lib/modules").join(version)])?;
        let vmlinuz = first([unpacked.join(format!("boot/vmlinuz-{version}")), modules.join("vmlinuz")])?;
        let config = first([unpacked.join(format!("boot/config-{version}")), modules.join("config")])?;
        let builtin = modules.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).with_context(|| builtin.display().to_string())?;
        Ok(Self { vmlinuz, config, builtin, modules })
    }

    /// The wanted modules and what they need, in an order in which they load, decompressed.
    fn load_order(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        files_below(&self.modules.join("kernel"), &mut files)?;
        let mut order = Vec::new();
        for name in MODULES {
            self.add(name, &files, &mut order)?;
        }
        for name in PERHAPS.iter().filter(|name| self.has(name, &files)) {
            self.add(name, &files, &mut order)?;
        }
        Ok(order)
    }

    /// Whether the kernel has it as a module.
    fn has(&self, name: &str, files: &[PathBuf]) -> bool {
        files.iter().any(|file| module_name(file).as_deref() == Some(name))
    }

    fn add(&self, name: &str, files: &[PathBuf], order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if order.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let Some(file) = files.iter().find(|file| module_name(file).as_deref() == Some(name)) else {
            if self.builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name)) {
                return Ok(());
            }
            bail!("the kernel has no {name}, neither built in nor as a module");
        };
        let bytes = decompressed(file)?;
        for needed in needs(&bytes).with_context(|| file.display().to_string())? {
            self.add(&needed, files, order)?;
        }
        order.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// The names of the modules that a kernel in the cache was fetched with.
fn asked_modules() -> String {
    [MODULES, PERHAPS].concat().join(" ")
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { files_below(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// `crc32c_intel` for `.../crc32c-intel.ko.xz`: files may have a dash where the kernel has an underscore.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let (name, _) = name.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn decompressed(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => command::bytes(Command::new("xz").arg("-dc").arg(file)),
        Some("ko") => fs::read(file).with_context(|| file.display().to_string()),
        _ => bail!("{}: unknown compression", file.display()),
    }
}

/// The modules that a module needs, from its own `depends=` line.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let elf = object::File::parse(module).context("not an ELF file")?;
    let section = elf.section_by_name(".modinfo").context("no .modinfo")?;
    let lines = section.data().context("unreadable .modinfo")?.split(|byte| *byte == 0);
    let depends = lines.filter_map(|line| line.strip_prefix(b"depends=")).flat_map(|names| names.split(|byte| *byte == b','));
    let names = depends.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).replace('-', "_"));
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_the_kernels_name() {
        assert_eq!(module_name(Path::new("kernel/arch/x86/crypto/crc32c-intel.ko.xz")).as_deref(), Some("crc32c_intel"));
        assert_eq!(module_name(Path::new("kernel/fs/ext4/ext4.ko")).as_deref(), Some("ext4"));
        assert_eq!(module_name(Path::new("modules.builtin")), None);
    }

    #[test]
    fn v1_is_there_unless_the_configuration_says_otherwise() {
        assert_eq!(hierarchies("CONFIG_MEMCG=y\n"), Hierarchy::ALL);
        assert_eq!(hierarchies("CONFIG_MEMCG=y\nCONFIG_MEMCG_V1=y\n"), Hierarchy::ALL);
        assert_eq!(hierarchies("CONFIG_MEMCG=y\n# CONFIG_MEMCG_V1 is not set\n"), [Hierarchy::V2]);
    }

    #[test]
    fn names_on_the_command_line_are_the_names_in_the_cache() {
        for kernel in Kernel::ALL {
            let value = kernel.to_possible_value().expect("no kernel is hidden");
            assert_eq!(value.get_name(), kernel.name());
        }
    }
}
