//! What a recording writes while it runs: recordings, logs of distributions, traces, the stream. One owner for all of them, so that each
//! gets every interval and every mark.

use super::{
    failures::Failures,
    rotation::{Aside, Rotation},
    streaming::Streaming,
};
use crate::{
    cgroup::CgroupId,
    output::{
        Format,
        append::{AppendError, AppendFile},
        hlog, perfetto,
    },
    recording::{Header, Mark, Writer},
    report::{Report, distribution::Increment},
    text::date,
    trace::session::Session,
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Everything that grows while it runs.
pub struct Series {
    header: Header,
    rotation: Rotation,
    recordings: Vec<Part>,
    logs: Vec<AppendFile>,
    traces: Vec<(AppendFile, perfetto::Encoder)>,
    streaming: Option<Streaming>,
    /// What could not be written. The other outputs go on, and so does that one if it can.
    failures: Failures,
}

/// A recording, or its newest part.
struct Part {
    writer: Writer,
    began: Instant,
    aside: Aside,
}

impl Part {
    fn begin(path: &Path, header: &Header) -> Result<Part> {
        Ok(Part { writer: Writer::create(path, header)?, began: Instant::now(), aside: Aside::default() })
    }

    /// Ends this part and begins the next.
    fn next(&mut self, header: &Header, session: &mut Session) -> Result<()> {
        let path = self.writer.path().to_owned();
        self.writer.report(&session.report()?)?;
        self.writer.end()?;
        self.aside.put(&path)?;
        (self.writer, self.began) = (Writer::create(&path, header)?, Instant::now());
        Ok(())
    }

    /// Removes the oldest parts, and says so.
    fn make_room(&mut self, rotation: Rotation) -> Result<()> {
        for removed in self.aside.remove_beyond(rotation.kept())? {
            eprintln!("memtrail: {}: removed, since {} parts are kept (--rotate-keep)", removed.display(), rotation.rotate_keep);
        }
        Ok(())
    }
}

/// Whether a file of that name is written while the recording runs.
pub fn takes(file: &Path) -> bool {
    matches!(Format::of(file), Some(Format::Recording | Format::Hlog | Format::Perfetto))
}

/// Whether any of these has a place for marks.
pub fn holds_marks(outputs: &[PathBuf], stream: Option<&Path>) -> bool {
    stream.is_some() || outputs.iter().any(|file| matches!(Format::of(file), Some(Format::Recording | Format::Perfetto)))
}

impl Series {
    /// Begins those of the outputs that are written while it runs, and the stream.
    pub fn begin(session: &mut Session, outputs: &[PathBuf], stream: Option<&Path>, rotation: Rotation) -> Result<Series> {
        let header = session.header();
        let (mut recordings, mut logs, mut traces) = (Vec::new(), Vec::new(), Vec::new());
        for file in outputs {
            let create =
                |head: &str| AppendFile::create(file, head.as_bytes()).with_context(|| format!("{}: cannot write", file.display()));
            match Format::of(file) {
                Some(Format::Recording) => recordings.push(Part::begin(file, &header)?),
                Some(Format::Hlog) => logs.push(create(&log_head(&header))?),
                Some(Format::Perfetto) => traces.push((create("")?, perfetto::Encoder::default())),
                _ => {}
            }
        }
        let streaming = stream.map(Streaming::start).transpose()?;
        if streaming.is_some() {
            session.want_live();
        }
        Ok(Series { header, rotation, recordings, logs, traces, streaming, failures: Failures::default() })
    }

    /// Takes an interval and gives it to all. An output that cannot be written is told of at once and at the end; it stops nothing.
    pub fn interval(&mut self, session: &mut Session) -> Result<()> {
        let interval = session.interval()?;
        let mut results = Vec::new();
        for part in &mut self.recordings {
            results.push(part.writer.interval(&interval).map_err(anyhow::Error::from));
        }
        let path_of = |id: &str| id.parse().map_or_else(|_| id.to_owned(), |id| session.cgroup_name(CgroupId(id)));
        for (file, encoder) in &mut self.traces {
            results.push(append(file, &encoder.interval(&interval, path_of)));
        }
        if !self.logs.is_empty() || self.streaming.is_some() {
            let increment = session.distributions()?;
            self.log(session, &increment, &mut results);
            if let Some(streaming) = &mut self.streaming {
                streaming.interval(session, interval, increment);
            }
        }
        self.rotate(session, &mut results);
        self.note(results);
        Ok(())
    }

    /// Names this moment everywhere; its time in seconds.
    pub fn mark(&mut self, name: &str, session: &mut Session) -> Result<f64> {
        let (mut at_s, mut results) = (session.elapsed_s(), Vec::new());
        if !self.recordings.is_empty() {
            let report = session.report()?;
            at_s = report.duration_s;
            for part in &mut self.recordings {
                results.push(part.writer.report(&report).map_err(anyhow::Error::from));
            }
        }
        let mark = Mark { name: name.to_owned(), at_s, clocks: session.clocks() };
        for part in &mut self.recordings {
            results.push(part.writer.mark(&mark).map_err(anyhow::Error::from));
        }
        for (file, encoder) in &mut self.traces {
            results.push(append(file, &encoder.mark(&mark)));
        }
        self.note(results);
        if let Some(streaming) = &mut self.streaming {
            streaming.mark(name, at_s);
        }
        Ok(at_s)
    }

    /// What came to the distributions between the last interval and the report, so that all intervals add up to it.
    pub fn end(&mut self, session: &mut Session) {
        let (increment, mut results) = (session.last_distributions(), Vec::new());
        self.log(session, &increment, &mut results);
        self.note(results);
        if let Some(streaming) = &mut self.streaming {
            streaming.end(session, increment);
        }
    }

    /// Ends everything; what could not be written, now or earlier.
    pub fn finish(self, report: &Report) -> Failures {
        let mut failures = self.failures;
        for mut part in self.recordings {
            let result = part.writer.report(report).and_then(|()| part.writer.finish());
            failures.note(result.map_err(anyhow::Error::from));
        }
        for file in self.logs.into_iter().chain(self.traces.into_iter().map(|(file, _)| file)) {
            let path = file.path().to_owned();
            failures.note(file.sync().with_context(|| format!("{}: cannot write", path.display())));
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

    fn log(&mut self, session: &Session, increment: &Increment, results: &mut Vec<Result<()>>) {
        let lines = hlog::lines(increment, |id| session.cgroup_name(CgroupId(id)));
        results.extend(self.logs.iter_mut().map(|file| append(file, lines.as_bytes())));
    }

    /// Ends recordings that are long enough, and begins them anew under the same name. One that cannot be begun anew ends with its part.
    fn rotate(&mut self, session: &mut Session, results: &mut Vec<Result<()>>) {
        let (rotation, header) = (self.rotation, &self.header);
        self.recordings.retain_mut(|part| {
            if !rotation.is_due(part.writer.length(), part.began.elapsed()) {
                return true;
            }
            let next = part.next(header, session);
            let is_begun = next.is_ok();
            results.extend([next, part.make_room(rotation)]);
            is_begun
        });
    }

    /// Says what failed, each the first time.
    fn note(&mut self, results: Vec<Result<()>>) {
        for text in results.into_iter().filter_map(|result| self.failures.note(result)) {
            eprintln!("memtrail: {text}; what else is written goes on");
        }
    }
}

fn log_head(header: &Header) -> String {
    let started_s = date::parse_rfc3339(&header.started).unwrap_or(0) as f64;
    hlog::head(&header.tool, &header.started, started_s)
}

fn append(file: &mut AppendFile, piece: &[u8]) -> Result<()> {
    file.append(piece).map_err(|error: AppendError| anyhow::Error::from(error).context(format!("{}: cannot write", file.path().display())))
}
