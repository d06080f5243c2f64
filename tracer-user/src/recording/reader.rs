//! Reads a recording from files that may be cut, corrupt, foreign or made to hurt.
//!
//! Never panics on content and never allocates more than the bounds of [`super::frame`] and [`super::payload`] allow. Snapshots of the
//! report are checked but decoded only when asked for: a long recording has many, and the last one counts.

use super::changes::Changes;
use super::frame::{self, HEAD_BYTES, Head, Kind, PREAMBLE_BYTES};
use super::{Fault, Header, Mark, Problem, Recording, RecordingError, payload};
use crate::report::{Interval, Report, SCHEMA};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Most bytes of intervals and marks, decompressed, that [`read`] keeps.
const MAX_INTERVAL_BYTES: u64 = 1 << 30;

/// Most CBOR items of intervals and marks that [`read`] keeps.
const MAX_INTERVAL_ITEMS: u64 = 128 << 20;

/// A whole frame of a recording after its header.
#[derive(Debug)]
enum Entry {
    /// A point of the series.
    Interval(Interval),
    /// A point of the series, as what changed since the one before.
    Changes { offset: u64, changes: Changes },
    /// A snapshot, not decoded yet.
    Report(StoredReport),
    /// The name of the snapshot before it.
    Mark(Mark),
    /// Of a kind that this version does not know.
    Unknown,
}

/// A snapshot whose checksum is right.
#[derive(Clone, Debug)]
struct StoredReport {
    offset: u64,
    plain: u32,
    bytes: Vec<u8>,
}

/// Reads frames one after the other.
#[derive(Debug)]
struct Reader<R> {
    source: R,
    /// Of the next byte.
    offset: u64,
    header: Header,
    truncated: bool,
    finished: bool,
    /// Bytes and items of the interval or mark read last.
    last_size: (u64, u64),
}

/// What stands at the current place.
enum Next {
    Frame { offset: u64, head: Head, bytes: Vec<u8> },
    Cut,
    EndOfFile,
}

impl<R: Read> Reader<R> {
    /// Reads the preamble and the header.
    fn open(source: R) -> Result<Self, Fault> {
        let mut reader = Reader { source, offset: 0, header: Header::default(), truncated: false, finished: false, last_size: (0, 0) };
        let mut preamble = [0; PREAMBLE_BYTES];
        let length = reader.fill(&mut preamble)?;
        if length == 0 || !frame::is_start_of_preamble(&preamble[..length]) {
            return Err(Problem::Foreign.into());
        }
        if length < PREAMBLE_BYTES {
            return Err(Problem::NoHeader.into());
        }
        // Formats begin at 1: 0 is damage.
        let format = frame::parse_preamble(preamble).filter(|format| *format > 0).ok_or(Problem::Foreign)?;
        if format > frame::FORMAT {
            return Err(Problem::Newer { what: "format", found: format, known: frame::FORMAT }.into());
        }
        match reader.next()? {
            Next::Frame { offset, head, bytes } if Kind::from_number(head.kind) == Some(Kind::Header) => {
                reader.header = unpack(offset, head.plain, &bytes, "the header")?.0;
            }
            Next::Frame { offset, .. } => return Err(corrupt(offset, "the first frame is not a header").into()),
            Next::Cut | Next::EndOfFile => return Err(Problem::NoHeader.into()),
        }
        if reader.header.schema > SCHEMA {
            return Err(Problem::Newer { what: "schema", found: reader.header.schema, known: SCHEMA }.into());
        }
        Ok(reader)
    }

    /// The next whole frame; `None` at the end of the recording.
    fn entry(&mut self) -> Result<Option<Entry>, Fault> {
        if self.finished || self.truncated {
            return Ok(None);
        }
        let (offset, head, bytes) = match self.next()? {
            Next::Frame { offset, head, bytes } => (offset, head, bytes),
            Next::Cut => {
                self.truncated = true;
                return Ok(None);
            }
            Next::EndOfFile => return Ok(None),
        };
        match Kind::from_number(head.kind) {
            Some(Kind::Header) => Err(corrupt(offset, "a second header").into()),
            Some(Kind::Interval) => {
                let (interval, items) = unpack(offset, head.plain, &bytes, "an interval")?;
                self.last_size = (u64::from(head.plain), items);
                Ok(Some(Entry::Interval(interval)))
            }
            Some(Kind::Changes) => {
                let (changes, items) = unpack(offset, head.plain, &bytes, "an interval")?;
                self.last_size = (u64::from(head.plain), items);
                Ok(Some(Entry::Changes { offset, changes }))
            }
            Some(Kind::Report) => Ok(Some(Entry::Report(StoredReport { offset, plain: head.plain, bytes }))),
            Some(Kind::Mark) => {
                let (mark, items) = unpack(offset, head.plain, &bytes, "a mark")?;
                self.last_size = (u64::from(head.plain), items);
                Ok(Some(Entry::Mark(mark)))
            }
            Some(Kind::End) => {
                self.finished = true;
                let mut rest = [0; 1];
                if self.fill(&mut rest)? > 0 {
                    return Err(corrupt(self.offset - 1, "bytes after the end of the recording").into());
                }
                Ok(None)
            }
            None => Ok(Some(Entry::Unknown)),
        }
    }

