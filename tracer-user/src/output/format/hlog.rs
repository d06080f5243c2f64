//! Distributions as a log of HdrHistogram (`.hlog`): one line an interval, cgroup and metric, which HdrHistogram's own tools and those of
//! load generators read. docs/histograms.md is the contract.
//!
//! A line's tag is `CGROUP;METRIC`. Times are seconds since the base time in the head.

use super::Growing;
use crate::recording::Header;
use crate::report::Report;
use crate::report::distribution::Increment;
use crate::text;
use crate::text::date;
use std::fmt::Write as _;
use std::io;

/// A log that grows with its recording.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Growing for Log {
    fn head(&mut self, header: &Header) -> Vec<u8> {
        head(&header.tool, &header.started, seconds(&header.started)).into_bytes()
    }

    fn increment(&mut self, increment: &Increment, path_of: &dyn Fn(u64) -> String) -> Vec<u8> {
        lines(increment, path_of).into_bytes()
    }
}

/// Seconds since 1970 of a time as reports have it; 0 if it is none.
fn seconds(time: &str) -> f64 {
    date::parse_rfc3339(time).unwrap_or(0) as f64
}

/// What a log begins with. `started_s` is the start of the recording, seconds since 1970.
#[must_use]
pub fn head(tool: &str, started: &str, started_s: f64) -> String {
    let (tool, started) = (text::escape(tool), text::escape(started));
    format!(
        "#[{tool}]\n#[Histogram log format version 1.3]\n#[StartTime: {started_s:.3} (seconds since epoch), {started}]\n\
         #[BaseTime: {started_s:.3} (seconds since epoch)]\n#[MaxValueDivisor: 1.0]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    )
}

/// The lines of what was added between two moments. `path_of` names a cgroup by its id.
#[must_use]
pub fn lines(increment: &Increment, path_of: impl Fn(u64) -> String) -> String {
    let mut lines = String::new();
    for (id, metrics) in &increment.cgroups {
        let path = path_of(*id);
        for (metric, distribution) in metrics {
            if let Some((max, encoded)) = distribution.encoded() {
                let Increment { from_s, to_s, .. } = *increment;
                Line { path: &path, metric, from_s, to_s, max, encoded: &encoded }.push_to(&mut lines);
            }
        }
    }
    lines
}

/// Writes the distributions of a report as one interval: its whole recording.
///
/// # Errors
/// When the writer fails.
pub fn write(report: &Report, mut writer: impl io::Write) -> io::Result<()> {
    let mut log = head(&report.tool, &report.started, seconds(&report.started));
    for cgroup in &report.cgroups {
        for (metric, row) in &cgroup.histograms {
            if let Some((max, encoded)) = row.distribution().and_then(|distribution| distribution.encoded()) {
                Line { path: &cgroup.path, metric, from_s: 0.0, to_s: report.duration_s, max, encoded: &encoded }.push_to(&mut log);
            }
        }
    }
    writer.write_all(log.as_bytes())?;
    writer.flush()
}

/// A distribution of one cgroup over one interval.
struct Line<'a> {
    path: &'a str,
    metric: &'a str,
    /// Seconds since the start.
    from_s: f64,
    to_s: f64,
    /// The largest value, in the unit that the log has.
    max: u64,
    /// Compressed, in base64.
    encoded: &'a str,
}

impl Line<'_> {
    fn push_to(&self, lines: &mut String) {
        let Line { path, metric, from_s, to_s, max, encoded } = *self;
        let length = (to_s - from_s).max(0.0);
        let (path, metric) = (tag(path), tag(metric));
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "Tag={path};{metric},{from_s:.3},{length:.3},{max},{encoded}");
    }
}

/// A name as part of a tag, which ends at a comma and has no spaces; a semicolon stands between its parts.
fn tag(name: &str) -> String {
    let mut tag = String::new();
    for character in text::escape(name).chars() {
        match character {
            ',' | ';' | ' ' => {
                let _ = write!(tag, "\\x{:02x}", character as u32);
            }
            _ => tag.push(character),
        }
    }
    tag
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::report::distribution::Distribution;
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use hdrhistogram::{
        Histogram,
        serialization::{
            Deserializer,
            interval_log::{IntervalLogIterator, LogEntry},
        },
    };
    use std::collections::BTreeMap;

    #[test]
    fn the_crates_own_reader_reads_what_was_written() {
        let mut log = head("memtrail 1", "2026-01-01T00:00:00Z", 1_767_225_600.0);
        let mut total = Distribution::default();
        for at in 0..3_u64 {
            let mut one = Distribution::default();
            one.add_ns(1000 * (at + 1), at + 1);
            total.merge(&one);
            let cgroups = BTreeMap::from([(7, BTreeMap::from([("memcg_reclaim_ns", one)]))]);
            log += &lines(&Increment { from_s: at as f64, to_s: at as f64 + 1.0, cgroups }, |id| format!("/a, b;\n{id}"));
        }
        let (mut sum, mut times) = (Histogram::<u64>::new(3).unwrap(), Vec::new());
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.tag().unwrap().as_str(), "/a\\x2c\\x20b\\x3b\\x0a7;memcg_reclaim_ns");
                times.push(interval.start_timestamp().as_secs());
                let bytes = BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                sum.add(&histogram).unwrap();
            }
        }
        let row = total.row().unwrap();
        // A reader shows the highest value that counts as equal.
        assert!(sum.equivalent(sum.value_at_quantile(0.5), row.p50.unwrap()) && sum.equivalent(sum.max(), row.max.unwrap()));
        assert_eq!(sum.len(), 6);
        assert_eq!(times, [0, 1, 2]);
    }
}
