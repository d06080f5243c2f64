//! What people install: one static program with its man pages, completions, unit and alerts, as a Debian package and as an archive. Everything in
//! them has the time of the last commit, so that two builds of one commit are equal.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, programs, workspace};

/// Who is asked about the package.
const MAINTAINER: &str = "memtrail developers <memtrail@localhost>";

/// Makes them below target/dist, and says where.
pub fn run() -> Result<()> {
    let root = workspace::root()?;
    let dist = root.join("target/dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).context("target/dist cannot be made anew")?;
    }
    let program = programs::dist()?;
    let version = version(&program)?;
    let tree = dist.join("root");
    stage(&root, &program, &tree)?;
    // Whatever the umask is.
    command::run(Command::new("find").arg(&tree).args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))?;
    let time = command::output(Command::new("git").current_dir(&root).args(["log", "-1", "--format=%ct"]))?;
    let package = debian(&dist, &tree, &version, &time)?;
    let archive = dist.join(format!("memtrail-{version}-x86_64-linux.tar.gz"));
    let listing = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--exclude=./DEBIAN"];
    let tar =
        Command::new("tar").current_dir(&tree).args(listing).arg(format!("--mtime=@{time}")).args(["-c", "."]).output().context("tar")?;
    anyhow::ensure!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
    let plain = archive.with_extension("");
    fs::write(&plain, tar.stdout)?;
    // Without name and time in its head.
    command::run(Command::new("gzip").args(["--no-name", "--force", "-9"]).arg(&plain))?;
    let mut sums = Command::new("sha256sum");
    sums.current_dir(&dist).args([&package, &archive].into_iter().filter_map(|file| file.file_name()));
    let sums = command::output(&mut sums)?;
    fs::write(dist.join("SHA256SUMS"), format!("{sums}\n"))?;
    println!("{sums}\nin {}", dist.display());
    Ok(())
}

/// `0.1.0`.
fn version(program: &Path) -> Result<String> {
    let said = command::output(Command::new(program).arg("--version"))?;
    Ok(said.strip_prefix("memtrail ").context("memtrail --version")?.to_owned())
}

/// The files as they lie on a host.
fn stage(root: &Path, program: &Path, tree: &Path) -> Result<()> {
    let put = |from: &Path, to: &str, mode: u32| -> Result<()> {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        Ok(fs::set_permissions(&to, fs::Permissions::from_mode(mode))?)
    };
    put(program, "usr/bin/memtrail", 0o755)?;
    let documents = tree.join("../documents");
    command::run(Command::new(program).arg("documents").arg(&documents))?;
    for entry in fs::read_dir(&documents)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        match name {
            "memtrail.bash" => put(&path, "usr/share/bash-completion/completions/memtrail", 0o644)?,
            "_memtrail" => put(&path, "usr/share/zsh/vendor-completions/_memtrail", 0o644)?,
            "memtrail.fish" => put(&path, "usr/share/fish/vendor_completions.d/memtrail.fish", 0o644)?,
            _ if name.ends_with(".1") => {
                command::run(Command::new("gzip").args(["--no-name", "--force", "-9"]).arg(&path))?;
                put(&path.with_extension("1.gz"), &format!("usr/share/man/man1/{name}.gz"), 0o644)?;
            }
            _ => {}
        }
    }
    let packaging = root.join("packaging");
    put(&packaging.join("systemd/memtrail.service"), "usr/lib/systemd/system/memtrail.service", 0o644)?;
    put(&packaging.join("systemd/memtrail.sysusers"), "usr/lib/sysusers.d/memtrail.conf", 0o644)?;
    put(&packaging.join("prometheus/memtrail.rules.yml"), "usr/share/doc/memtrail/memtrail.rules.yml", 0o644)?;
    for text in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "docs/serve.md", "docs/metrics.md", "docs/verdicts.md", "docs/limits.md"] {
        put(&root.join(text), &format!("usr/share/doc/memtrail/{}", text.rsplit('/').next().unwrap_or(text)), 0o644)?;
    }
    put(&packaging.join("debian/copyright"), "usr/share/doc/memtrail/copyright", 0o644)
}

/// The package. It starts nothing when it is installed: a tracer should be asked for.
fn debian(dist: &Path, tree: &Path, version: &str, time: &str) -> Result<PathBuf> {
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control)?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
    let kib: u64 = command::output(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree.join("usr")))?
        .split_whitespace()
        .next()
        .context("du")?
        .parse()?;
    let text = format!(
        "Package: memtrail\nVersion: {version}\nArchitecture: amd64\nMaintainer: {MAINTAINER}\nInstalled-Size: {kib}\nSection: admin\nPriority: optional\n\
         Suggests: prometheus\nDescription: eBPF memory tracer for containers\n Says which call stack, file and process made the memory of each cgroup resident,\n \
         explains OOM kills, and serves metrics and profiles.\n"
    );
    fs::write(control.join("control"), text)?;
    for script in ["postinst", "prerm", "postrm"] {
        let to = control.join(script);
        fs::copy(workspace::root()?.join("packaging/debian").join(script), &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    let package = dist.join(format!("memtrail_{version}_amd64.deb"));
    let mut deb = Command::new("dpkg-deb");
    deb.env("SOURCE_DATE_EPOCH", time).args(["--root-owner-group", "--build"]).arg(tree).arg(&package);
    command::output(&mut deb)?;
    Ok(package)
}
