//! Lines of a recording while it runs (`record --stream`): one JSON object a line, one line an interval or mark. docs/stream.md is the
//! contract.
//!
//! A reader can be slow, or stand still: [`Stream`] hands lines to a thread of its own through a short queue, and drops whole lines, counted,
//! when that is full. The recording never waits for it.

use crate::host::write::{Access, open_in_place};
pub use crate::report::RunningCost as Cost;
use crate::report::distribution::{Distribution, Increment};
use crate::report::{HistogramRow, Interval, IntervalCgroup};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Version of the lines. Within a number, changes only add.
pub const SCHEMA: u32 = 1;

/// Lines that wait for the reader: what a short stop of it costs in memory, a line of 600 cgroups being half a megabyte.
const QUEUE: usize = 16;

/// Longest wait for the reader at the end: with what else there is to do then, a Ctrl-C is answered within two seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the line of an interval is made from.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The interval.
    pub interval: &'a Interval,
    /// The one before: rates are over the time since then.
    pub before: Option<&'a Interval>,
    /// What came to the distributions since the line before.
    pub increment: &'a Increment,
    /// What the recording costs so far.
    pub cost: Cost,
    /// Lines dropped so far.
    pub dropped: u64,
}

/// The line of an interval. `path_of` names a cgroup by its id.
#[must_use]
pub fn interval_line(moment: Moment<'_>, path_of: impl Fn(&str) -> String) -> Value {
    let Moment { interval, before, increment, cost, dropped } = moment;
    let seconds = before.map(|before| interval.at_s - before.at_s).filter(|seconds| *seconds > 0.0);
    let histograms: BTreeMap<String, &Metrics> = increment.cgroups.iter().map(|(id, metrics)| (id.to_string(), metrics)).collect();
    let living = interval.cgroups.iter().map(|(id, cgroup)| {
        let before = before.and_then(|before| before.cgroups.get(id));
        CgroupMoment { cgroup: Some(cgroup), before, histograms: histograms.get(id).copied(), seconds }.object(id, &path_of(id))
    });
    // Those that are gone, and still free what they own.
    let others = histograms.iter().filter(|(id, _)| !interval.cgroups.contains_key(*id));
    let others = others
        .map(|(id, metrics)| CgroupMoment { cgroup: None, before: None, histograms: Some(metrics), seconds }.object(id, &path_of(id)));
    let cgroups: Vec<Value> = living.chain(others).collect();
    let Cost { cpu_percent, collector_rss_bytes, map_bytes } = cost;
    json!({
        "schema": SCHEMA,
        "type": "interval",
        "at_s": interval.at_s,
        "time_s": interval.clocks[2] as f64 / 1e9,
        "histograms_from_s": increment.from_s,
        "cgroups": cgroups,
        "losses": interval.losses,
        "cost": { "cpu_percent": cpu_percent, "collector_rss_bytes": collector_rss_bytes, "map_bytes": map_bytes },
        "dropped_lines": dropped,
    })
}

/// Distributions of a cgroup by name.
type Metrics = BTreeMap<&'static str, Distribution>;

/// What a line says of one cgroup.
struct CgroupMoment<'a> {
    /// Its figures; `None` when it is gone.
    cgroup: Option<&'a IntervalCgroup>,
    /// Its figures at the interval before.
    before: Option<&'a IntervalCgroup>,
    /// What came to its distributions.
    histograms: Option<&'a Metrics>,
    /// Time since the interval before.
    seconds: Option<f64>,
}

impl CgroupMoment<'_> {
    fn object(&self, id: &str, path: &str) -> Value {
        let rate = |now: u64, before: Option<u64>| Some((now as f64 - before? as f64) / self.seconds?);
        let gone = IntervalCgroup::default();
        let cgroup = self.cgroup.unwrap_or(&gone);
        let kinds = cgroup.kinds.iter().map(|(kind, bytes)| {
            let rate = rate(*bytes, self.before.and_then(|before| before.kinds.get(kind)).copied());
            (kind.clone(), json!({ "stat": bytes, "bytes_per_s": rate }))
        });
        json!({
            "path": path,
            "id": id,
            "usage_bytes": cgroup.usage_bytes,
            "usage_bytes_per_s": cgroup.usage_bytes.and_then(|usage| rate(usage, self.before?.usage_bytes)),
            "kinds": kinds.collect::<serde_json::Map<_, _>>(),
            "live": cgroup.live,
            "histograms": histogram_rows(self.histograms),
        })
    }
}

fn histogram_rows(metrics: Option<&Metrics>) -> BTreeMap<&'static str, HistogramRow> {
    metrics.into_iter().flatten().filter_map(|(name, distribution)| Some((*name, distribution.row()?))).collect()
}

