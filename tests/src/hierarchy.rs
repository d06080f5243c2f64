//! Where the memory controller is mounted. Reads /proc/self/mountinfo only; mounts nothing.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;

/// Which interface files a memory cgroup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `memory.usage_in_bytes`, local figures in `memory.stat`.
    V1,
    /// `memory.current`, recursive figures in `memory.stat`.
    V2,
}

/// The hierarchy that carries the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// Where it is mounted.
    pub root: PathBuf,
}

impl Hierarchy {
    /// Finds it. On a hybrid host the memory controller is in one of the two only.
    pub fn find() -> Result<Hierarchy> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        for found in candidates(&mounts) {
            if found.version == Version::V1 {
                return Ok(found);
            }
            let controllers = found.root.join("cgroup.controllers");
            let controllers = fs::read_to_string(&controllers).with_context(|| controllers.display().to_string())?;
            if controllers.split_whitespace().any(|name| name == "memory") {
                return Ok(found);
            }
        }
        bail!("no mounted cgroup hierarchy carries the memory controller")
    }
}

/// Mounts that may carry it, in the order of the file: v1 with `memory` among its options, and every v2.
fn candidates(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo.lines().filter_map(candidate).collect()
}

fn candidate(line: &str) -> Option<Hierarchy> {
    // "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
    let (left, right) = line.split_once(" - ")?;
    let root = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" if right.nth(1)?.split(',').any(|option| option == "memory") => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    Some(Hierarchy { version, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_memory_is_told_from_other_controllers_and_from_v2() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 1 0:30 / /memory rw - tmpfs memory rw,memory\n";
        let expected = [(Version::V1, "/sys/fs/cgroup/memory"), (Version::V2, "/sys/fs/cgroup/unified")]
            .map(|(version, root)| Hierarchy { version, root: root.into() });
        assert_eq!(candidates(mounts), expected);
    }
}
