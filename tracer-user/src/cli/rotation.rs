//! `--rotate-size` and `--rotate-every`: a recording in parts. The newest part has the recording's name; ended ones have a number.

use anyhow::{Context as _, Result};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// When a part is long enough.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Rotation {
    /// End a .mtrail file at this size and go on in a new one; ended ones are called NAME.1.mtrail, NAME.2.mtrail, ...
    #[arg(long, value_name = "SIZE", value_parser = part_size)]
    pub rotate_size: Option<u64>,
    /// The same after this time.
    #[arg(long, value_name = "TIME", value_parser = part_duration)]
    pub rotate_every: Option<Duration>,
}

/// Smallest part: each begins with a whole reading and ends with a report, so smaller ones would be nothing but that.
const LEAST_BYTES: u64 = 1 << 20;
/// Shortest part, likewise.
const LEAST_TIME: Duration = Duration::from_secs(1);

fn part_size(text: &str) -> Result<u64, String> {
    let size = crate::units::parse_size(text).map_err(|error| error.to_string())?;
    if size < LEAST_BYTES { Err("a part has 1 MiB at least".to_owned()) } else { Ok(size) }
}

fn part_duration(text: &str) -> Result<Duration, String> {
    let time = crate::units::parse_duration(text).map_err(|error| error.to_string())?;
    if time < LEAST_TIME { Err("a part has 1 s at least".to_owned()) } else { Ok(time) }
}

impl Rotation {
    /// Nothing was asked for.
    pub fn is_none(&self) -> bool {
        self.rotate_size.is_none() && self.rotate_every.is_none()
    }

    /// Whether a part of that many bytes and that age is to end.
    pub fn is_due(&self, bytes: u64, age: Duration) -> bool {
        self.rotate_size.is_some_and(|size| bytes >= size) || self.rotate_every.is_some_and(|every| age >= every)
    }

    /// Gives an ended part its number: the first that is free, so nothing is ever replaced. The name stays until the next part takes it.
    pub fn put_aside(&self, path: &Path) -> Result<PathBuf> {
        for number in 1_u64.. {
            let numbered = numbered(path, number);
            match std::fs::hard_link(path, &numbered) {
                Ok(()) => return Ok(numbered),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("{}: cannot be put aside", numbered.display())),
            }
        }
        anyhow::bail!("{}: no number is free", path.display())
    }
}

/// `a/run.mtrail` and 3: `a/run.3.mtrail`.
fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{number}.mtrail"));
    path.with_file_name(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_and_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.b.mtrail");
        std::fs::write(folder.path().join("a.b.1.mtrail"), "older").unwrap();
        std::fs::write(&path, "part").unwrap();
        let rotation = Rotation::default();
        assert_eq!(rotation.put_aside(&path).unwrap(), folder.path().join("a.b.2.mtrail"));
        assert_eq!(std::fs::read_to_string(folder.path().join("a.b.1.mtrail")).unwrap(), "older");
        assert_eq!(rotation.put_aside(&path).unwrap(), folder.path().join("a.b.3.mtrail"));
    }

    #[test]
    fn size_or_time_whichever_comes_first() {
        let rotation = Rotation { rotate_size: Some(100), rotate_every: Some(Duration::from_secs(60)) };
        assert!(!rotation.is_due(99, Duration::from_secs(59)) && rotation.is_due(100, Duration::ZERO));
        assert!(rotation.is_due(0, Duration::from_secs(60)) && !Rotation::default().is_due(u64::MAX, Duration::MAX));
    }
}
