//! What a recording writes while it runs: recordings, other files that grow, the stream. One owner for all of them, so that each gets every
//! interval and every mark.

use super::{
    failures::Failures,
    rotation::{Aside, Rotation},
    streaming::Streaming,
    traced::Traced,
};
use crate::{
    cgroup::CgroupId,
    host::{
        append::AppendFile,
        write::{Access, Mode},
    },
    output::{
        Format,
        format::{Growing, WriteSeries},
    },
    recording::{self, Header, Mark, Writer},
    report::{Report, distribution::Increment},
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Everything that grows while it runs.
pub struct Series {
    header: Header,
    mode: Option<Mode>,
    rotation: Rotation,
    recordings: Vec<Part>,
    grown: Vec<Grown>,
    streaming: Option<Streaming>,
    /// What could not be written. The other outputs go on, and so does that one if it can.
    failures: Failures,
}

/// A file that grows, in any format but that of recordings.
struct Grown {
    file: AppendFile,
    series: WriteSeries,
    growing: Box<dyn Growing>,
}

impl Grown {
    fn begin(path: &Path, access: Access, series: WriteSeries, header: &Header) -> Result<Grown> {
        let mut growing = (series.begin)();
        let file = AppendFile::create(path, access, &growing.head(header)).with_context(|| format!("{}: cannot write", path.display()))?;
        Ok(Grown { file, series, growing })
    }

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.file.append(piece).with_context(|| format!("{}: cannot write", self.file.path().display()))
    }
}

/// A recording, or its newest part.
struct Part {
    writer: Writer,
    began: Instant,
    aside: Aside,
    /// It has a snapshot of the report.
    has_snapshot: bool,
}

impl Part {
    fn begin(path: &Path, access: Access, header: &Header) -> Result<Part> {
        let writer = Writer::create_for(path, access, header)?;
        Ok(Part { writer, began: Instant::now(), aside: Aside::default(), has_snapshot: false })
    }

    fn snapshot(&mut self, report: &Report) -> Result<()> {
        self.writer.report(report)?;
        self.has_snapshot = true;
        Ok(())
    }

    /// Ends this part with that report and begins the next.
    fn next(&mut self, access: Access, header: &Header, report: &Report) -> Result<()> {
        let path = self.writer.path().to_owned();
        self.snapshot(report)?;
        self.writer.end()?;
        self.aside.put(&path)?;
        self.writer = Writer::create_for(&path, access, header)?;
        (self.began, self.has_snapshot) = (Instant::now(), false);
        Ok(())
    }

    /// Removes the oldest parts, and says so.
    fn make_room(&mut self, rotation: Rotation) -> Result<()> {
        for removed in self.aside.remove_beyond(rotation.kept())? {
            eprintln!("memtrail: {}: removed, since {} parts are kept (--rotate-keep)", removed.display(), rotation.rotate_keep);
        }
        Ok(())
    }

    /// The file with the last whole snapshot, if one was taken.
    fn with_snapshot(&self) -> Option<&Path> {
        if self.has_snapshot { Some(self.writer.path()) } else { self.aside.newest() }
    }
}

/// Whether a file of that name is written while the recording runs.
pub fn takes(file: &Path) -> bool {
    Format::of(file).is_some_and(Format::grows)
}

/// Whether any of these has a place for marks.
pub fn holds_marks(outputs: &[PathBuf], stream: Option<&Path>) -> bool {
    stream.is_some() || outputs.iter().any(|file| Format::of(file).is_some_and(Format::holds_marks))
}

/// What is written while a recording runs.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Outputs, also those that are written at the end.
    pub outputs: &'a [PathBuf],
    /// The stream.
    pub stream: Option<&'a Path>,
    /// When recordings go on in new files.
    pub rotation: Rotation,
    /// Mode of all files, if one was given.
    pub mode: Option<Mode>,
}

impl Series {
    /// Begins those of the outputs that are written while it runs, and the stream.
    pub fn begin(trace: &mut dyn Traced, wanted: Wanted<'_>) -> Result<Series> {
        let Wanted { outputs, stream, rotation, mode } = wanted;
        let header = trace.header();
        let (mut recordings, mut grown) = (Vec::new(), Vec::new());
        for file in outputs {
            let Some(format) = Format::of(file) else { continue };
            let access = Access::of(mode, format.is_private);
            if format.is_recording() {
                recordings.push(Part::begin(file, access, &header)?);
            } else if let Some(series) = format.series {
                grown.push(Grown::begin(file, access, series.write, &header)?);
            }
        }
        let streaming = stream.map(|path| Streaming::start(path, Access::of(mode, true))).transpose()?;
        if streaming.is_some() {
            trace.want_live();
        }
        Ok(Series { header, mode, rotation, recordings, grown, streaming, failures: Failures::default() })
    }

