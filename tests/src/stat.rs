//! `memory.stat`, parsed. Pure.

use crate::hierarchy::Version;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// The kernel's keys and figures.
pub type Stat = BTreeMap<String, u64>;

/// Parses the file's `key value` lines.
pub fn parse(text: &str) -> Result<Stat> {
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ').with_context(|| format!("memory.stat line {line:?}"))?;
            Ok((key.to_owned(), value.trim().parse().with_context(|| format!("memory.stat line {line:?}"))?))
        })
        .collect()
}

/// Bytes of the kinds that the workloads use, or a change of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Kinds {
    /// Mapped anonymous memory.
    pub anon: i64,
    /// Page cache without shmem.
    pub file: i64,
    /// tmpfs, memfd, shared anonymous and System V memory.
    pub shmem: i64,
}

impl Kinds {
    /// The kinds in a `memory.stat`: `rss`, `cache` and `shmem` of the cgroup itself on v1, `anon`, `file` and `shmem` on v2. Both
    /// count shmem in the page cache too.
    pub fn of(stat: &Stat, version: Version) -> Result<Kinds> {
        let figure = |key: &str| -> Result<i64> {
            let value = stat.get(key).with_context(|| format!("memory.stat has no {key}"))?;
            i64::try_from(*value).with_context(|| format!("memory.stat {key} is {value}"))
        };
        let (anon, cache) = match version {
            Version::V1 => ("rss", "cache"),
            Version::V2 => ("anon", "file"),
        };
        let shmem = figure("shmem")?;
        Ok(Kinds { anon: figure(anon)?, file: figure(cache)? - shmem, shmem })
    }

    /// The figure of a kind by its name in reports; `None` for kinds that the workloads do not use.
    pub fn get(&self, kind: &str) -> Option<i64> {
        let Kinds { anon, file, shmem } = *self;
        match kind {
            "anon" => Some(anon),
            "file" => Some(file),
            "shmem" => Some(shmem),
            _ => None,
        }
    }

    /// The largest distance of any kind from the other's.
    pub fn distance(&self, other: Kinds) -> u64 {
        let Kinds { anon, file, shmem } = *self - other;
        anon.unsigned_abs().max(file.unsigned_abs()).max(shmem.unsigned_abs())
    }

    /// The largest figure, without its sign.
    pub fn largest(&self) -> u64 {
        self.distance(Kinds::default())
    }
}

impl Add for Kinds {
    type Output = Kinds;
    fn add(self, other: Kinds) -> Kinds {
        Kinds { anon: self.anon + other.anon, file: self.file + other.file, shmem: self.shmem + other.shmem }
    }
}

impl AddAssign for Kinds {
    fn add_assign(&mut self, other: Kinds) {
        *self = *self + other;
    }
}

impl Sub for Kinds {
    type Output = Kinds;
    fn sub(self, other: Kinds) -> Kinds {
        Kinds { anon: self.anon - other.anon, file: self.file - other.file, shmem: self.shmem - other.shmem }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "anon {:+} file {:+} shmem {:+}", self.anon, self.file, self.shmem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_cache_is_file_and_shmem() {
        let stat = parse("cache 50585600\nrss 4096\nshmem 33554432\ntotal_cache 1\n").unwrap();
        let expected = Kinds { anon: 4096, file: 50585600 - 33554432, shmem: 33554432 };
        assert_eq!(Kinds::of(&stat, Version::V1).unwrap(), expected);
    }

    #[test]
    fn v2_names_differ() {
        let stat = parse("anon 8192\nfile 12288\nshmem 4096\n").unwrap();
        assert_eq!(Kinds::of(&stat, Version::V2).unwrap(), Kinds { anon: 8192, file: 8192, shmem: 4096 });
        assert!(Kinds::of(&stat, Version::V1).is_err(), "a missing key is an error, never zero");
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(parse("anon\n").is_err());
        assert!(parse("anon -1\n").is_err());
    }

    #[test]
    fn distance_takes_the_worst_kind() {
        let change = Kinds { anon: -5, file: 3, shmem: 0 };
        assert_eq!(change.largest(), 5);
        assert_eq!(change.distance(Kinds { anon: -5, file: -4, shmem: 1 }), 7);
    }
}