/// The last line: what came to the distributions after the last interval.
#[must_use]
pub fn end_line(at_s: f64, increment: &Increment, path_of: impl Fn(&str) -> String, dropped: u64) -> Value {
    let cgroup = |(id, metrics): (&u64, &Metrics)| {
        let id = id.to_string();
        json!({ "path": path_of(&id), "id": id, "histograms": histogram_rows(Some(metrics)) })
    };
    let cgroups: Vec<Value> = increment.cgroups.iter().map(cgroup).collect();
    json!({
        "schema": SCHEMA, "type": "end", "at_s": at_s, "histograms_from_s": increment.from_s, "cgroups": cgroups, "dropped_lines": dropped,
    })
}

/// The line of a mark.
#[must_use]
pub fn mark_line(name: &str, at_s: f64, dropped: u64) -> Value {
    json!({ "schema": SCHEMA, "type": "mark", "at_s": at_s, "name": name, "dropped_lines": dropped })
}

/// Lines on their way to a reader.
#[derive(Debug)]
pub struct Stream {
    /// `None` when the reader went away.
    lines: Option<SyncSender<Vec<u8>>>,
    sent: u64,
    dropped: u64,
    written: Arc<AtomicU64>,
    done: Receiver<io::Result<()>>,
}

/// How a stream ended.
#[derive(Debug)]
pub struct Ended {
    /// Lines that the reader did not get.
    pub dropped: u64,
    /// Why it ended early, but for a reader that went away.
    pub error: Option<io::Error>,
}

