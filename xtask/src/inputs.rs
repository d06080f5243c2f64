//! What the eBPF object is made from, and the hash of it.
//!
//! `cargo xtask build-ebpf` writes the hash into the manifest beside the object; `tracer-user/build.rs` includes this very file and
//! compares. So there is one definition of "the object is stale". Only the standard library and `sha2` here: it is built twice.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Compiler flags of the eBPF build. Part of the inputs: other flags give another object.
pub const RUSTFLAGS: &[&str] = &["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// The object and its manifest as committed, relative to the workspace.
pub const COMMITTED: &str = "tracer-user/bpf";
/// The object and its manifest as built on this machine, relative to the workspace.
pub const LOCAL: &str = "target/bpf";
/// Name of the object in both places.
pub const OBJECT: &str = "tracer.bpf.o";
/// Name of the manifest in both places.
pub const MANIFEST: &str = "manifest.json";

/// Files and folders whose every byte counts, relative to the workspace.
pub const SOURCES: &[&str] = &["tracer-ebpf/Cargo.toml", "tracer-ebpf/src", "tracer-common/Cargo.toml", "tracer-common/src"];
/// Sections of the workspace's Cargo.toml that count: versions and editions reach symbol names, profiles the code.
const SECTIONS: &[&str] = &["[workspace.package]", "[profile.release]", "[profile.bpf]"];
/// Packages of Cargo.lock that count, by the beginning of their names. The procedural macros' own dependencies are left out: they
/// come and go with every `cargo update`, and a change in what they generate shows in the byte comparison of the tests.
const PACKAGES: &[&str] = &["aya-ebpf", "aya-log-ebpf", "aya-log-common", "aya-log-parser", "aya-build"];

/// SHA-256 of all inputs of the eBPF object, in hexadecimal.
pub fn inputs_sha256(root: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    for flag in RUSTFLAGS {
        item(&mut hash, "flag", flag.as_bytes());
    }
    for source in SOURCES {
        let mut files = Vec::new();
        files_below(&root.join(source), &mut files)?;
        // Sorted by their path as bytes: the order of a directory differs between file systems.
        files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        for file in files {
            let name = file.strip_prefix(root).unwrap_or(&file);
            item(&mut hash, "file", name.as_os_str().as_encoded_bytes());
            item(&mut hash, "text", &read(&file)?);
        }
    }
    let manifest = String::from_utf8_lossy(&read(&root.join("Cargo.toml"))?).into_owned();
    for section in SECTIONS {
        item(&mut hash, section, section_text(&manifest, section).as_bytes());
    }
    let lock = String::from_utf8_lossy(&read(&root.join("Cargo.lock"))?).into_owned();
    for package in lock_packages(&lock) {
        item(&mut hash, "package", package.as_bytes());
    }
    Ok(hex(hash))
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hex(hash)
}

/// Adds one named item; lengths keep "ab" + "c" apart from "a" + "bc".
fn item(hash: &mut Sha256, name: &str, bytes: &[u8]) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// All files at or below `path`, except hidden ones (editors leave swap files).
fn files_below(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            files_below(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The lines of one section of a TOML file, without comments and empty lines.
fn section_text(toml: &str, section: &str) -> String {
    let mut text = String::new();
    let lines = toml.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    for line in lines.take_while(|line| !line.starts_with('[')) {
        if !line.is_empty() && !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// `name version checksum` of each package of Cargo.lock that the object is linked from.
fn lock_packages(lock: &str) -> Vec<String> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let mut packages: Vec<String> = lock
        .split("[[package]]")
        .map(|block| (field(block, "name"), field(block, "version"), field(block, "checksum")))
        .filter(|(name, ..)| PACKAGES.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, version, checksum)| format!("{name} {version} {checksum}"))
        .collect();
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with as little as the hash reads.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in [
            ("Cargo.toml", "[workspace]\nmembers = []\n[profile.bpf]\nlto = true\n"),
            ("Cargo.lock", "[[package]]\nname = \"aya-ebpf\"\nversion = \"1\"\n\n[[package]]\nname = \"clap\"\nversion = \"1\"\n"),
            ("tracer-ebpf/Cargo.toml", "x"),
            ("tracer-ebpf/src/main.rs", "x"),
            ("tracer-common/Cargo.toml", "x"),
            ("tracer-common/src/a/b.rs", "x"),
        ] {
            write(root.path(), path, text);
        }
        root
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Whether the hash changes when `path` is written with `text`.
    fn changes(path: &str, text: &str) -> bool {
        let root = workspace();
        let before = inputs_sha256(root.path()).expect("a hash");
        write(root.path(), path, text);
        before != inputs_sha256(root.path()).expect("a hash")
    }

    #[test]
    fn every_input_counts() {
        assert!(changes("tracer-ebpf/src/main.rs", "y"));
        assert!(changes("tracer-ebpf/src/probes/new.rs", ""));
        assert!(changes("tracer-common/src/a/b.rs", "x\n"));
        assert!(changes("tracer-ebpf/Cargo.toml", "y"));
        assert!(changes("Cargo.toml", "[profile.bpf]\nlto = false\n"));
        assert!(changes("Cargo.lock", "[[package]]\nname = \"aya-ebpf\"\nversion = \"2\"\n"));
    }

    #[test]
    fn what_is_no_input_does_not_count() {
        assert!(!changes("tracer-user/src/main.rs", "y"));
        assert!(!changes("tracer-ebpf/src/.main.rs.swp", "y"));
        assert!(!changes("Cargo.toml", "[workspace]\nmembers = [\"more\"]\n[profile.bpf]\n# why\nlto = true\n"));
        assert!(!changes(
            "Cargo.lock",
            "[[package]]\nname = \"clap\"\nversion = \"2\"\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"1\"\n"
        ));
    }

    #[test]
    fn the_place_of_the_workspace_does_not_count() {
        let (a, b) = (workspace(), workspace());
        assert_eq!(inputs_sha256(a.path()).expect("a hash"), inputs_sha256(b.path()).expect("a hash"));
    }
}