    /// Takes an interval and gives it to all. An output that cannot be written is told of at once and at the end; it stops nothing.
    ///
    /// # Errors
    /// When the interval cannot be read.
    pub fn interval(&mut self, trace: &mut dyn Traced) -> Result<()> {
        let interval = trace.interval()?;
        let mut results = Vec::new();
        for part in &mut self.recordings {
            results.push(part.writer.interval(&interval).map_err(anyhow::Error::from));
        }
        let path_of = |id: &str| id.parse().map_or_else(|_| id.to_owned(), |id| trace.cgroup_name(CgroupId(id)));
        for grown in &mut self.grown {
            let piece = grown.growing.interval(&interval, &path_of);
            results.push(grown.append(&piece));
        }
        let mut read = Ok(());
        if self.streaming.is_some() || self.grown.iter().any(|grown| grown.series.holds_distributions) {
            // The line of an interval is written without them: they come with the next.
            let increment = trace.distributions().unwrap_or_else(|error| {
                read = Err(error);
                Increment { from_s: interval.at_s, to_s: interval.at_s, ..Increment::default() }
            });
            self.grow(trace, &increment, &mut results);
            if let Some(streaming) = &mut self.streaming {
                streaming.interval(trace, interval, increment);
            }
        }
        let rotated = self.rotate(trace, &mut results);
        self.note(results);
        read.and(rotated)
    }

    /// Names this moment everywhere; its time in seconds.
    ///
    /// # Errors
    /// When a recording needs a report, and there is none.
    pub fn mark(&mut self, name: &str, trace: &mut dyn Traced) -> Result<f64> {
        let report = if self.recordings.is_empty() { None } else { Some(trace.report()?) };
        Ok(self.mark_as(name, report.as_ref(), trace))
    }

    /// The same with a report that was made just now; its time in seconds.
    pub fn mark_as(&mut self, name: &str, report: Option<&Report>, trace: &mut dyn Traced) -> f64 {
        let (at_s, mut results) = (report.map_or_else(|| trace.elapsed_s(), |report| report.duration_s), Vec::new());
        if let Some(report) = report {
            results.extend(self.recordings.iter_mut().map(|part| part.snapshot(report)));
        }
        let mark = Mark { name: name.to_owned(), at_s, clocks: trace.clocks() };
        for part in &mut self.recordings {
            results.push(part.writer.mark(&mark).map_err(anyhow::Error::from));
        }
        for grown in &mut self.grown {
            let piece = grown.growing.mark(&mark);
            results.push(grown.append(&piece));
        }
        self.note(results);
        if let Some(streaming) = &mut self.streaming {
            streaming.mark(name, at_s);
        }
        at_s
    }

    /// What came to the distributions between the last interval and the report, so that all intervals add up to it.
    pub fn end(&mut self, trace: &mut dyn Traced) {
        let (increment, mut results) = (trace.last_distributions(), Vec::new());
        self.grow(trace, &increment, &mut results);
        self.note(results);
        if let Some(streaming) = &mut self.streaming {
            streaming.end(trace, increment);
        }
    }

    /// The last whole snapshot that a recording has, from the disk.
    pub fn last_snapshot(&self) -> Option<Report> {
        self.recordings.iter().filter_map(Part::with_snapshot).find_map(|path| match recording::read_snapshot(path, None) {
            Ok(recording) => recording.report,
            Err(error) => {
                log::warn!("{error}");
                None
            }
        })
    }

    /// Ends everything; what could not be written, now or earlier. `report` is that of the end, or an older one: then it goes only where there
    /// is none yet.
    pub fn finish(self, report: Option<&Report>, is_older: bool) -> Failures {
        let mut failures = self.failures;
        for mut part in self.recordings {
            if let Some(report) = report.filter(|_| !(is_older && part.has_snapshot)) {
                failures.note(part.snapshot(report));
            }
            failures.note(part.writer.finish().map_err(anyhow::Error::from));
        }
        for Grown { file, .. } in self.grown {
            failures.note(file.sync().with_context(|| format!("{}: cannot write", file.path().display())));
        }
        if let Some(streaming) = self.streaming {
            failures.note(streaming.finish());
        }
        failures
    }

    /// Whether lines go to standard output.
    pub fn streams_to_stdout(&self) -> bool {
        self.streaming.as_ref().is_some_and(Streaming::is_stdout)
    }

    fn grow(&mut self, trace: &dyn Traced, increment: &Increment, results: &mut Vec<Result<()>>) {
        let path_of = |id| trace.cgroup_name(CgroupId(id));
        for grown in &mut self.grown {
            let piece = grown.growing.increment(increment, &path_of);
            results.push(grown.append(&piece));
        }
    }

    /// Ends recordings that are long enough, and begins them anew under the same name. One that cannot be begun anew ends with its part; where
    /// no report can be made for its end, it goes on, and the next interval tries again.
    fn rotate(&mut self, trace: &mut dyn Traced, results: &mut Vec<Result<()>>) -> Result<()> {
        let (rotation, header, access) = (self.rotation, &self.header, Access::of(self.mode, true));
        let is_due = |part: &Part| rotation.is_due(part.writer.length(), part.began.elapsed());
        if !self.recordings.iter().any(is_due) {
            return Ok(());
        }
        let report = trace.report()?;
        self.recordings.retain_mut(|part| {
            if !is_due(part) {
                return true;
            }
            let next = part.next(access, header, &report);
            let is_begun = next.is_ok();
            results.extend([next, part.make_room(rotation)]);
            is_begun
        });
        Ok(())
    }

    /// Says what failed, each the first time.
    fn note(&mut self, results: Vec<Result<()>>) {
        for text in results.into_iter().filter_map(|result| self.failures.note(result)) {
            eprintln!("memtrail: {text}; what else is written goes on");
        }
    }
}
