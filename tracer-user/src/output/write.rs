//! Writes outputs to files in the format of their ending, whole or not at all, or to standard output for `-`.

use super::format::{Format, Source, endings};
use super::{Value, diff::Diff};
use crate::host::write::{Access, Mode, directory_of, temporary_in, write_whole};
use crate::report::{Report, autopsy::Autopsy};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Bytes shown by formats that show one value of a stack, and first by those that show several.
    pub value: Value,
    /// Format of `-`, standard output: one that is text.
    pub stdout: &'static Format,
    /// Mode of the file, if one was given.
    pub mode: Option<Mode>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions { value: Value::Live, stdout: Format::of_stdout(), mode: None }
    }
}

/// Why an output cannot be written. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The ending says nothing, or nothing that can be made from this.
    #[error("{}: unknown ending: {}", .path.display(), known(*.source_of))]
    UnknownEnding {
        /// The target.
        path: PathBuf,
        /// What it is to be written from.
        source_of: Source,
    },
    /// A recording cannot be made from a report alone.
    #[error("{}: a recording is written while tracing, not from a report: use {}", .0.display(), endings(Source::Report))]
    Recording(PathBuf),
    /// A series cannot be made from a report alone.
    #[error("{}: memory over time is written while tracing, or from a recording: use record or report", .0.display())]
    Series(PathBuf),
    /// Profiles and recordings have no place for a difference.
    #[error("{}: a difference is written as {}", .0.display(), endings(Source::Difference))]
    NotOfDiff(PathBuf),
    /// Only text formats go to standard output.
    #[error("-: only text goes to standard output; name a file that ends in {}", endings(Source::Trace))]
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

fn known(source: Source) -> String {
    match source {
        Source::Kills => format!("autopsies are written as {}", endings(source)),
        _ => format!("the format is chosen by it, known are {}", endings(source)),
    }
}

/// The format of a target that is written from that source.
fn format_of(path: &Path, source: Source) -> Result<&'static Format, OutputError> {
    let unknown = || OutputError::UnknownEnding { path: path.to_owned(), source_of: source };
    let format = Format::of(path).ok_or_else(unknown)?;
    if format.shows(source).is_some() {
        return Ok(format);
    }
    Err(match source {
        // A name that other verbs know gets the reason why this one does not.
        _ if format.shows(Source::Trace).is_none() => unknown(),
        Source::Difference => OutputError::NotOfDiff(path.to_owned()),
        Source::Recording | Source::Report if format.is_recording() => OutputError::Recording(path.to_owned()),
        Source::Recording | Source::Report => OutputError::Series(path.to_owned()),
        Source::Trace | Source::Kills => unknown(),
    })
}

/// Says before anything is traced or read whether the target can be written from that source: its ending is known, its directory is there
/// and takes files.
///
/// # Errors
/// When writing would fail later for one of these reasons.
pub fn check_target(path: &Path, source: Source) -> Result<(), OutputError> {
    if is_stdout(path) && source != Source::Kills {
        return Ok(());
    }
    format_of(path, source)?;
    let directory = directory_of(path);
    if !directory.is_dir() {
        return Err(OutputError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
    }
    if path.symlink_metadata().is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        return Err(OutputError::NotFile(path.to_owned()));
    }
    // The only sound question to a directory: take a file. It vanishes when dropped.
    temporary_in(directory, Access::Owner).map(drop).map_err(|source| OutputError::Io { path: path.to_owned(), source })
}

/// Writes the report to a file in the format of its ending, or to standard output for `-`.
///
/// # Errors
/// When the target is not as [`check_target`] wants it, or the system refuses. No half-written file is left, and what was there before stays.
/// A reader of standard output that went away is no error.
pub fn write(path: &Path, report: &Report, options: WriteOptions) -> Result<(), OutputError> {
    let failed = |source| OutputError::Io { path: path.to_owned(), source };
    if is_stdout(path) {
        let way = options.stdout.report.filter(|_| options.stdout.is_text).ok_or(OutputError::Stdout)?;
        return write_stdout_with(|writer| (way.write)(report, options.value, writer)).map_err(failed);
    }
    let format = format_of(path, Source::Report)?;
    let way = format.report.ok_or_else(|| OutputError::Series(path.to_owned()))?;
    check_target(path, Source::Report)?;
    let access = Access::of(options.mode, format.is_private);
    write_whole(path, access, |writer| (way.write)(report, options.value, writer)).map_err(failed)
}

/// Writes a comparison to a file in the format of its ending, whole or not at all, or folded to `-`.
///
/// # Errors
/// As [`write()`], and for the other formats.
pub fn write_diff(path: &Path, diff: &Diff<'_>) -> Result<(), OutputError> {
    let failed = |source| OutputError::Io { path: path.to_owned(), source };
    let not_of_diff = || OutputError::NotOfDiff(path.to_owned());
    if is_stdout(path) {
        let way = Format::of_stdout().diff.ok_or_else(not_of_diff)?;
        return write_stdout_with(|writer| (way.write)(diff, writer)).map_err(failed);
    }
    let format = format_of(path, Source::Difference)?;
    let way = format.diff.ok_or_else(not_of_diff)?;
    write_whole(path, Access::of(None, format.is_private), |writer| (way.write)(diff, writer)).map_err(failed)
}

/// Writes OOM kills to a file in the format of its ending; nothing if there are none. They are their owner's alone to read.
///
/// # Errors
/// As [`write()`], and for the other formats.
pub fn write_kills(path: &Path, autopsies: &[Autopsy], mode: Option<Mode>) -> Result<(), OutputError> {
    let unknown = || OutputError::UnknownEnding { path: path.to_owned(), source_of: Source::Kills };
    let way = format_of(path, Source::Kills)?.kills.ok_or_else(unknown)?;
    if autopsies.is_empty() {
        return Ok(());
    }
    write_whole(path, Access::of(mode, true), |writer| (way.write)(autopsies, writer))
        .map_err(|source| OutputError::Io { path: path.to_owned(), source })
}

/// Writes to standard output; a reader that went away is no error.
fn write_stdout_with(fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(io::stdout().lock());
    match fill(&mut writer).and_then(|()| writer.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}