    /// Reads a frame and checks it, or says that the file ends here or inside it.
    fn next(&mut self) -> Result<Next, Fault> {
        let offset = self.offset;
        let mut head = [0; HEAD_BYTES];
        let length = self.fill(&mut head)?;
        if length == 0 {
            return Ok(Next::EndOfFile);
        }
        if length < HEAD_BYTES {
            return Ok(Next::Cut);
        }
        let head = match frame::parse_head(head) {
            Ok(head) => head,
            // After a power failure a file can keep its length and lose its last bytes to zeros.
            Err(_) if head.iter().all(|byte| *byte == 0) && self.rest_is_zero()? => return Ok(Next::Cut),
            Err(what) => return Err(corrupt(offset, &what).into()),
        };
        let mut bytes = Vec::new();
        // Grows with what is really there, not with what the head claims.
        self.source.by_ref().take(u64::from(head.stored)).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        if bytes.len() as u64 != u64::from(head.stored) {
            return Ok(Next::Cut);
        }
        if crc32fast::hash(&bytes) != head.payload_crc {
            // The last frame may have been torn by a power failure; any other is damage.
            return if self.rest_is_zero()? { Ok(Next::Cut) } else { Err(corrupt(offset, "the checksum of a payload is wrong").into()) };
        }
        Ok(Next::Frame { offset, head, bytes })
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    /// Whether nothing but zeros follows; also at the end of the file. Consumes the rest.
    fn rest_is_zero(&mut self) -> Result<bool, Fault> {
        let mut buffer = [0; 8192];
        loop {
            let length = self.fill(&mut buffer)?;
            if buffer[..length].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if length < buffer.len() {
                return Ok(true);
            }
        }
    }
}

impl StoredReport {
    fn unpack(&self) -> Result<Report, Fault> {
        Ok(unpack(self.offset, self.plain, &self.bytes, "a report")?.0)
    }
}

/// Reads a whole recording.
///
/// # Errors
/// When the file cannot be read, is no recording, is of a later version, is corrupt before its end, or its intervals do not fit in memory.
pub fn read(path: &Path) -> Result<Recording, RecordingError> {
    let file = File::open(path).map_err(|error| RecordingError::io(path, "open", error))?;
    read_from(BufReader::new(file), path)
}

/// Reads a whole recording from any source; the path is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_from(source: impl Read, path: &Path) -> Result<Recording, RecordingError> {
    collect(source, None, &mut Keep::All(Vec::new())).map_err(|fault| fault.at(path, "read"))
}

/// Reads a recording with the snapshot of a mark as its report.
///
/// # Errors
/// As [`read`], and when there is no mark of that name.
pub fn read_at(path: &Path, mark: &str) -> Result<Recording, RecordingError> {
    let file = File::open(path).map_err(|error| RecordingError::io(path, "open", error))?;
    read_at_from(BufReader::new(file), path, mark)
}

/// [`read_at`] from any source; the path is for messages.
///
/// # Errors
/// As [`read_at`].
pub fn read_at_from(source: impl Read, path: &Path, mark: &str) -> Result<Recording, RecordingError> {
    collect(source, Some(mark), &mut Keep::All(Vec::new())).map_err(|fault| fault.at(path, "read"))
}

/// Reads a recording of any length for its snapshot, that of a mark or the last: of the intervals only the last is kept.
///
/// # Errors
/// As [`read_at`], but that the number of intervals has no bound.
pub fn read_snapshot(path: &Path, mark: Option<&str>) -> Result<Recording, RecordingError> {
    let file = File::open(path).map_err(|error| RecordingError::io(path, "open", error))?;
    collect(BufReader::new(file), mark, &mut Keep::Last(None)).map_err(|fault| fault.at(path, "read"))
}

/// Reads a recording of any length and gives each interval and mark to `each` as it comes; of the intervals only the last is kept.
///
/// # Errors
/// As [`read_snapshot`].
pub fn read_series(path: &Path, each: &mut dyn FnMut(Point<'_>)) -> Result<Recording, RecordingError> {
    let file = File::open(path).map_err(|error| RecordingError::io(path, "open", error))?;
    collect(BufReader::new(file), None, &mut Keep::Given(None, each)).map_err(|fault| fault.at(path, "read"))
}

/// What [`read_series`] gives.
#[derive(Clone, Copy, Debug)]
pub enum Point<'a> {
    /// A point of the series.
    Interval(&'a Interval),
    /// A named moment.
    Mark(&'a Mark),
}

/// What becomes of the intervals.
enum Keep<'a> {
    All(Vec<Interval>),
    Last(Option<Interval>),
    Given(Option<Interval>, &'a mut dyn FnMut(Point<'_>)),
}

