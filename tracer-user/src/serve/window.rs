//! The recordings on disk: the last hours, in parts. The newest part is `window.mtrail`; ended ones have numbers, and leave when they are too old
//! or too large together. A memtrail that starts again goes on in the same folder, and the time in between is a gap.

use crate::host::write::make_private_directory;
use crate::recording::{self, Point, RecordingError};
use crate::report::Report;
use crate::text::date;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The newest part.
const NEWEST: &str = "window.mtrail";

/// Which parts are kept where.
#[derive(Clone, Debug)]
pub struct Window {
    directory: PathBuf,
    /// Older parts leave.
    pub keep: Duration,
    /// So do the oldest beyond so many bytes.
    pub keep_bytes: u64,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    /// `None` for the newest.
    number: Option<u64>,
    bytes: u64,
    /// When it was written last.
    written: SystemTime,
}

impl Window {
    /// The window in a folder, which is made for its owner alone if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare(directory: &Path, keep: Duration, keep_bytes: u64) -> io::Result<Window> {
        make_private_directory(directory)?;
        Ok(Window { directory: directory.to_owned(), keep, keep_bytes })
    }

    /// Where the newest part is written.
    #[must_use]
    pub fn newest(&self) -> PathBuf {
        self.directory.join(NEWEST)
    }

    /// Longest and largest part: some two dozen fill the window, so that it shrinks by little when the oldest leaves.
    #[must_use]
    pub fn part(&self) -> (Duration, u64) {
        ((self.keep / 24).clamp(Duration::from_secs(60), Duration::from_secs(3600)), (self.keep_bytes / 24).max(1 << 20))
    }

    /// Removes parts that are too old or too many; their paths.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a part not be removed.
    pub fn tidy(&self, now: SystemTime) -> io::Result<Vec<PathBuf>> {
        let parts = self.parts()?;
        let mut bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let mut removed = Vec::new();
        for part in parts.into_iter().filter(|part| part.number.is_some()) {
            let age = now.duration_since(part.written).unwrap_or_default();
            if age > self.keep || bytes > self.keep_bytes {
                fs::remove_file(&part.path)?;
                bytes -= part.bytes;
                removed.push(part.path);
            }
        }
        Ok(removed)
    }

    /// The last snapshot that is not younger than a Unix time; `None` if the window does not reach so far.
    ///
    /// # Errors
    /// When a part cannot be read that may have it.
    pub fn report_at(&self, unix_s: i64) -> Result<Option<Report>, RecordingError> {
        let parts = self.parts().map_err(|error| RecordingError::io(&self.directory, "list", error))?;
        for part in parts.into_iter().rev() {
            let last = match recording::read_snapshot(&part.path, None) {
                Ok(last) => last,
                // It has just left.
                Err(_) if !part.path.exists() => continue,
                // A part that a power failure has damaged costs itself and not those before it.
                Err(error) => {
                    log::warn!("{error}");
                    continue;
                }
            };
            if date::parse_rfc3339(&last.header.started).is_none_or(|started| started > unix_s) {
                continue;
            }
            if let Some(report) = last.report.filter(|report| date::parse_rfc3339(&report.ended).is_some_and(|ended| ended <= unix_s)) {
                return Ok(Some(report));
            }
            let mut name = None;
            recording::read_series(&part.path, &mut |point| {
                if let Point::Mark(mark) = point
                    && i64::try_from(mark.clocks[2] / 1_000_000_000).is_ok_and(|at| at <= unix_s)
                {
                    name = Some(mark.name.clone());
                }
            })?;
            if let Some(name) = name {
                return Ok(recording::read_snapshot(&part.path, Some(&name))?.report);
            }
        }
        Ok(None)
    }

    /// All parts, the oldest first.
    fn parts(&self) -> io::Result<Vec<Part>> {
        let mut parts = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let number = name.strip_prefix("window.").and_then(|rest| rest.strip_suffix(".mtrail")?.parse().ok());
            if number.is_none() && name != NEWEST {
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            parts.push(Part { path: entry.path(), number, bytes: metadata.len(), written: metadata.modified()? });
        }
        parts.sort_by_key(|part| (part.number.is_none(), part.number));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Header, Mark, Writer};

    fn window(folder: &Path) -> Window {
        Window::prepare(&folder.join("a/b"), Duration::from_secs(3600), 1 << 20).unwrap()
    }

    /// Seconds of a Unix time as the recordings write it.
    fn text(unix_s: u64) -> String {
        date::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s))
    }

    /// A part that began then, with a snapshot at each of these times, of which the last has no mark.
    fn part(path: &Path, began: u64, snapshots: &[u64]) {
        let mut writer = Writer::create(path, &Header { started: text(began), ..Header::default() }).unwrap();
        for (n, at) in snapshots.iter().enumerate() {
            writer.report(&Report { ended: text(*at), ..Report::default() }).unwrap();
            if n + 1 < snapshots.len() {
                writer.mark(&Mark { name: format!("at {at}"), at_s: 0.0, clocks: [0, 0, at * 1_000_000_000] }).unwrap();
            }
        }
        writer.finish().unwrap();
    }

    #[test]
    fn the_last_snapshot_before_a_moment_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let window = window(folder.path());
        part(&window.directory.join("window.9.mtrail"), 1000, &[1300, 1600, 1800]);
        part(&window.directory.join("window.10.mtrail"), 2000, &[2300, 2600]);
        part(&window.newest(), 3000, &[3300, 3600]);
        fs::write(window.directory.join("window.x.mtrail"), "not ours").unwrap();
        let at = |unix: i64| window.report_at(unix).unwrap().map(|report| date::parse_rfc3339(&report.ended).unwrap());
        for (asked, found) in [
            (999, None),
            (1299, None),
            (1300, Some(1300)),
            (1700, Some(1600)),
            (1999, Some(1800)),
            (2299, Some(1800)),
            (2599, Some(2300)),
            (3000, Some(2600)),
            (3500, Some(3300)),
            (9999, Some(3600)),
        ] {
            assert_eq!(at(asked), found, "{asked}");
        }
    }

    #[test]
    fn old_parts_leave_and_the_oldest_beyond_the_size_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let window = window(folder.path());
        let now = SystemTime::now();
        let make = |name: &str, kib: usize, age_s: u64| {
            let path = window.directory.join(name);
            fs::write(&path, vec![0; kib << 10]).unwrap();
            fs::File::open(&path).unwrap().set_modified(now - Duration::from_secs(age_s)).unwrap();
        };
        make("window.1.mtrail", 1, 4000);
        make("window.2.mtrail", 600, 3000);
        make("window.10.mtrail", 300, 2000);
        make("window.mtrail", 200, 5000);
        make("other.1.mtrail", 2000, 9000);
        let removed = window.tidy(now).unwrap();
        assert_eq!(removed, ["window.1.mtrail", "window.2.mtrail"].map(|name| window.directory.join(name)));
        assert!(window.tidy(now).unwrap().is_empty());
        assert!(window.newest().exists() && window.directory.join("other.1.mtrail").exists());
    }
}
