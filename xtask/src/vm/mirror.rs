//! A private apt: fetches packages of other Debian releases from the mirror that this machine uses anyway.
//!
//! It has its own sources, lists and cache; the machine's package state is neither used nor changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{apt, command};

/// In Debian since 8; signs all releases wanted here.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One release's package lists, fetched into a folder.
pub struct Release {
    folder: PathBuf,
}

/// Addresses of Debian's archive and of its security archive, as the machine's own sources name them.
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Release {
    /// Fetches the lists of `suite` into `folder`. A release that is old may be left in the security archive only.
    pub fn fetch(suite: &str, folder: &Path) -> Result<Self> {
        apt::ensure_installed(&["debian-archive-keyring"])?;
        let mirrors = Mirrors::of_this_machine()?;
        let mut sources = vec![format!("{} {suite} main", mirrors.main)];
        if let Some(security) = mirrors.security {
            sources.push(format!("{security} {suite}-security main"));
        }
        let release = Self { folder: folder.to_path_buf() };
        for part in ["lists/partial", "cache/archives/partial", "packages"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
        }
        let mut failures = Vec::new();
        for source in sources {
            let list = release.sources();
            fs::write(&list, format!("deb [arch=amd64 signed-by={KEYRING}] {source}\n")).with_context(|| list.display().to_string())?;
            let update = ["update", "-o", "APT::Update::Error-Mode=any"];
            match command::output(release.apt("apt-get").args(update)) {
                Ok(_) => return Ok(release),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("the mirror does not offer {suite}:\n{}", failures.join("\n"))
    }

    /// The packages that `package` depends on directly: the first name of each dependency.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = command::output(self.apt("apt-cache").args(["depends", "--no-recommends", "--no-suggests", package]))?;
        Ok(text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// Downloads packages, which apt checks against the signed lists, and unpacks them into `into`.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let folder = self.folder.join("packages");
        command::output(self.apt("apt-get").arg("download").args(packages).current_dir(&folder))?;
        for package in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            command::run(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(into))?;
        }
        Ok(())
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    /// An apt program confined to the folder.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let settings = [
            ("Dir::Etc::SourceList", self.sources()),
            ("Dir::State::Lists", self.folder.join("lists")),
            ("Dir::Cache", self.folder.join("cache")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("Dir::State::status", "/dev/null".into()),
        ];
        for (name, path) in settings {
            command.arg("-o").arg(format!("{name}={}", path.display()));
        }
        // The folder belongs to whoever runs this; apt's own user need not be able to write there.
        command.args(["-q", "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none"]);
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command
    }
}

impl Mirrors {
    fn of_this_machine() -> Result<Self> {
        let query = || {
            let format = "$(LABEL) $(REPO_URI)";
            command::output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))
        };
        let mut targets = query()?;
        if targets.is_empty() {
            apt::update()?;
            targets = query()?;
        }
        let labelled = |label: &str| targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' ')).map(str::to_owned);
        let main = labelled("Debian").context("the machine's apt sources name no Debian mirror")?;
        ensure!(!main.is_empty(), "the machine's apt sources name a Debian mirror without an address");
        Ok(Self { main, security: labelled("Debian-Security") })
    }
}
