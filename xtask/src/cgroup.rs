//! Memory cgroups of test programs that could not remove them themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Where the cgroups of tests are, below the root; their names begin with the test program's process id. Must equal the one in the tests' harness.
const TESTS: &str = "memtrail-test";
/// Processes that were killed are some milliseconds on their way out.
const REMOVE_ATTEMPTS: u32 = 100;

/// Where the memory controller is mounted, and whether that is cgroup v1.
pub fn memory_root() -> Result<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    hierarchy(&mounts).context("no mounted cgroup hierarchy carries the memory controller")
}

/// Removes what a test program has left, whose processes are gone; the names of those that cannot be removed.
pub fn remove_left_by(pid: u32) -> Vec<String> {
    let Ok((root, _)) = memory_root() else { return Vec::new() };
    let folder = root.join(TESTS);
    let left = remove_in(&folder, &format!("{pid}-"));
    // Fails while another test program has a cgroup there, which is right.
    let _ = fs::remove_dir(folder);
    left
}

fn remove_in(folder: &Path, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).filter(|name| !remove(&folder.join(name))).collect()
}

/// Removes a cgroup and those below it.
fn remove(folder: &Path) -> bool {
    for below in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove(&below);
    }
    (0..REMOVE_ATTEMPTS).any(|_| {
        let removed = fs::remove_dir(folder);
        if removed.is_err() {
            sleep(Duration::from_millis(20));
        }
        removed.is_ok()
    })
}

/// Where the memory controller is mounted, and whether that is cgroup v1.
fn hierarchy(mountinfo: &str) -> Option<(PathBuf, bool)> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let root = Path::new(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        match right.next()? {
            "cgroup" if right.nth(1)?.split(',').any(|option| option == "memory") => Some((root.to_path_buf(), true)),
            "cgroup2" => {
                let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
                controllers.split_whitespace().any(|name| name == "memory").then(|| (root.to_path_buf(), false))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_that_program_left_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["7-a/below/deep", "7-b", "77-c"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        assert_eq!(remove_in(folder.path(), "7-"), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(folder.path()).expect("it is there").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["77-c"]);
    }
}
