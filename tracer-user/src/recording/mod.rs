//! The `.mtrail` recording: a header, the series of intervals, and snapshots of the report, in one append-only file.
//!
//! The format is described byte by byte in docs/recording.md. A recording can be read while it is written; a cut tail costs its last frame
//! only. It never needs the kernel that it was made on, and it never trusts a file: every length has a bound, every frame a checksum.

mod changes;
mod frame;
mod payload;
mod reader;
pub mod stored;
mod writer;

pub use crate::report::Header;
pub use frame::{FORMAT, MAX_PLAIN, MAX_STORED};
pub use reader::{Point, read, read_at, read_at_from, read_from, read_series, read_snapshot};
pub use writer::Writer;

use crate::report::{Interval, Report};
use crate::text;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A named moment. Its snapshot is the report before it in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// As given; see [`crate::cli::mark_socket::check_name`]. Hostile in a forged recording.
    pub name: String,
    /// Seconds since the start of the recording, monotonic.
    pub at_s: f64,
    /// Monotonic, boot-clock and real nanoseconds of the same moment.
    pub clocks: [u64; 3],
}

/// A recording as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The first frame.
    pub header: Header,
    /// In the order of the file; of [`read_snapshot`] and [`read_series`] the last one alone.
    pub intervals: Vec<Interval>,
    /// The last whole snapshot, or that of the mark asked for.
    pub report: Option<Report>,
    /// In the order of the file.
    pub marks: Vec<Mark>,
    /// The file ends inside a frame, which is lost: it is being written, or was cut.
    pub truncated: bool,
    /// The writer ended it in order; false while it is being written too.
    pub finished: bool,
    /// Whole frames of kinds that this version does not know, passed over.
    pub skipped_frames: u64,
}

/// Why a recording cannot be written or read. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The system refused.
    #[error("{}: cannot {doing} the recording: {source}", path.display())]
    Io {
        /// The recording.
        path: PathBuf,
        /// "create", "write", "open" or "read".
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Something is wrong with what it holds, or with what it should hold.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The recording.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
}

/// What can be wrong with the content of a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not ours.
    #[error("not a memtrail recording (a .mtrail file begins with other bytes)")]
    Foreign,
    /// Of a later version.
    #[error("made by a newer memtrail ({what} {found}, this one reads up to {known}): use that version")]
    Newer {
        /// "format" or "schema".
        what: &'static str,
        /// In the file.
        found: u32,
        /// In this program.
        known: u32,
    },
    /// It ends before its first whole frame.
    #[error("cut before the end of its header: nothing can be read from it")]
    NoHeader,
    /// A whole frame that makes no sense.
    #[error("corrupt at byte {offset}: {what}")]
    Corrupt {
        /// Of the frame, from the start of the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// One frame or all intervals together go beyond what this program holds in memory.
    #[error("too large: {what}")]
    TooLarge {
        /// Which bound.
        what: String,
    },
    /// A mark was asked for that it does not have.
    #[error("no mark {} in it: {}", short(.wanted), known(.marks))]
    NoMark {
        /// What was asked for.
        wanted: String,
        /// What there is.
        marks: Vec<String>,
    },
    /// A write failed and could not be undone, so that nothing may follow.
    #[error("an earlier write failed and left half a frame at its end: the recording is closed")]
    Broken,
}

/// A name for a message: of bounded length, with nothing that could move a cursor.
fn short(name: &str) -> String {
    text::cut_middle(&text::escape(name), 64)
}

/// The first marks of a recording, for a message.
fn known(marks: &[String]) -> String {
    const SHOWN: usize = 10;
    match marks.len() {
        0 => "it has none (memtrail mark NAME makes one while it is recorded)".to_owned(),
        count => {
            let names: Vec<String> = marks.iter().take(SHOWN).map(|name| short(name)).collect();
            let more = if count > SHOWN { format!(" and {} more", count - SHOWN) } else { String::new() };
            format!("it has {}{more}", names.join(", "))
        }
    }
}

impl RecordingError {
    pub(crate) fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        RecordingError::Io { path: path.to_owned(), doing, source }
    }

    fn content(path: &Path, problem: Problem) -> Self {
        RecordingError::Content { path: path.to_owned(), problem }
    }
}

/// What goes wrong in the parts that do not know the file's name.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Problem(Problem),
}

impl Fault {
    fn at(self, path: &Path, doing: &'static str) -> RecordingError {
        match self {
            Fault::Io(source) => RecordingError::io(path, doing, source),
            Fault::Problem(problem) => RecordingError::content(path, problem),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Fault::Problem(problem)
    }
}
