//! Writes a report to a file in the format of its ending, whole or not at all.
//!
//! The bytes go to a temporary file in the same directory, which replaces the target when they are on the disk. A symbolic link at the
//! target is replaced, not followed.

use super::{Value, folded, hlog, json, pprof, svg};
use crate::report::Report;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The endings that can be written, as messages list them.
const KNOWN: &str = ".folded .svg .json .pb.gz .hlog .pftrace .mtrail";

/// A format, known by the ending of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// [`folded`].
    Folded,
    /// [`svg`].
    Svg,
    /// [`json`].
    Json,
    /// [`pprof`].
    Pprof,
    /// [`hlog`].
    Hlog,
    /// [`super::perfetto`], which is written from the series of a recording.
    Perfetto,
    /// [`crate::recording`], which has a writer of its own.
    Recording,
}

impl Format {
    /// The format of a file name; `-` has none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Format> {
        let name = path.file_name()?.as_encoded_bytes();
        let endings = [".folded", ".svg", ".json", ".pb.gz", ".hlog", ".pftrace", ".mtrail"];
        let formats = [Format::Folded, Format::Svg, Format::Json, Format::Pprof, Format::Hlog, Format::Perfetto, Format::Recording];
        endings.into_iter().zip(formats).find(|(ending, _)| name.ends_with(ending.as_bytes())).map(|(_, format)| format)
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Bytes shown by `.folded` and `.svg`, and first by `.pb.gz`.
    pub value: Value,
    /// Format of `-`, standard output: folded or JSON.
    pub stdout: Format,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions { value: Value::Live, stdout: Format::Folded }
    }
}

/// Why an output cannot be written. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The ending says nothing.
    #[error("{}: unknown ending: the format is chosen by it, known are {KNOWN}", .0.display())]
    UnknownEnding(PathBuf),
    /// A recording cannot be made from a report alone.
    #[error("{}: a recording is written while tracing, not from a report: use .folded, .svg, .json or .pb.gz", .0.display())]
    Recording(PathBuf),
    /// A series cannot be made from a report alone.
    #[error("{}: memory over time is written while tracing, or from a recording: use record or report", .0.display())]
    Series(PathBuf),
    /// Profiles and recordings have no place for a difference.
    #[error("{}: a difference is written as .folded, .svg or .json", .0.display())]
    NotOfDiff(PathBuf),
    /// Only text formats go to standard output.
    #[error("-: only folded stacks and JSON go to standard output; name a file that ends in {KNOWN}")]
    Stdout,
    /// The directory is not there, or is no directory.
    #[error("{}: cannot be written: {} is not a directory", path.display(), directory.display())]
    NoDirectory {
        /// The target.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// A directory, device or pipe of that name is in the way.
    #[error("{}: cannot be replaced: it is not a regular file", .0.display())]
    NotFile(PathBuf),
    /// The system refused.
    #[error("{}: cannot write: {source}", path.display())]
    Io {
        /// The target.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Says before tracing starts whether the target can be written: its ending is known, its directory is there and takes files.
///
/// # Errors
/// When [`write()`] would fail later for one of these reasons.
pub fn check_target(path: &Path) -> Result<(), OutputError> {
    if is_stdout(path) {
        return Ok(());
    }
    if Format::of(path).is_none() {
        return Err(OutputError::UnknownEnding(path.to_owned()));
    }
    let directory = directory_of(path);
    if !directory.is_dir() {
        return Err(OutputError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
    }
    if path.symlink_metadata().is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        return Err(OutputError::NotFile(path.to_owned()));
    }
    // The only sound question to a directory: take a file. It vanishes when dropped.
    temporary_in(directory).map(drop).map_err(|source| OutputError::Io { path: path.to_owned(), source })
}

/// Writes the report to a file in the format of its ending, or to standard output for `-`.
///
/// # Errors
/// When the target is not as [`check_target`] wants it, or the system refuses. No half-written file is left, and what was there before stays.
/// A reader of standard output that went away is no error.
pub fn write(path: &Path, report: &Report, options: WriteOptions) -> Result<(), OutputError> {
    if is_stdout(path) {
        return write_stdout(report, options);
    }
    let format = Format::of(path).ok_or_else(|| OutputError::UnknownEnding(path.to_owned()))?;
    if format == Format::Recording {
        return Err(OutputError::Recording(path.to_owned()));
    }
    if format == Format::Perfetto {
        return Err(OutputError::Series(path.to_owned()));
    }
    check_target(path)?;
    write_whole(path, |writer| render(format, report, options.value, writer))
        .map_err(|source| OutputError::Io { path: path.to_owned(), source })
}

/// The directory that holds a file: `.` for a bare name.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_stdout(report: &Report, options: WriteOptions) -> Result<(), OutputError> {
    if !matches!(options.stdout, Format::Folded | Format::Json) {
        return Err(OutputError::Stdout);
    }
    write_stdout_with(|writer| render(options.stdout, report, options.value, writer))
        .map_err(|source| OutputError::Io { path: PathBuf::from("-"), source })
}

/// Writes to standard output; a reader that went away is no error.
pub(super) fn write_stdout_with(fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(io::stdout().lock());
    match fill(&mut writer).and_then(|()| writer.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn render(format: Format, report: &Report, value: Value, writer: impl Write) -> io::Result<()> {
    match format {
        Format::Folded => folded::write(report, value, writer),
        Format::Svg => svg::write(report, value, writer),
        Format::Json => json::write(report, writer),
        Format::Pprof => pprof::write(report, value, writer),
        Format::Hlog => hlog::write(report, writer),
        Format::Recording | Format::Perfetto => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

/// Makes the file appear at once with all its bytes, mode 0644, or not at all.
///
/// # Errors
/// When `fill` fails, or the system refuses.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_in(directory_of(path))?;
    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    temporary.as_file().set_permissions(Permissions::from_mode(0o644))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

pub(super) fn temporary_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".memtrail-").tempfile_in(directory)
}

pub(super) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        std::fs::write(&path, "before").unwrap();
        let full = |writer: &mut dyn Write| {
            writer.write_all(&[b'x'; 200_000])?;
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        };
        let error = write_whole(&path, full).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn formats_are_known_by_their_ending() {
        for (name, format) in [
            ("a.folded", Some(Format::Folded)),
            ("dir.json/a.svg", Some(Format::Svg)),
            ("a.b.json", Some(Format::Json)),
            ("a.mtrail", Some(Format::Recording)),
            ("a.pb.gz", Some(Format::Pprof)),
            ("a.gz", None),
            ("a.hlog", Some(Format::Hlog)),
            ("a.pftrace", Some(Format::Perfetto)),
            ("json", None),
            ("-", None),
            ("a.JSON", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }
}
