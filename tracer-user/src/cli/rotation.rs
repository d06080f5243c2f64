//! `--rotate-size` and `--rotate-every`: a recording in parts. The newest part has the recording's name; ended ones have a
//! number, and the oldest of them leave when there are too many.

use anyhow::{Context as _, Result};
use std::{
    collections::VecDeque,
    ffi::OsStr,
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
    /// Ended files that are kept; beyond them the oldest is removed, and that is said.
    #[arg(long, value_name = "N", default_value_t = KEPT, value_parser = clap::value_parser!(u32).range(1..))]
    pub rotate_keep: u32,
}

/// A day of hours.
const KEPT: u32 = 24;
/// Smallest part: each begins with a whole reading and ends with a report, so smaller ones would be nothing but that.
const LEAST_BYTES: u64 = 1 << 20;
/// Shortest part, likewise.
const LEAST_TIME: Duration = Duration::from_secs(1);

fn part_size(text: &str) -> Result<u64, String> {
    let size = crate::text::units::parse_size(text).map_err(|error| error.to_string())?;
    if size < LEAST_BYTES { Err("a part has 1 MiB at least".to_owned()) } else { Ok(size) }
}

fn part_duration(text: &str) -> Result<Duration, String> {
    let time = crate::text::units::parse_duration(text).map_err(|error| error.to_string())?;
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

    /// Parts that are kept beside the newest.
    pub fn kept(&self) -> usize {
        usize::try_from(self.rotate_keep).unwrap_or(usize::MAX)
    }
}

/// The ended parts of a recording, oldest first.
#[derive(Debug, Default)]
pub struct Aside {
    parts: VecDeque<PathBuf>,
    /// The newest one's number.
    last: u64,
}

impl Aside {
    /// Gives an ended part its number: above all that there are, so nothing is ever replaced and order is age. The name stays until the next
    /// part takes it, but on file systems without hard links.
    pub fn put(&mut self, path: &Path) -> Result<()> {
        self.put_with(path, |from, to| std::fs::hard_link(from, to))
    }

    fn put_with(&mut self, path: &Path, link: impl Fn(&Path, &Path) -> io::Result<()>) -> Result<()> {
        self.last = self.last.max(highest(path));
        loop {
            self.last = self.last.checked_add(1).with_context(|| format!("{}: no number is free", path.display()))?;
            let numbered = numbered(path, self.last);
            let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
            match link(path, &numbered).or_else(|error| if taken(&error) { Err(error) } else { rename(path, &numbered) }) {
                Ok(()) => {
                    self.parts.push_back(numbered);
                    return Ok(());
                }
                Err(error) if taken(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("{}: cannot be put aside", numbered.display())),
            }
        }
    }

    /// The newest of the parts that this recording put aside.
    pub fn newest(&self) -> Option<&Path> {
        self.parts.back().map(PathBuf::as_path)
    }

    /// Removes the oldest parts beyond `kept`, of those that this recording put aside; their names.
    pub fn remove_beyond(&mut self, kept: usize) -> Result<Vec<PathBuf>> {
        let oldest: Vec<PathBuf> = self.parts.drain(..self.parts.len().saturating_sub(kept)).collect();
        for part in &oldest {
            match std::fs::remove_file(part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{}: cannot be removed", part.display()));
                }
                _ => {}
            }
        }
        Ok(oldest)
    }
}

/// Renames and replaces nothing: the new name is taken first.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::File::create_new(to)?;
    std::fs::rename(from, to).inspect_err(|_| drop(std::fs::remove_file(to)))
}

/// Highest number of a part that lies beside the recording, whoever made it; 0 if there is none.
fn highest(path: &Path) -> u64 {
    let Ok(folder) = std::fs::read_dir(crate::host::write::directory_of(path)) else { return 0 };
    let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
    let number = |name: &OsStr| {
        let middle = name.as_encoded_bytes().strip_prefix(stem)?.strip_prefix(b".")?.strip_suffix(b".mtrail")?;
        std::str::from_utf8(middle).ok()?.parse().ok()
    };
    folder.filter_map(|entry| number(&entry.ok()?.file_name())).max().unwrap_or(0)
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

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn parts_are_numbered_by_age_and_nothing_is_replaced() {
        let no_links = |_: &Path, _: &Path| Err(io::Error::from_raw_os_error(libc::EPERM));
        for with_links in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.b.mtrail");
            // Of an earlier run, which removed its first ones.
            std::fs::write(folder.path().join("a.b.7.mtrail"), "older").unwrap();
            let mut aside = Aside::default();
            for part in ["one", "two", "three"] {
                std::fs::write(folder.path().join("next"), part).unwrap();
                std::fs::rename(folder.path().join("next"), &path).unwrap();
                if with_links {
                    aside.put(&path).unwrap()
                } else {
                    aside.put_with(&path, no_links).unwrap()
                }
                assert_eq!(path.exists(), with_links);
            }
            let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(["a.b.7.mtrail", "a.b.8.mtrail", "a.b.9.mtrail", "a.b.10.mtrail"].map(read), ["older", "one", "two", "three"]);
            // Only its own are removed, and their numbers do not come again.
            assert_eq!(aside.remove_beyond(1).unwrap(), ["a.b.8.mtrail", "a.b.9.mtrail"].map(|name| folder.path().join(name)));
            std::fs::write(&path, "four").unwrap();
            aside.put(&path).unwrap();
            assert_eq!(names(folder.path()), ["a.b.10.mtrail", "a.b.11.mtrail", "a.b.7.mtrail", "a.b.mtrail"]);
            assert!(aside.remove_beyond(2).unwrap().is_empty());
        }
    }

    #[test]
    fn a_folder_that_takes_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("a.mtrail");
        assert!(Aside::default().put(&path).unwrap_err().to_string().contains("a.1.mtrail"));
    }

    #[test]
    fn size_or_time_whichever_comes_first() {
        let rotation = Rotation { rotate_size: Some(100), rotate_every: Some(Duration::from_secs(60)), rotate_keep: 1 };
        assert!(!rotation.is_due(99, Duration::from_secs(59)) && rotation.is_due(100, Duration::ZERO));
        assert!(rotation.is_due(0, Duration::from_secs(60)) && !Rotation::default().is_due(u64::MAX, Duration::MAX));
    }
}