impl Stream {
    /// To a file, a pipe with a name, or standard output (`-`). A named pipe is opened when somebody reads it, and keeps its mode, as a
    /// device does.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(path: &Path, access: Access) -> io::Result<Stream> {
        if path.as_os_str() == "-" {
            // Past the lock of the standard library, which a slow reader would keep from everybody.
            return Ok(Stream::to(File::from(io::stdout().as_fd().try_clone_to_owned()?)));
        }
        if path.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            let path = path.to_owned();
            return Ok(Stream::start(move || OpenOptions::new().write(true).open(path)));
        }
        Ok(Stream::to(open_in_place(path, access)?))
    }

    /// To any writer.
    #[must_use]
    pub fn to(writer: impl Write + Send + 'static) -> Stream {
        Stream::start(move || Ok(writer))
    }

    fn start<W: Write>(open: impl FnOnce() -> io::Result<W> + Send + 'static) -> Stream {
        let (lines, queue) = sync_channel::<Vec<u8>>(QUEUE);
        let (finished, done) = sync_channel(1);
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        std::thread::spawn(move || {
            let result = open().and_then(|mut writer| {
                while let Ok(line) = queue.recv() {
                    writer.write_all(&line)?;
                    writer.flush()?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            // Nobody waits for it after a timeout.
            let _ = finished.send(result);
        });
        Stream { lines: Some(lines), sent: 0, dropped: 0, written, done }
    }

    /// Sends a line, or drops it if the reader is behind: then `false`. Never waits.
    pub fn send(&mut self, line: &Value) -> bool {
        let Some(lines) = &self.lines else { return false };
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        let result = lines.try_send(bytes);
        match &result {
            Ok(()) => self.sent += 1,
            Err(TrySendError::Full(_)) => self.dropped += 1,
            Err(TrySendError::Disconnected(_)) => self.lines = None,
        }
        result.is_ok()
    }

    /// Whether there may still be a reader.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lines.is_some()
    }

    /// Lines dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Gives the reader a moment for the rest. If it stands still the line that it is in the middle of stays cut.
    #[must_use]
    pub fn finish(self) -> Ended {
        let Stream { lines, sent, dropped, written, done } = self;
        drop(lines);
        let result = done.recv_timeout(PATIENCE).unwrap_or(Ok(()));
        let error = result.err().filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        Ended { dropped: dropped + sent.saturating_sub(written.load(Ordering::Relaxed)), error }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    #[test]
    fn a_line_holds_the_kernels_figures_and_what_changed() {
        let interval = |at_s, usage, anon: u64| {
            let cgroup =
                IntervalCgroup { usage_bytes: usage, kinds: BTreeMap::from([("anon".to_owned(), anon)]), ..IntervalCgroup::default() };
            let losses = BTreeMap::from([("ring_full".to_owned(), Some(2)), ("recursion_misses".to_owned(), None)]);
            let clocks = [1, 2, 1_772_330_584_500_000_000];
            Interval { at_s, clocks, cgroups: BTreeMap::from([("9007199254740993".to_owned(), cgroup)]), losses, ..Interval::default() }
        };
        let (first, second) = (interval(1.0, None, 4096), interval(3.0, Some(8192), 0));
        let mut waits = Distribution::default();
        waits.add(7, 2);
        // Of a cgroup that is gone.
        let cgroups = BTreeMap::from([(5, BTreeMap::from([("memcg_reclaim_ns", waits)]))]);
        let increment = Increment { from_s: 1.0, to_s: 3.0, cgroups };
        let moment = Moment { interval: &second, before: Some(&first), increment: &increment, cost: Cost::default(), dropped: 7 };
        let line = interval_line(moment, |id| format!("/\n{id}"));
        let cgroup = &line["cgroups"][0];
        assert_eq!((cgroup["path"].as_str(), cgroup["id"].as_str()), (Some("/\n9007199254740993"), Some("9007199254740993")));
        assert_eq!(cgroup["kinds"]["anon"], json!({ "stat": 0, "bytes_per_s": -2048.0 }));
        assert!(cgroup["usage_bytes_per_s"].is_null() && cgroup["usage_bytes"] == 8192, "a rate needs two figures");
        assert_eq!(line["losses"], json!({ "ring_full": 2, "recursion_misses": null }));
        assert_eq!((line["time_s"].as_f64(), line["dropped_lines"].as_u64()), (Some(1_772_330_584.5), Some(7)));
        let gone = &line["cgroups"][1];
        assert_eq!((gone["id"].as_str(), gone["usage_bytes"].is_null()), (Some("5"), true));
        assert_eq!(
            (&gone["histograms"]["memcg_reclaim_ns"]["count"], &gone["histograms"]["memcg_reclaim_ns"]["max"]),
            (&json!(2), &json!(7))
        );
        assert!(line["cgroups"][0]["histograms"].as_object().unwrap().is_empty());
        let end = end_line(4.0, &increment, str::to_owned, 1);
        assert_eq!((&end["type"], &end["cgroups"][0]["histograms"]["memcg_reclaim_ns"]["p50"]), (&json!("end"), &json!(7)));
        assert!(!line.to_string().contains('\n'), "a line is a line, whatever the names");
        let none = Increment::default();
        let at_first = |before| Moment { interval: &first, before, increment: &none, cost: Cost::default(), dropped: 0 };
        let alone = interval_line(at_first(None), str::to_owned);
        assert!(alone["cgroups"][0]["kinds"]["anon"]["bytes_per_s"].is_null() && alone["cost"]["cpu_percent"].is_null());
        // Two readings of one moment have no rate.
        let twice = interval_line(at_first(Some(&first)), str::to_owned);
        assert!(twice["cgroups"][0]["kinds"]["anon"]["bytes_per_s"].is_null());
    }

    #[test]
    fn a_reader_that_stands_still_costs_whole_lines_and_no_time() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = Stream::to(writer);
        let padding = "x".repeat(5000);
        for number in 0..1000 {
            stream.send(&json!({ "number": number, "padding": padding, "dropped_lines": stream.dropped() }));
        }
        // A pipe holds 64 KiB, the queue a few lines more: nobody has read, and all of this took no wait.
        let dropped = stream.dropped();
        assert!(dropped > 900, "{dropped}");
        let lines = std::thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
        let ended = stream.finish();
        assert!(ended.error.is_none() && ended.dropped == dropped, "{ended:?}");
        let lines = lines.join().unwrap();
        assert_eq!(lines.len() as u64, 1000 - dropped);
        let numbers = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap());
        assert!(numbers.is_sorted());
    }

    #[test]
    fn a_reader_that_never_reads_is_left_behind() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stream = Stream::to(writer);
        let padding = "x".repeat(100_000);
        for _ in 0..5 {
            stream.send(&json!({ "padding": padding }));
        }
        let ended = stream.finish();
        assert_eq!(ended.dropped, 5, "not even the first is whole");
        // The thread ends with its reader.
        let _ = reader.read(&mut [0; 10]);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = Stream::to(writer);
        drop(reader);
        for _ in 0..100 {
            stream.send(&json!({}));
        }
        assert!(stream.finish().error.is_none());
        let full = Stream::open(Path::new("/dev/full"), Access::Owner);
        let mut full = full.unwrap();
        full.send(&json!({}));
        let ended = full.finish();
        assert_eq!((ended.error.unwrap().raw_os_error(), ended.dropped), (Some(libc::ENOSPC), 1));
        assert!(Stream::open(Path::new("/nonexistent/x"), Access::Owner).is_err());
    }
}
