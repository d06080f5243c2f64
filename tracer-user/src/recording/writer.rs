//! Writes a recording: append-only, one write a frame. Never buffers a frame.

use super::changes::{Changes, WHOLE_EVERY};
use super::frame::{self, Kind};
use super::payload::Packed;
use super::{Header, Mark, Problem, RecordingError, payload};
use crate::host::append::{AppendError, AppendFile};
use crate::host::write::Access;
use crate::report::{Interval, Report};
use std::path::Path;

/// An open recording. Dropped without [`Writer::finish`] it stays readable and counts as unfinished.
#[derive(Debug)]
pub struct Writer {
    file: AppendFile,
    /// The interval written last, and how many came since a whole one.
    last: Option<(Interval, u32)>,
}

impl Writer {
    /// Begins a recording under its final name, for its owner alone: it holds what processes of all users do.
    ///
    /// # Errors
    /// When the directory does not take the file.
    pub fn create(path: &Path, header: &Header) -> Result<Writer, RecordingError> {
        Writer::create_for(path, Access::Owner, header)
    }

    /// The same for others to read.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create_for(path: &Path, access: Access, header: &Header) -> Result<Writer, RecordingError> {
        let packed = payload::pack(header, "the header").map_err(|problem| RecordingError::content(path, problem))?;
        let mut start = frame::preamble();
        start.extend_from_slice(&encode(Kind::Header, &packed));
        let file = AppendFile::create(path, access, &start).map_err(|error| RecordingError::io(path, "create", error))?;
        Ok(Writer { file, last: None })
    }

    /// Appends a point of the series.
    ///
    /// # Errors
    /// When the disk is full or the frame too large. What was written before stays readable, and a later call may succeed.
    pub fn interval(&mut self, interval: &Interval) -> Result<(), RecordingError> {
        let last = self.last.as_ref().filter(|(_, since)| *since + 1 < WHOLE_EVERY);
        let changes = last.and_then(|(before, _)| Changes::between(before, interval));
        let (kind, packed) = match &changes {
            Some(changes) => (Kind::Changes, payload::pack(changes, "the interval")),
            None => (Kind::Interval, payload::pack(interval, "the interval")),
        };
        let packed = packed.map_err(|problem| self.problem(problem))?;
        self.append(kind, &packed)?;
        // What changed is put into the one before: a copy of all would cost more than the rest on a large host.
        self.last = Some(match (changes, self.last.take()) {
            (Some(changes), Some((before, since))) => (changes.apply(before), since + 1),
            _ => (interval.clone(), 0),
        });
        Ok(())
    }

    /// Appends a snapshot; readers take the last whole one.
    ///
    /// # Errors
    /// As [`Writer::interval`]. A report too large for a frame can be shortened with `output::json::shortened`.
    pub fn report(&mut self, report: &Report) -> Result<(), RecordingError> {
        let packed = payload::pack(report, "the report").map_err(|problem| self.problem(problem))?;
        self.append(Kind::Report, &packed)
    }

    /// Names the snapshot appended last.
    ///
    /// # Errors
    /// As [`Writer::interval`].
    pub fn mark(&mut self, mark: &Mark) -> Result<(), RecordingError> {
        let packed = payload::pack(mark, "the mark").map_err(|problem| self.problem(problem))?;
        self.append(Kind::Mark, &packed)
    }

    /// Ends the recording and waits until it is on the disk.
    ///
    /// # Errors
    /// When the disk refuses the last bytes.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        self.end()
    }

    /// The same where the writer cannot be given away: nothing may be appended afterwards.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn end(&mut self) -> Result<(), RecordingError> {
        self.append(Kind::End, &Packed { bytes: Vec::new(), stored: 0, plain: 0 })?;
        self.file.sync().map_err(|error| RecordingError::io(self.path(), "write", error))
    }

    /// Where it is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.file.length()
    }

    fn append(&mut self, kind: Kind, packed: &Packed) -> Result<(), RecordingError> {
        self.file.append(&encode(kind, packed)).map_err(|error| match error {
            AppendError::Io(error) => RecordingError::io(self.file.path(), "write", error),
            AppendError::Broken => self.problem(Problem::Broken),
        })
    }

    fn problem(&self, problem: Problem) -> RecordingError {
        RecordingError::content(self.path(), problem)
    }
}

fn encode(kind: Kind, packed: &Packed) -> bytes::BytesMut {
    frame::encode(kind, &packed.bytes, packed.stored, packed.plain)
}