impl Keep<'_> {
    /// The last interval, to be changed to the next; `None` if there is none.
    fn base(&mut self) -> Option<Interval> {
        match self {
            Keep::All(intervals) => intervals.last().cloned(),
            Keep::Last(last) | Keep::Given(last, _) => last.take(),
        }
    }

    fn push(&mut self, interval: Interval) {
        match self {
            Keep::All(intervals) => intervals.push(interval),
            Keep::Last(last) => *last = Some(interval),
            Keep::Given(last, each) => each(Point::Interval(last.insert(interval))),
        }
    }

    fn mark(&mut self, mark: &Mark) {
        if let Keep::Given(_, each) = self {
            each(Point::Mark(mark));
        }
    }

    fn intervals(&mut self) -> Vec<Interval> {
        match self {
            Keep::All(intervals) => std::mem::take(intervals),
            Keep::Last(last) | Keep::Given(last, _) => last.take().into_iter().collect(),
        }
    }
}

/// Bytes and values that what is kept takes at most, decompressed. An interval made from changes takes what its base takes, and they.
#[derive(Default)]
struct Budget {
    kept: (u64, u64),
    base: (u64, u64),
}

impl Budget {
    fn add(&mut self, entry: &Entry, size: (u64, u64), keeps_all: bool) -> Result<(), Problem> {
        let plus = |a: (u64, u64), b: (u64, u64)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        match entry {
            Entry::Interval(_) => self.base = size,
            Entry::Changes { .. } => self.base = plus(self.base, size),
            Entry::Mark(_) => self.kept = plus(self.kept, size),
            Entry::Report(_) | Entry::Unknown => return Ok(()),
        }
        if keeps_all && !matches!(entry, Entry::Mark(_)) {
            self.kept = plus(self.kept, self.base);
        }
        let (bytes, items) = plus(self.kept, if keeps_all { (0, 0) } else { self.base });
        if bytes > MAX_INTERVAL_BYTES || items > MAX_INTERVAL_ITEMS {
            let what = format!("its intervals and marks hold more than {MAX_INTERVAL_BYTES} bytes or {MAX_INTERVAL_ITEMS} values");
            return Err(Problem::TooLarge { what });
        }
        Ok(())
    }
}

fn collect(source: impl Read, wanted: Option<&str>, keep: &mut Keep<'_>) -> Result<Recording, Fault> {
    let mut reader = Reader::open(source)?;
    let (mut marks, mut skipped_frames) = (Vec::<Mark>::new(), 0);
    let (mut last_report, mut marked_report) = (None::<StoredReport>, None);
    let mut budget = Budget::default();
    while let Some(entry) = reader.entry()? {
        budget.add(&entry, reader.last_size, matches!(keep, Keep::All(_)))?;
        match entry {
            Entry::Interval(interval) => keep.push(interval),
            Entry::Changes { offset, changes } => {
                let before = keep.base().ok_or_else(|| corrupt(offset, "changes without an interval before"))?;
                keep.push(changes.apply(before));
            }
            Entry::Report(report) => last_report = Some(report),
            Entry::Mark(mark) => {
                keep.mark(&mark);
                if Some(mark.name.as_str()) == wanted {
                    marked_report.clone_from(&last_report);
                }
                marks.push(mark);
            }
            Entry::Unknown => skipped_frames += 1,
        }
    }
    let report = match wanted {
        None => last_report,
        Some(wanted) if marked_report.is_none() => {
            let marks = marks.into_iter().map(|mark| mark.name).collect();
            return Err(Problem::NoMark { wanted: wanted.to_owned(), marks }.into());
        }
        Some(_) => marked_report,
    };
    let report = report.map(|report| report.unpack()).transpose()?;
    let Reader { header, truncated, finished, .. } = reader;
    Ok(Recording { header, intervals: keep.intervals(), report, marks, truncated, finished, skipped_frames })
}

/// Decompresses, counts and decodes; also says how many items there were.
fn unpack<T: serde::de::DeserializeOwned>(offset: u64, plain: u32, stored: &[u8], name: &str) -> Result<(T, u64), Problem> {
    let cbor = payload::decompress(stored, plain).map_err(|what| corrupt(offset, &what))?;
    let items = payload::count_items(&cbor).map_err(|what| corrupt(offset, &what))?;
    if items > payload::MAX_ITEMS {
        return Err(corrupt(offset, &format!("{name} has {items} values, more than any may have")));
    }
    Ok((payload::decode(&cbor, name).map_err(|what| corrupt(offset, &what))?, items))
}

fn corrupt(offset: u64, what: &str) -> Problem {
    Problem::Corrupt { offset, what: what.to_owned() }
}
