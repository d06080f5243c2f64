//! Metrics for Prometheus and what reads its formats: gauges and counters of every container, the dead, the node, and memtrail itself.
//!
//! Pure: a report and what was counted beside it in, text or bytes out. The table of families ([`families`]) is the one place that says which
//! metrics there are; docs/metrics.md is made from it.
//!
//! | file | what |
//! |---|---|
//! | [`families`] | the table: name, type, unit, help |
//! | [`owners`] | label sets: whose memory a series is, and the bound on how many there are |
//! | [`collect`](mod@collect) | from a report to series |
//! | [`text`] | OpenMetrics 1.0 and the older text format 0.0.4 |
//! | [`protobuf`] | Prometheus' protocol buffers, which alone carry native histograms |

pub mod collect;
pub mod families;
pub mod owners;
pub mod protobuf;
pub mod text;

pub use collect::{Beside, Options, collect};
pub use families::{FAMILIES, Family, FamilyId, Type};
pub use owners::Owner;

use crate::report::distribution::Distribution;
use std::{borrow::Cow, collections::HashMap};

/// A label: name and value.
pub type Label = (&'static str, Cow<'static, str>);

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// A whole number: bytes, events.
    Whole(i64),
    /// Any other, such as seconds.
    Real(f64),
    /// A distribution of nanoseconds, told in seconds.
    Distribution(Box<Distribution>),
}

impl From<u64> for Number {
    /// Larger ones than the formats' integers are only in forged recordings.
    fn from(number: u64) -> Number {
        Number::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A series at this moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the order in which they are written.
    pub labels: Vec<Label>,
    /// Its value.
    pub number: Number,
    /// What a counter's last event was, as labels of an exemplar; empty for none.
    pub exemplar: Vec<Label>,
}

/// The series of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Which.
    pub family: &'static Family,
    /// No two of them have the same labels.
    pub series: Vec<Series>,
}

/// What counters told so far: one that falls would be taken for one that began anew, and its whole value for news. Estimates fall, and so do sums of
/// cgroups of which one is removed.
#[derive(Debug, Default)]
pub struct Told(HashMap<(FamilyId, Vec<Label>), Number>);

impl Told {
    /// Tells no counter to be less than it was. Series that are gone are forgotten.
    pub fn never_fall(&mut self, metrics: &mut [Metric]) {
        let mut now = HashMap::new();
        for metric in metrics.iter_mut().filter(|metric| metric.family.kind == Type::Counter) {
            for series in &mut metric.series {
                let key = (metric.family.id, series.labels.clone());
                series.number = match (self.0.get(&key), &series.number) {
                    (Some(Number::Whole(before)), Number::Whole(number)) => Number::Whole(*number.max(before)),
                    (Some(Number::Real(before)), Number::Real(number)) => Number::Real(number.max(*before)),
                    (_, number) => number.clone(),
                };
                now.insert(key, series.number.clone());
            }
        }
        self.0 = now;
    }
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
    /// Prometheus' text format, version 0.0.4.
    Plain,
    /// Prometheus' protocol buffers, delimited.
    Protobuf,
}

impl Encoding {
    /// What a scraper likes best of what it asks for (the header `Accept`), by its weights and then by our order; plain text for who names none
    /// of them.
    #[must_use]
    pub fn negotiate(accept: &str) -> Encoding {
        let mut best = (0.0, Encoding::Plain);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(String, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let parameter = |name: &str| parameters.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
            let encoding = match media.as_str() {
                "application/openmetrics-text" if parameter("version").is_none_or(|version| version.starts_with('1')) => {
                    Encoding::OpenMetrics
                }
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily") && parameter("encoding") == Some("delimited") =>
                {
                    Encoding::Protobuf
                }
                "text/plain" | "*/*" => Encoding::Plain,
                _ => continue,
            };
            let weight = parameter("q").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if weight > best.0 {
                best = (weight, encoding);
            }
        }
        best.1
    }

    /// As the header `Content-Type` says it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Encoding::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Encoding::Protobuf => "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        }
    }

    /// Writes metrics.
    #[must_use]
    pub fn encode(self, metrics: &[Metric]) -> Vec<u8> {
        match self {
            Encoding::OpenMetrics => text::open_metrics(metrics).into_bytes(),
            Encoding::Plain => text::plain(metrics).into_bytes(),
            Encoding::Protobuf => protobuf::encode(metrics),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_fall_and_gauges_do() {
        let metric = |id, number| Metric {
            family: Family::of(id),
            series: vec![Series { labels: vec![("cause", "x".into())], number, exemplar: vec![] }],
        };
        let mut told = Told::default();
        for (losses, dirty, expected) in [(5, 5, 5), (3, 3, 5), (7, 1, 7)] {
            let mut metrics = [metric(FamilyId::Losses, Number::Whole(losses)), metric(FamilyId::Dirty, Number::Whole(dirty))];
            told.never_fall(&mut metrics);
            assert_eq!((&metrics[0].series[0].number, &metrics[1].series[0].number), (&Number::Whole(expected), &Number::Whole(dirty)));
        }
        told.never_fall(&mut []);
        let mut metrics = [metric(FamilyId::Losses, Number::Whole(1))];
        told.never_fall(&mut metrics);
        assert_eq!(metrics[0].series[0].number, Number::Whole(1), "one that was gone begins anew");
    }

    #[test]
    fn a_scraper_gets_what_it_likes_best() {
        for (accept, encoding) in [
            ("", Encoding::Plain),
            ("text/html, application/xhtml+xml", Encoding::Plain),
            ("*/*", Encoding::Plain),
            // Prometheus 2.42, without and with native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Encoding::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8",
                Encoding::Protobuf,
            ),
            ("application/vnd.google.protobuf;proto=other;encoding=delimited, text/plain;q=0.3", Encoding::Plain),
            ("application/openmetrics-text;version=2.0.0, text/plain;version=0.0.4;q=0.5", Encoding::Plain),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.9", Encoding::Plain),
            ("application/openmetrics-text;q=x", Encoding::Plain),
        ] {
            assert_eq!(Encoding::negotiate(accept), encoding, "{accept}");
        }
    }
}
