//! `record --stream`: the lines of this recording, as they come.

use super::{status::Conflict, traced::Traced};
use crate::{
    cgroup::CgroupId,
    host::write::Access,
    output::stream::{self, Moment, Stream},
    report::{Interval, distribution::Increment},
};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// Cgroups whose distributions wait for a reader.
const MOST_UNSENT: usize = 1 << 12;

/// Where lines go, and what the next one is compared with.
pub struct Streaming {
    path: PathBuf,
    stream: Stream,
    before: Option<Interval>,
    /// What came to the distributions since the last line that had room.
    unsent: Increment,
}

impl Streaming {
    /// Refuses a standard output that has another use. `is_taken` says by what.
    pub fn check(path: &Path, is_taken: Option<&str>) -> Result<(), Conflict> {
        match is_taken.filter(|_| path.as_os_str() == "-") {
            Some(by) => Err(Conflict(format!("--stream -: standard output is {by}: name a file or a named pipe"))),
            None => Ok(()),
        }
    }

    /// Opens the target. A named pipe may wait for its reader; the recording does not.
    pub fn start(path: &Path, access: Access) -> Result<Streaming> {
        let stream = Stream::open(path, access).with_context(|| format!("{}: cannot write the stream", path.display()))?;
        Ok(Streaming { path: path.to_owned(), stream, before: None, unsent: Increment::default() })
    }

    /// Whether the lines go to standard output.
    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// The line of an interval. Distributions that find no room in the queue come with the next line.
    pub fn interval(&mut self, trace: &dyn Traced, interval: Interval, increment: Increment) {
        if !self.stream.is_open() {
            self.unsent = Increment::default();
            return;
        }
        if self.unsent.cgroups.len() > MOST_UNSENT {
            // The reader stands still. What comes next says from when on it is.
            self.unsent = Increment::default();
        }
        self.unsent.merge(increment);
        let path_of = |id: &str| path_of(trace, id);
        let (before, dropped) = (self.before.as_ref(), self.stream.dropped());
        let moment = Moment { interval: &interval, before, increment: &self.unsent, cost: trace.cost(), dropped };
        let line = stream::interval_line(moment, path_of);
        if self.stream.send(&line) {
            self.unsent = Increment::default();
        }
        self.before = Some(interval);
    }

    /// The last line: distributions since the last interval.
    pub fn end(&mut self, trace: &dyn Traced, increment: Increment) {
        self.unsent.merge(increment);
        let path_of = |id: &str| path_of(trace, id);
        let dropped = self.stream.dropped();
        self.stream.send(&stream::end_line(trace.elapsed_s(), &self.unsent, path_of, dropped));
    }

    /// The line of a mark.
    pub fn mark(&mut self, name: &str, at_s: f64) {
        let dropped = self.stream.dropped();
        self.stream.send(&stream::mark_line(name, at_s, dropped));
    }

    /// Waits a moment for the reader, and says what it did not get.
    pub fn finish(self) -> Result<()> {
        let ended = self.stream.finish();
        if ended.dropped > 0 {
            let noun = if ended.dropped == 1 { "line" } else { "lines" };
            eprintln!("memtrail: the reader of {} was too slow: {} {noun} dropped", self.path.display(), ended.dropped);
        }
        match ended.error {
            Some(error) => Err(error).with_context(|| format!("{}: cannot write the stream", self.path.display())),
            None => Ok(()),
        }
    }
}

fn path_of(trace: &dyn Traced, id: &str) -> String {
    id.parse().map_or_else(|_| id.to_owned(), |id| trace.cgroup_name(CgroupId(id)))
}
