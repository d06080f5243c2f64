//! Writes a recording: in place, append-only, one write a frame.
//!
//! The final name never holds less than a whole header: the file is begun under a temporary name and renamed at once, so a recording that
//! was there before is replaced, never overwritten in the hands of its reader or writer. Never buffers a frame.

use super::frame::{self, Kind};
use super::{Header, Mark, Problem, RecordingError, payload};
use crate::model::{Interval, Report};
use std::fs::{File, Permissions};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An open recording. Dropped without [`Writer::finish`] it stays readable and counts as unfinished.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes of whole frames.
    length: u64,
    /// A failed write could not be undone.
    broken: bool,
}

impl Writer {
    /// Begins a recording under its final name with mode 0644.
    ///
    /// # Errors
    /// When the directory does not take the file.
    pub fn create(path: &Path, header: &Header) -> Result<Writer, RecordingError> {
        let packed = payload::pack(header, "the header").map_err(|problem| RecordingError::content(path, problem))?;
        let mut start = frame::preamble();
        start.extend_from_slice(&frame::encode(Kind::Header, &packed.bytes, packed.stored, packed.plain));
        let failed = |error| RecordingError::io(path, "create", error);

        let directory = crate::output::directory_of(path);
        let mut temporary = tempfile::Builder::new().prefix(".memtrail-").tempfile_in(directory).map_err(failed)?;
        temporary.write_all(&start).map_err(failed)?;
        temporary.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
        let file = temporary.persist(path).map_err(|error| failed(error.error))?;
        Ok(Writer { path: path.to_owned(), file, length: start.len() as u64, broken: false })
    }

    /// Appends a point of the series.
    ///
    /// # Errors
    /// When the disk is full or the frame too large. What was written before stays readable, and a later call may succeed.
    pub fn interval(&mut self, interval: &Interval) -> Result<(), RecordingError> {
        let packed = payload::pack(interval, "the interval").map_err(|problem| self.problem(problem))?;
        self.append(&frame::encode(Kind::Interval, &packed.bytes, packed.stored, packed.plain))
    }

    /// Appends a snapshot; readers take the last whole one.
    ///
    /// # Errors
    /// As [`Writer::interval`]. A report too large for a frame can be shortened with [`crate::output::json::shortened`].
    pub fn report(&mut self, report: &Report) -> Result<(), RecordingError> {
        let packed = payload::pack(report, "the report").map_err(|problem| self.problem(problem))?;
        self.append(&frame::encode(Kind::Report, &packed.bytes, packed.stored, packed.plain))
    }

    /// Names the snapshot appended last.
    ///
    /// # Errors
    /// As [`Writer::interval`].
    pub fn mark(&mut self, mark: &Mark) -> Result<(), RecordingError> {
        let packed = payload::pack(mark, "the mark").map_err(|problem| self.problem(problem))?;
        self.append(&frame::encode(Kind::Mark, &packed.bytes, packed.stored, packed.plain))
    }

    /// Ends the recording and waits until it is on the disk.
    ///
    /// # Errors
    /// When the disk refuses the last bytes.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        self.append(&frame::encode(Kind::End, &[], 0, 0))?;
        self.file.sync_all().map_err(|error| RecordingError::io(&self.path, "write", error))
    }

    /// Where it is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one frame, or restores the file to its whole frames.
    fn append(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        if self.broken {
            return Err(self.problem(Problem::Broken));
        }
        if let Err(error) = self.file.write_all(bytes) {
            let restored = self.file.set_len(self.length).and_then(|()| self.file.seek(std::io::SeekFrom::Start(self.length)));
            self.broken = restored.is_err();
            return Err(RecordingError::io(&self.path, "write", error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn problem(&self, problem: Problem) -> RecordingError {
        RecordingError::content(&self.path, problem)
    }
}
